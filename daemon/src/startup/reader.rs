//! The process that reads the captures of a worker.

use std::os::fd::{AsFd as _, OwnedFd};

use sockbroker_monitor::reader;
use sockbroker_sys::process;

use super::confine;
use super::error::StartError;
use super::first_steps::{sent_configuration, start_log, take_id};

/// Its open files: eight for each capture, and its channels.
const OPEN_FILES: u64 = 1024;
/// The limit on its memory (`RLIMIT_DATA`): stacks, and the buffer of each capture. Rings are shared with the kernel and do
/// not count.
const MEMORY: u64 = 256 << 20;

/// Reads the captures that the opener opens.
pub(super) fn run(channel: OwnedFd, parent: u32) -> Result<(), StartError> {
    start_log()?;
    let fail = |error: &dyn std::fmt::Display| StartError::System(format!("reader: {error}"));
    let beginning = reader::begin(channel.as_fd()).map_err(|error| fail(&error))?;
    let config = sent_configuration(beginning.configuration)?;
    let has_own_id = beginning.id.is_some();
    take_id(beginning.id, parent, &config).map_err(|error| fail(&error))?;
    // The kernel compares with it all descriptors that are in flight for the user.
    if has_own_id {
        process::limit_open_files(OPEN_FILES).map_err(|error| fail(&error))?;
    }
    process::limit_memory(MEMORY).map_err(|error| fail(&error))?;
    confine::confine_reader(&config.confine)?;
    reader::serve(channel, beginning.opener, beginning.lot).map_err(|error| fail(&error))
}
