//! `[confine]`: the privileges that the broker drops at its start.

use serde::Deserialize;
use sockbroker_proto::api::broker::Seccomp as Reported;

/// What the broker drops before it reads the first byte of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Confine {
    /// Whether capabilities that the policy cannot use are dropped.
    pub capabilities: bool,
    /// Whether Landlock restricts file access to the system's files, where the kernel has it.
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
    /// No filter is installed.
    Off,
}

impl Seccomp {
    /// The value in `broker.info`.
    pub fn reported(self) -> Reported {
        match self {
            Self::Errno => Reported::Errno,
            Self::Log => Reported::Log,
            Self::Off => Reported::Off,
        }
    }
}
