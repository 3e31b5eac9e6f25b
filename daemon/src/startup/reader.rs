//! The process that reads the captures of a worker.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use sockbroker_monitor::{reader, role};
use sockbroker_sys::identity::{Identity, become_user};
use sockbroker_sys::{capability, child, process};

use super::confine;
use super::error::StartError;
use crate::config::{self, ConfigError};
use crate::observe::log;

/// Its open files: four for each capture, and its channels.
const OPEN_FILES: u64 = 1024;
/// The limit on its memory (`RLIMIT_DATA`): stacks, and the buffer of each capture. Rings are shared with the kernel and do
/// not count.
const MEMORY: u64 = 256 << 20;

/// Reads the captures that the opener opens.
pub(super) fn run(channel: OwnedFd, parent: u32) -> Result<(), StartError> {
    let filter =
        log::configured_filter().map_err(|error| ConfigError::given("environment", error))?;
    log::start(filter);
    let fail = |error: &dyn std::fmt::Display| StartError::System(format!("reader: {error}"));
    let beginning = reader::begin(channel.as_fd()).map_err(|error| fail(&error))?;
    let text = String::from_utf8(beginning.configuration).map_err(|error| fail(&error))?;
    let config = config::parse(Path::new("configuration"), &text)?;
    capability::clear_bounding().map_err(|error| fail(&error))?;
    if let Some(id) = beginning.id {
        let identity = Identity { uid: id, gid: id, groups: [].into() };
        become_user(&identity).map_err(|error| fail(&error))?;
        role::begin(parent).map_err(|error| fail(&error))?;
    }
    if config.confine.tracing {
        child::allow_tracing().map_err(|error| fail(&error))?;
    }
    process::limit_open_files(OPEN_FILES).map_err(|error| fail(&error))?;
    process::limit_memory(MEMORY).map_err(|error| fail(&error))?;
    confine::confine_reader(&config.confine)?;
    reader::serve(channel, beginning.opener).map_err(|error| fail(&error))
}
