//! The program around the opener.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use sockbroker_policy::Policy;

use crate::message::Description;

/// The limits on captures and the bytes of their rings, of one principal and in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptureLimits {
    pub of_user: u64,
    pub in_all: u64,
    pub bytes_of_user: u64,
    pub bytes_in_all: u64,
}

/// What the opener needs of the program around it.
pub trait Host {
    /// Reads a policy from sealed memory.
    fn policy(&mut self, memory: OwnedFd) -> Result<Policy, String>;
    /// Confines the process for this configuration and policy. Describes what is in force then.
    fn confine(&mut self, configuration: OwnedFd, policy: &Policy) -> Result<Description, String>;
    /// The limits on captures, by the configuration of [`Host::confine`].
    fn capture_limits(&self) -> CaptureLimits;
    /// The folders of network namespaces that have names, by the configuration of [`Host::confine`].
    fn network_folders(&self) -> Vec<PathBuf>;
    /// A policy has replaced another one after the confinement.
    fn replaced(&mut self, policy: &Policy);
}
