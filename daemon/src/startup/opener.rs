//! The opener: makes the system calls that need a capability, for the workers.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use sockbroker_monitor::message::Description;
use sockbroker_monitor::opener::{self, CaptureLimits};
use sockbroker_policy::Policy;
use sockbroker_sys::capability::Capability;
use sockbroker_sys::{process, sealed};

use super::confine::{self, Files};
use super::error::StartError;
use super::first_steps::start_log;
use super::sources::{MEMORY, read_sealed_policy};
use crate::config;
use crate::config::limits::Limits;

/// Serves the workers that the monitor starts.
pub(super) fn run(channel: OwnedFd) -> Result<(), StartError> {
    start_log()?;
    // Each record is received into a large buffer.
    process::keep_large_buffers();
    if let Err(error) = process::raise_open_files() {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let ended = opener::run(channel, Service::default());
    ended.map_err(|error| StartError::System(format!("opener: {error}")))
}

/// The program around the opener.
#[derive(Debug, Default)]
struct Service {
    kept: Vec<Capability>,
    limits: Limits,
    network_folders: Vec<PathBuf>,
}

impl opener::Host for Service {
    fn policy(&mut self, memory: OwnedFd) -> Result<Policy, String> {
        read_sealed_policy(&memory)
    }

    fn confine(&mut self, configuration: OwnedFd, policy: &Policy) -> Result<Description, String> {
        let text =
            sealed::read(configuration.as_fd(), MEMORY).map_err(|error| error.to_string())?;
        let text = String::from_utf8(text).map_err(|error| error.to_string())?;
        let config =
            config::parse(Path::new("configuration"), &text).map_err(|error| error.to_string())?;
        self.network_folders = config.namespaces.folders;
        let files = Files::default().with_folders(&self.network_folders);
        self.kept = confine::kept_by_opener(policy);
        self.limits = config.limits;
        let process = confine::confine_opener(&config.confine, &self.kept, &files)
            .map_err(|error| error.to_string())?;
        confine::log(&process);
        let encoded = postcard::to_stdvec(&process).map_err(|error| error.to_string())?;
        Ok(Description(encoded))
    }

    fn capture_limits(&self) -> CaptureLimits {
        CaptureLimits {
            of_user: self.limits.captures_per_user,
            in_all: self.limits.captures_in_all,
            bytes_of_user: self.limits.capture_bytes_per_user,
            bytes_in_all: self.limits.capture_bytes_in_all,
        }
    }

    fn network_folders(&self) -> Vec<PathBuf> {
        self.network_folders.clone()
    }

    fn replaced(&mut self, policy: &Policy) {
        confine::warn_of_lost(&confine::lost_by_opener(policy, &self.kept));
    }
}
