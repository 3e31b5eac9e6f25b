//! `[confine]`: what the broker gives up at its start.

use serde::Deserialize;

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
    /// The word of the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Errno => "errno",
            Self::Log => "log",
            Self::Off => "off",
        }
    }
}
