//! Who is at the other end of a connection: what the kernel reports about the process that connected.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use sockbroker_sys::credentials::{self, Credentials};
use sockbroker_sys::{peer, process};

use crate::principal::Principal;
use sockbroker_policy::subject::Subject;

/// The principal of a connection. Its user and groups are certain, or the result is an error; the
/// control group is known only where the kernel gives a pidfd and the process still exists.
pub(super) fn of(io: BorrowedFd<'_>) -> io::Result<Principal> {
    let Credentials { uid, gid, groups, network: _ } = credentials::of_peer(io)?;
    let cgroup = peer::process(io).and_then(|process| peer::control_group(process.as_fd()));
    let cgroup =
        cgroup.inspect_err(|error| tracing::debug!(%error, "the peer's control group is unknown"));
    let mut subject = Subject::new(uid, gid);
    // 0 means a process of another pid namespace, which has no number in the broker's.
    subject.pid = credentials::process_of_peer(io)?.filter(|pid| *pid > 0);
    Ok(Principal::Local(subject.in_groups(groups).in_cgroup(cgroup.ok())))
}

/// The broker's own user, which is who calls over standard input.
pub fn own() -> io::Result<Principal> {
    let subject = Subject::new(process::effective_uid(), process::effective_gid());
    let subject = subject.in_groups(peer::own_groups()?).in_cgroup(peer::own_control_group().ok());
    Ok(Principal::Local(subject))
}
