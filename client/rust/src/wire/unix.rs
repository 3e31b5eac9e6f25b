//! A Unix stream socket that carries bytes and descriptors. Only [`connect`], [`wait`] and
//! [`wait_and_receive`] block.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{Timeout, set_socket_send_buffer_size, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    connect as connect_to, recv, recvmsg, sendmsg, socket_with,
};
use sockbroker_proto::descriptors::Received;

/// The most descriptors in one message: `SCM_MAX_FD` of the kernel (`net/scm.h`).
pub(crate) const DESCRIPTORS_MAX: usize = 253;
/// The size of a connection's send buffer in bytes: the default of `wmem_max`, which needs no privilege
/// and which the kernel doubles. 256 KiB then leave in one system call, in up to half the time.
const SEND_BUFFER: usize = 212_992;

/// Connects to a path. Where the listener's backlog is full, waits for at most `timeout`.
pub(crate) fn connect(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&fd, Timeout::Send, Some(timeout))?;
    connect_to(&fd, &SocketAddrUnix::new(path)?).map_err(|error| match error {
        rustix::io::Errno::AGAIN => io::Error::from(io::ErrorKind::TimedOut),
        other => other.into(),
    })?;
    with_send_buffer(fd.into())
}

/// Sets the send buffer of a stream to [`SEND_BUFFER`].
pub(crate) fn with_send_buffer(stream: UnixStream) -> io::Result<UnixStream> {
    set_socket_send_buffer_size(&stream, SEND_BUFFER)?;
    Ok(stream)
}

/// Sends as many bytes as fit without waiting, and the descriptors with the first of them.
pub(crate) fn send(
    stream: impl AsFd,
    buffers: &[IoSlice<'_>],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "more than 253 descriptors"));
    }
    Ok(retry(|| sendmsg(&stream, buffers, &mut control, flags))?)
}

/// Whether the peer has not closed a connection, or has sent bytes that were not received.
pub(crate) fn is_open(stream: impl AsFd) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    match retry(|| recv(&stream, &mut [0_u8][..], flags)) {
        Ok((_, length)) => length > 0,
        Err(error) => error == rustix::io::Errno::AGAIN,
    }
}

/// Receives available bytes into `buffer` and appends descriptors to their queue. 0 bytes mean the
/// end of the stream.
pub(crate) fn receive(
    stream: impl AsFd,
    buffer: &mut [u8],
    descriptors: &mut VecDeque<OwnedFd>,
) -> io::Result<Received> {
    receive_with(stream, buffer, descriptors, RecvFlags::DONTWAIT)
}

/// [`receive`] that waits until bytes are available, for at most the time of [`set_receive_timeout`]: then `WouldBlock`.
pub(crate) fn wait_and_receive(
    stream: impl AsFd,
    buffer: &mut [u8],
    descriptors: &mut VecDeque<OwnedFd>,
) -> io::Result<Received> {
    receive_with(stream, buffer, descriptors, RecvFlags::empty())
}

/// Limits how long [`wait_and_receive`] waits; `None` removes the limit.
pub(crate) fn set_receive_timeout(stream: impl AsFd, longest: Option<Duration>) -> io::Result<()> {
    Ok(set_socket_timeout(stream, Timeout::Recv, longest)?)
}

fn receive_with(
    stream: impl AsFd,
    buffer: &mut [u8],
    descriptors: &mut VecDeque<OwnedFd>,
    flags: RecvFlags,
) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let received = retry(|| recvmsg(&stream, &mut [IoSliceMut::new(buffer)], &mut control, flags))?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    // The kernel drops descriptors beyond RLIMIT_NOFILE.
    let lost_descriptors = received.flags.contains(ReturnFlags::CTRUNC);
    Ok(Received { bytes: received.bytes, lost_descriptors })
}

/// Waits until the stream is ready or the deadline passes; `None` waits without limit.
pub(crate) fn wait(
    stream: impl AsFd,
    interest: Interest,
    deadline: Option<Instant>,
) -> io::Result<Readiness> {
    let events = match interest {
        Interest::Readable => PollFlags::IN,
        Interest::Writable => PollFlags::OUT,
        Interest::Either => PollFlags::IN | PollFlags::OUT,
    };
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // A duration that `Timespec` cannot hold is treated as no limit.
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut entries = [PollFd::from_borrowed_fd(stream.as_fd(), events)];
        match poll(&mut entries, timeout.as_ref()) {
            Ok(0) => return Ok(Readiness::TimedOut),
            Ok(_) => {
                let [entry] = &entries;
                // POLLERR and POLLHUP count as ready: the next read or write returns the error.
                let writable =
                    entry.revents().contains(PollFlags::OUT) || interest == Interest::Writable;
                let readable = interest != Interest::Writable && entry.revents() != PollFlags::OUT;
                return Ok(if readable || !writable {
                    Readiness::Readable
                } else {
                    Readiness::Writable
                });
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What [`wait`] waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Bytes, the end of the stream, or an error.
    Readable,
    /// Space in the send buffer, or an error.
    Writable,
    /// Either of both.
    Either,
}

/// Why [`wait`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    Readable,
    Writable,
    TimedOut,
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            result => return result,
        }
    }
}
