//! Who is at the other end of a connection: what the kernel reports about the process that connected.

use std::io;
use std::os::fd::BorrowedFd;

use sockbroker_monitor::subject;
use sockbroker_sys::{peer, process};

use crate::principal::Principal;
use sockbroker_policy::subject::Subject;

/// The principal of a connection.
pub(super) fn of(io: BorrowedFd<'_>) -> io::Result<Principal> {
    subject::of_peer(io).map(Principal::Local)
}

/// The broker's own user, which is who calls over standard input.
pub fn own() -> io::Result<Principal> {
    let subject = Subject::new(process::effective_uid(), process::effective_gid());
    let subject = subject.in_groups(peer::own_groups()?).in_cgroup(peer::own_control_group().ok());
    Ok(Principal::Local(subject))
}
