//! The first steps of the broker's processes, which several of them have in common.

use std::io;
use std::path::Path;

use sockbroker_monitor::role;
use sockbroker_sys::identity::{Identity, become_user};
use sockbroker_sys::{capability, child};

use super::error::StartError;
use crate::config::{self, Config, ConfigError};
use crate::observe::log::{self, LogFilter};

/// The filter of the log that the environment names.
pub(super) fn log_filter() -> Result<LogFilter, ConfigError> {
    log::configured_filter().map_err(|error| ConfigError::given("environment", error))
}

/// Starts the log.
pub(super) fn start_log() -> Result<(), ConfigError> {
    log::start(log_filter()?);
    Ok(())
}

/// Reads the configuration that the monitor has sent.
pub(super) fn sent_configuration(bytes: Vec<u8>) -> Result<Config, StartError> {
    let text = String::from_utf8(bytes)
        .map_err(|error| StartError::System(format!("the configuration is not UTF-8: {error}")))?;
    Ok(config::parse(Path::new("configuration"), &text)?)
}

/// Clears the bounding set of capabilities, and takes a user id of its own, if the process has one.
pub(super) fn take_id(id: Option<u32>, parent: u32, config: &Config) -> io::Result<()> {
    capability::clear_bounding()?;
    if let Some(id) = id {
        become_user(&Identity { uid: id, gid: id, groups: [].into() })?;
        // A change of ids undoes what it did before.
        role::begin(parent)?;
    }
    if config.confine.tracing {
        child::allow_tracing()?;
    }
    Ok(())
}
