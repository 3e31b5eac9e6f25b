//! The subject of a connection: what the kernel reports about the process that connected.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use sockbroker_policy::subject::Subject;
use sockbroker_sys::{credentials, namespace, peer, socket, stream};

/// A connection that reports about itself and its client. The kernel does for a descriptor; the fuzzer has connections
/// that report anything.
pub trait Connection: Copy {
    /// `SO_COOKIE`.
    fn cookie(self) -> io::Result<u64>;
    /// Whether the client has closed it.
    fn is_hung_up(self) -> io::Result<bool>;
    /// The cookie of the network namespace of its client.
    fn network(self) -> io::Result<u64>;
    /// The subject at its other end, with its control group if rules name any.
    fn subject(self, with_control_group: bool) -> io::Result<Subject>;
}

impl Connection for BorrowedFd<'_> {
    fn cookie(self) -> io::Result<u64> {
        socket::cookie(self)
    }

    fn network(self) -> io::Result<u64> {
        namespace::cookie(self)
    }

    fn is_hung_up(self) -> io::Result<bool> {
        stream::is_hung_up(self)
    }

    fn subject(self, with_control_group: bool) -> io::Result<Subject> {
        if with_control_group { of_peer(self) } else { without_control_group(self) }
    }
}

/// The subject at the other end of a connection. Its user and groups are certain, or the result is an error; the
/// control group is known only where the kernel gives a pidfd and the process still exists.
pub fn of_peer(connection: BorrowedFd<'_>) -> io::Result<Subject> {
    let cgroup = peer::process(connection).and_then(|process| peer::control_group(process.as_fd()));
    let cgroup =
        cgroup.inspect_err(|error| tracing::debug!(%error, "the peer's control group is unknown"));
    let subject = without_control_group(connection)?;
    Ok(subject.in_cgroup(cgroup.ok()))
}

/// The same without the control group, for a policy whose rules name neither units nor control groups.
pub fn without_control_group(connection: BorrowedFd<'_>) -> io::Result<Subject> {
    let found = credentials::of_peer(connection)?;
    let mut subject = Subject::new(found.uid, found.gid);
    subject.pid = credentials::process_of_peer(connection)?;
    Ok(subject.in_groups(found.groups))
}
