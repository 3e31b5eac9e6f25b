//! Why the broker could not start.

use std::fmt;

use crate::config::ConfigError;
use crate::config::policy::PolicyError;

/// Why the broker could not start, with an exit code of `sysexits.h`.
#[derive(Debug)]
pub enum StartError {
    /// The configuration cannot be used (78, `EX_CONFIG`).
    Config(ConfigError),
    /// The policy cannot be used (78, `EX_CONFIG`).
    Policy(PolicyError),
    /// The policy reader reports that the policy cannot be used (78, `EX_CONFIG`).
    PolicyReader(String),
    /// The control socket cannot be served (69, `EX_UNAVAILABLE`).
    Listen(String),
    /// Another system error (71, `EX_OSERR`).
    System(String),
}

impl StartError {
    pub fn code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Policy(_) | Self::PolicyReader(_) => 78,
            Self::Listen(_) => 69,
            Self::System(_) => 71,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Policy(error) => error.fmt(f),
            Self::PolicyReader(text) | Self::Listen(text) | Self::System(text) => f.write_str(text),
        }
    }
}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<PolicyError> for StartError {
    fn from(error: PolicyError) -> Self {
        Self::Policy(error)
    }
}
