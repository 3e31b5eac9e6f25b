//! `[confine]`: what the broker gives up at its start.

use serde::Deserialize;
use sockbroker_proto::api::broker::Seccomp as Told;

/// What the broker gives up before it reads the first byte of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Confine {
    /// Whether capabilities that the policy cannot use are given up.
    pub capabilities: bool,
    /// Whether Landlock closes all files but those of the system, where the kernel has it.
    pub landlock: bool,
    /// What happens to a system call that the broker never makes.
    pub seccomp: Seccomp,
}

impl Default for Confine {
    fn default() -> Self {
        Self { capabilities: true, landlock: true, seccomp: Seccomp::Errno }
    }
}

/// What happens to a system call that is not on the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seccomp {
    /// It fails with `EPERM`, and a line on standard error names it.
    Errno,
    /// It is made, and the kernel's log (`dmesg`, audit) names it: for finding what a filter would stop.
    Log,
    /// There is no filter.
    Off,
}

impl Seccomp {
    /// How clients are told of it.
    pub fn told(self) -> Told {
        match self {
            Self::Errno => Told::Errno,
            Self::Log => Told::Log,
            Self::Off => Told::Off,
        }
    }
}
