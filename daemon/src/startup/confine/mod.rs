//! What the broker gives up before it reads the first byte of a client: capabilities that it cannot
//! use, programs that would gain privileges, files that are not its business, system calls it never makes.
//!
//! All of it holds for the calling thread and those it starts, so it is done before there are others.
//! Where the kernel has no such protection the log says so, and the broker serves without it.

mod landlock;
mod seccomp;
mod calls;
mod measure;

use std::fmt;
use std::path::PathBuf;

use sockbroker_proto::api::broker::{Landlock, Process};
use sockbroker_sys::capability::{self, Capability};
use sockbroker_sys::process;

use super::StartError;
use crate::config::confine::Confine;
use sockbroker_policy::Policy;
use sockbroker_policy::need::Need;

pub use measure::tell;

/// Files that the broker needs after its start, beside those of the system.
#[derive(Debug, Default)]
pub struct Files {
    /// Files and folders to be read again: configuration and policy.
    pub read: Vec<PathBuf>,
    /// Folders in which it may write, and remove what it made: that of its socket, that of its log.
    pub write: Vec<PathBuf>,
}

/// The capabilities to keep: those that the policy can make use of, unless the configuration says all.
pub fn kept(config: &Confine, policy: &Policy) -> Vec<Capability> {
    // One that cannot be found out about is not there.
    let has = |capability| capability::has(capability).unwrap_or(false);
    if config.capabilities { needed(policy, has) } else { capability::ALL.to_vec() }
}

/// The capabilities that a policy could make use of and that were given up.
pub fn lost(policy: &Policy, kept: &[Capability]) -> Vec<Capability> {
    let needed = needed(policy, |capability| kept.contains(&capability)).into_iter();
    needed.filter(|capability| !kept.contains(capability)).collect()
}

/// The capabilities that a policy can make use of, for a process that has some. Where either of two will
/// do, no more than one is kept for it.
fn needed(policy: &Policy, has: impl Fn(Capability) -> bool) -> Vec<Capability> {
    use Capability as Cap;
    let of = |need| -> &[Cap] {
        match need {
            Need::Raw => &[Cap::NetRaw],
            Need::Administration => &[Cap::NetAdmin],
            Need::Broadcast => &[Cap::NetBroadcast],
            Need::LowPorts => &[Cap::NetBindService],
            // Root's own files are root's by these.
            Need::Identity => &[Cap::SetUid, Cap::SetGid, Cap::DacOverride, Cap::DacReadSearch],
            Need::System => &[Cap::SysAdmin],
            Need::Audit => &[Cap::AuditRead],
            Need::RawOrAdministration => &[],
        }
    };
    let needs = Need::ALL.into_iter().filter(|need| policy.needs(*need));
    let mut needed: Vec<_> = needs.flat_map(of).copied().collect();
    let either = [Cap::NetRaw, Cap::NetAdmin];
    let has_either = either.into_iter().any(|one| needed.contains(&one) && has(one));
    if policy.needs(Need::RawOrAdministration) && !has_either {
        let one = if has(Cap::NetAdmin) && !has(Cap::NetRaw) { Cap::NetAdmin } else { Cap::NetRaw };
        if !needed.contains(&one) {
            needed.push(one);
        }
    }
    needed
}

/// Gives up everything but these capabilities, and what the configuration says beside; gives what is
/// in force then.
pub fn confine(
    config: &Confine,
    kept: &[Capability],
    files: &Files,
) -> Result<Process, StartError> {
    let fail = |what: &str, error: &dyn fmt::Display| {
        StartError::System(format!("cannot confine the broker: {what}: {error}"))
    };
    capability::keep_only(kept).map_err(|error| fail("capabilities", &error))?;
    process::refuse_new_privileges().map_err(|error| fail("no_new_privs", &error))?;
    let landlock = if config.landlock {
        landlock::restrict(files).map_err(|error| fail("landlock", &error))?
    } else {
        (Landlock::Off, None)
    };
    seccomp::filter(config.seccomp).map_err(|error| fail("seccomp", &error))?;
    measure::measure(config.seccomp.told(), landlock)
        .map_err(|error| fail("what is in force", &error))
}

#[cfg(test)]
mod tests;
