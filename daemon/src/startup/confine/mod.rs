//! Confinement. Before it reads the first byte of a client, the broker drops capabilities that it cannot use,
//! the execution of programs with more privileges, access to files that it does not need, and system calls
//! that it never makes.
//!
//! Confinement applies to the calling thread and to threads that it starts later, so it is done while there
//! is one thread. If the kernel lacks a protection, the broker logs that and serves without it.

mod landlock;
mod seccomp;
mod calls;
mod measure;

use std::fmt;

use sockbroker_monitor::opener::TO_ENTER_NETWORKS;
use sockbroker_proto::api::broker::{Landlock, Process};
use sockbroker_sys::capability::{self, Capability};
use sockbroker_sys::process;

use super::error::StartError;
use crate::config::Confine;
use sockbroker_policy::Policy;
use sockbroker_policy::need::Need;

pub use landlock::Files;
pub use measure::log;
use seccomp::Calls;

/// The capabilities to keep: those that the policy can use, or all if the configuration keeps them.
pub fn kept(config: &Confine, policy: &Policy) -> Vec<Capability> {
    // A capability whose state is unknown counts as missing.
    let has = |capability| capability::has(capability).unwrap_or(false);
    if config.capabilities { needed(policy, has) } else { capability::ALL.to_vec() }
}

/// The capabilities that in a broker with workers only the opener has.
pub const OF_OPENER: [Capability; 6] = [
    Capability::NetRaw,
    Capability::NetAdmin,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::AuditRead,
    Capability::SysAdmin,
];

/// Whether a policy can use one of [`OF_OPENER`].
pub fn needs_opener(policy: &Policy) -> bool {
    !of_opener(needed(policy, |_| true)).is_empty()
}

fn of_opener(capabilities: Vec<Capability>) -> Vec<Capability> {
    capabilities.into_iter().filter(|capability| OF_OPENER.contains(capability)).collect()
}

/// The capabilities that the opener keeps: those of [`OF_OPENER`] that the policy can use.
pub fn kept_by_opener(policy: &Policy) -> Vec<Capability> {
    of_opener(needed(policy, |capability| capability::has(capability).unwrap_or(false)))
}

/// The capabilities that a worker keeps: none, or all if the configuration keeps them.
pub fn kept_by_worker(config: &Confine) -> &'static [Capability] {
    if config.capabilities { &[] } else { &capability::ALL }
}

/// The dropped capabilities of [`OF_OPENER`] that a policy could use.
pub fn lost_by_opener(policy: &Policy, kept: &[Capability]) -> Vec<Capability> {
    of_opener(lost(policy, kept))
}

/// Warns of dropped capabilities that a new policy could use.
pub fn warn_of_lost(lost: &[Capability]) {
    for lost in lost {
        let capability = lost.name();
        tracing::warn!(
            capability,
            "a new rule needs a capability that was dropped at the start: restart the broker"
        );
    }
}

/// Warns of capabilities that this process does not have, and without which rules with `netns` have no effect.
pub fn warn_of_unreachable_networks() {
    for missing in TO_ENTER_NETWORKS {
        if !capability::has(missing).unwrap_or(false) {
            let capability = missing.name();
            tracing::warn!(
                capability,
                "rules with netns have no effect, because the broker does not have this capability: start it with the \
                 capability, or remove the rules"
            );
        }
    }
}

/// The dropped capabilities that a policy could use.
pub fn lost(policy: &Policy, kept: &[Capability]) -> Vec<Capability> {
    let needed = needed(policy, |capability| kept.contains(&capability)).into_iter();
    needed.filter(|capability| !kept.contains(capability)).collect()
}

