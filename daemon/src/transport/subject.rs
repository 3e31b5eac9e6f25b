//! Who is at the other end: what the kernel tells of the process that connected.

use std::io;
use std::os::fd::AsFd;

use sockbroker_sys::{peer, process};
use tokio::net::UnixStream;

use sockbroker_policy::subject::Subject;

/// The subject of a connection. Its user and groups are certain or it is an error; the control group
/// is known only where the kernel gives a pidfd and the process is still there.
pub(super) fn of(io: &UnixStream) -> io::Result<Subject> {
    let credentials = io.peer_cred()?;
    let groups = peer::groups(io.as_fd())?;
    let cgroup = peer::process(io.as_fd()).and_then(|process| peer::control_group(process.as_fd()));
    let cgroup =
        cgroup.inspect_err(|error| tracing::debug!(%error, "the peer's control group is unknown"));
    let mut subject = Subject::new(credentials.uid(), credentials.gid());
    // 0: in another namespace, where it has no number of ours.
    subject.pid = credentials.pid().filter(|pid| *pid > 0);
    Ok(subject.in_groups(groups).in_cgroup(cgroup.ok()))
}

/// The broker itself, which is who asks over standard input.
pub fn own() -> io::Result<Subject> {
    let subject = Subject::new(process::effective_uid(), process::effective_gid());
    Ok(subject.in_groups(peer::own_groups()?).in_cgroup(peer::own_control_group().ok()))
}
