//! The configuration file, and where the policy stands: typed, with unknown keys refused by name and
//! place.

pub mod policy;

pub mod confine;

pub mod audit;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use sockbroker_sys::process;

use crate::session::limits::Limits;
use audit::Audit;
use confine::Confine;

/// The configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The Unix socket to serve; the command line goes before it.
    pub socket: Option<PathBuf>,
    /// The limits; those that are absent keep their defaults.
    #[serde(default)]
    pub limits: Limits,
    /// What the broker gives up at its start.
    #[serde(default)]
    pub confine: Confine,
    /// Where decisions are told.
    #[serde(default)]
    pub audit: Audit,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct ConfigError {
    path: PathBuf,
    reason: String,
}

/// Reads the configuration; without a file the defaults hold.
pub fn load(path: Option<&Path>) -> Result<Config, ConfigError> {
    let Some(path) = path else {
        return Ok(Config::default());
    };
    let config: Config = read(path)?;
    check(&config).map_err(|reason| ConfigError { path: path.to_owned(), reason })?;
    Ok(config)
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, ConfigError> {
    let fail = |reason: String| ConfigError { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    toml::from_str(&text).map_err(|error| fail(error.to_string()))
}

/// What the types cannot say.
fn check(config: &Config) -> Result<(), String> {
    let limits = &config.limits;
    if limits.descriptors > 253 {
        return Err("limits.descriptors: the kernel carries at most 253 (SCM_MAX_FD)".to_owned());
    }
    if limits.batch_messages > 1024 {
        return Err("limits.batch_messages: the kernel takes at most 1024 (UIO_MAXIOV)".to_owned());
    }
    // Base64 makes four bytes of three, and the rest of the answer needs a little.
    let encoded = limits.receive_bytes.saturating_mul(4) / 3 + 65_536;
    if encoded > limits.frame_bytes {
        let text = "limits.receive_bytes: as base64 it must fit into limits.frame_bytes";
        return Err(text.to_owned());
    }
    for (name, value) in [
        ("head_bytes", limits.head_bytes),
        ("calls_in_flight", limits.calls_in_flight),
        ("connections", limits.connections),
        ("connections_per_user", limits.connections_per_user),
        ("resolver_jobs", limits.resolver_jobs),
        ("resolver_jobs_per_user", limits.resolver_jobs_per_user),
        ("identity_jobs", limits.identity_jobs),
        ("identity_jobs_per_user", limits.identity_jobs_per_user),
    ] {
        if value == 0 {
            return Err(format!("limits.{name}: with 0 nothing could be served"));
        }
    }
    Ok(())
}

/// The socket's path where neither command line nor configuration name one.
pub fn default_socket() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(directory) if process::effective_uid() != 0 => {
            PathBuf::from(directory).join("sockbroker.socket")
        }
        _ => PathBuf::from("/run/sockbroker/socket"),
    }
}

#[cfg(test)]
mod documents;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_with_its_place() {
        let error = toml::from_str::<Config>("sockets = \"/x\"").unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains("unknown field"), "{error}");
    }

    #[test]
    fn limits_that_cannot_work_are_refused_by_name() {
        for (text, name) in [
            ("limits.descriptors = 254", "limits.descriptors"),
            ("limits.receive_bytes = 9000000", "limits.receive_bytes"),
            ("limits.connections = 0", "limits.connections"),
            ("limits.batch_messages = 1025", "limits.batch_messages"),
        ] {
            let config: Config = toml::from_str(text).unwrap();
            assert!(check(&config).unwrap_err().starts_with(name), "{text}");
        }
        assert_eq!(check(&Config::default()), Ok(()));
    }
}