/// The capabilities that a policy can use, for a process that has some. Where one of two suffices, one is
/// kept.
fn needed(policy: &Policy, has: impl Fn(Capability) -> bool) -> Vec<Capability> {
    use Capability as Cap;
    let of = |need| -> &[Cap] {
        match need {
            Need::Raw => &[Cap::NetRaw],
            Need::Administration => &[Cap::NetAdmin],
            Need::Broadcast => &[Cap::NetBroadcast],
            Need::LowPorts => &[Cap::NetBindService],
            // Access to the files of root by its own rights takes these.
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

/// Drops all capabilities but these, and confines a broker of one process as configured. Returns what is in force then.
pub fn confine(
    config: &Confine,
    kept: &[Capability],
    files: &Files,
) -> Result<Process, StartError> {
    let system = Some(&landlock::SYSTEM[..]);
    apply(*config, kept, &Restrictions { system, files, calls: Calls::Broker })
}

/// The same for a worker. `makes_files` if it creates files of sockets itself.
pub fn confine_worker(
    config: &Confine,
    makes_files: bool,
    files: &Files,
) -> Result<Process, StartError> {
    let system = Some(&landlock::SYSTEM[..]);
    let calls = Calls::Worker { makes_files };
    apply(*config, kept_by_worker(config), &Restrictions { system, files, calls })
}

/// The same for the opener, which needs the files of `/proc`, network namespaces, and a few system calls.
pub fn confine_opener(
    config: &Confine,
    kept: &[Capability],
    files: &Files,
) -> Result<Process, StartError> {
    apply(*config, kept, &Restrictions { system: Some(&["/proc"]), files, calls: Calls::Opener })
}

/// The same for a process that acts as a caller: it can access the files that the caller can.
pub fn confine_caller(config: &Confine, kept: &[Capability]) -> Result<Process, StartError> {
    let files = &Files::default();
    // Whatever the configuration keeps in other processes.
    let config = Confine { capabilities: true, ..*config };
    apply(config, kept, &Restrictions { system: None, files, calls: Calls::Caller })
}

/// The same for a process that reads captures: it opens no file, and makes few system calls.
pub fn confine_reader(config: &Confine) -> Result<Process, StartError> {
    let files = &Files::default();
    // Whatever the configuration keeps in other processes.
    let config = Confine { capabilities: true, ..*config };
    apply(config, &[], &Restrictions { system: Some(&["/proc"]), files, calls: Calls::Reader })
}

/// The same for the gateway: it opens no file, and makes few system calls.
pub fn confine_gateway(config: &Confine) -> Result<Process, StartError> {
    let files = &Files::default();
    // Whatever the configuration keeps in other processes.
    let config = Confine { capabilities: true, ..*config };
    let system = Some(&["/proc"][..]);
    apply(config, &[], &Restrictions { system, files, calls: Calls::Gateway })
}

/// Restricts the system calls of the monitor, and of the processes that it starts from now on, to those that any of these
/// processes makes. `no_new_privs` must be set.
pub fn confine_monitor(config: &Confine) -> Result<(), StartError> {
    seccomp::filter(config.seccomp, Calls::Monitor).map_err(|error| {
        StartError::System(format!("cannot confine the monitor: seccomp: {error}"))
    })
}

/// What a process is restricted to.
struct Restrictions<'a> {
    /// Files and folders of the system; `None` for all files.
    system: Option<&'a [&'a str]>,
    files: &'a Files,
    calls: Calls,
}

fn apply(
    config: Confine,
    kept: &[Capability],
    restrictions: &Restrictions<'_>,
) -> Result<Process, StartError> {
    let fail = |what: &str, error: &dyn fmt::Display| {
        StartError::System(format!("cannot confine the broker: {what}: {error}"))
    };
    capability::keep_only(kept).map_err(|error| fail("capabilities", &error))?;
    if kept.is_empty() && !capability::holds_none().unwrap_or(false) {
        return Err(fail("capabilities", &"some are left"));
    }
    process::refuse_new_privileges().map_err(|error| fail("no_new_privs", &error))?;
    let landlock = match restrictions.system.filter(|_| config.landlock) {
        Some(system) => landlock::restrict(system, restrictions.files)
            .map_err(|error| fail("landlock", &error))?,
        None => (Landlock::Off, None),
    };
    seccomp::filter(config.seccomp, restrictions.calls).map_err(|error| fail("seccomp", &error))?;
    measure::measure(config.seccomp.reported(), landlock)
        .map_err(|error| fail("what is in force", &error))
}

#[cfg(test)]
mod tests;
