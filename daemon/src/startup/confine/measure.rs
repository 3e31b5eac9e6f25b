//! What is in force, as the kernel tells it, and the line of the log that says so.

use std::io;

use sockbroker_proto::api::broker::{Landlock, Process, Seccomp};
use sockbroker_sys::{peer, privileges, process};

use sockbroker_policy::subject::Subject;

/// This process. What the kernel does not tell of a process is what it answered when it was asked for:
/// whether a filter refuses or logs, and how much Landlock holds.
pub(super) fn measure(
    seccomp: Seccomp,
    (landlock, landlock_abi): (Landlock, Option<u32>),
) -> io::Result<Process> {
    let privileges = privileges::of_this_thread()?;
    let (uid, gid) = (process::effective_uid(), process::effective_gid());
    let subject = Subject::new(uid, gid).in_cgroup(peer::own_control_group().ok());
    Ok(Process {
        pid: std::process::id(),
        uid,
        gid,
        unit: subject.unit.as_deref().map(str::to_owned),
        activated: false,
        user_namespace: privileges.user_namespace,
        capabilities: privileges.capabilities,
        no_new_privs: privileges.no_new_privs,
        seccomp: if privileges.filtered { seccomp } else { Seccomp::Off },
        seccomp_filters: privileges.filters,
        landlock,
        landlock_abi,
    })
}

/// Tells the log: the same facts as `broker.info`.
pub fn tell(process: &Process) {
    let capabilities = match process.capabilities.as_slice() {
        [] => "none".to_owned(),
        names => names.join(" "),
    };
    tracing::info!(
        %capabilities,
        no_new_privs = process.no_new_privs,
        seccomp = %process.seccomp.word(),
        seccomp_filters = process.seccomp_filters,
        landlock = %process.landlock.word(),
        landlock_abi = process.landlock_abi,
        uid = process.uid,
        gid = process.gid,
        user_namespace = process.user_namespace,
        unit = process.unit,
        activated = process.activated,
        "confined:"
    );
}
