//! The confinement in force, as the kernel reports it, and the log line about it.

use std::io;

use sockbroker_proto::api::broker::{Landlock, Process, Seccomp};
use sockbroker_sys::{peer, privileges, process};

use sockbroker_policy::subject::Subject;

/// Describes this process. The kernel does not report what a filter does or how much of Landlock applies:
/// that is taken from the results of their installation.
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

/// Logs the facts that `broker.info` returns.
pub fn log(process: &Process) {
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
