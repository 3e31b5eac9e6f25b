//! The process that makes calls on `AF_UNIX` sockets with the ids of a worker's caller.

use std::os::fd::{AsFd as _, OwnedFd};

use sockbroker_monitor::{caller, role};
use sockbroker_sys::capability::{self, Capability};
use sockbroker_sys::identity::{Identity, become_user};
use sockbroker_sys::{child, process};

use super::confine;
use super::error::StartError;
use super::first_steps::{sent_configuration, start_log};
use crate::config::limits::size;

/// The limit on its memory (`RLIMIT_DATA`): stacks, and messages up to the largest datagram.
const MEMORY: u64 = 256 << 20;

/// Makes the calls that the worker sends.
pub(super) fn run(calls: OwnedFd, parent: u32) -> Result<(), StartError> {
    start_log()?;
    let fail = |error: &dyn std::fmt::Display| StartError::System(format!("caller: {error}"));
    let beginning = caller::begin(calls.as_fd()).map_err(|error| fail(&error))?;
    let config = sent_configuration(beginning.configuration)?;
    capability::clear_bounding().map_err(|error| fail(&error))?;
    let ids = beginning.ids;
    let identity = Identity { uid: ids.uid, gid: ids.gid, groups: ids.groups.into() };
    let is_own = Identity::own().is_ok_and(|own| own.is_same(&identity));
    if !is_own {
        become_user(&identity).map_err(|error| fail(&error))?;
    }
    role::begin(parent).map_err(|error| fail(&error))?;
    if config.confine.tracing {
        child::allow_tracing().map_err(|error| fail(&error))?;
    }
    // No lower limit of open files: the kernel compares with it all descriptors that are in flight for this user.
    process::limit_memory(MEMORY).map_err(|error| fail(&error))?;
    let kept: &[Capability] = if beginning.overrides_files {
        &[Capability::DacOverride, Capability::DacReadSearch]
    } else {
        &[]
    };
    confine::confine_caller(&config.confine, kept)?;
    let jobs = config.limits.identity_jobs.min(config.limits.identity_jobs_per_user);
    caller::serve(calls, beginning.sends, size(jobs)).map_err(|error| fail(&error))
}
