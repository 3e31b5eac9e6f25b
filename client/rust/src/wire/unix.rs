//! One Unix stream with descriptors beside its bytes. Nothing here waits but [`wait`].

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
    connect as connect_to, recvmsg, sendmsg, socket_with,
};
use sockbroker_proto::descriptors::Received;

/// The most descriptors of one message: `SCM_MAX_FD` of the kernel (`net/scm.h`).
pub(crate) const DESCRIPTORS_MAX: usize = 253;
/// What a connection is asked to hold for sending. The kernel grants this much to everybody
/// (`wmem_max`) and doubles it: then 256 KiB leave in one piece, which saves up to half of the time.
const SEND_BUFFER: usize = 212_992;

/// Connects to a path, waiting at most so long where the broker's queue of connections is full.
pub(crate) fn connect(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&fd, Timeout::Send, Some(patience))?;
    connect_to(&fd, &SocketAddrUnix::new(path)?).map_err(|error| match error {
        rustix::io::Errno::AGAIN => io::Error::from(io::ErrorKind::TimedOut),
        other => other.into(),
    })?;
    prepared(fd.into())
}

/// A connected stream with a send buffer that holds a large frame.
pub(crate) fn prepared(stream: UnixStream) -> io::Result<UnixStream> {
    set_socket_send_buffer_size(&stream, SEND_BUFFER)?;
    Ok(stream)
}

/// Sends what there is room for, with descriptors beside the first byte.
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

/// Receives what has arrived into `buffer`; descriptors go to the end of their queue. 0 bytes are the end.
pub(crate) fn receive(
    stream: impl AsFd,
    buffer: &mut [u8],
    descriptors: &mut VecDeque<OwnedFd>,
) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = retry(|| recvmsg(&stream, &mut [IoSliceMut::new(buffer)], &mut control, flags))?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    // This process may open no more files.
    let lost_descriptors = received.flags.contains(ReturnFlags::CTRUNC);
    Ok(Received { bytes: received.bytes, lost_descriptors })
}

/// Waits for one of these, but no longer than the deadline.
pub(crate) fn wait(
    stream: impl AsFd,
    wanted: Wanted,
    deadline: Option<Instant>,
) -> io::Result<Ready> {
    let events = match wanted {
        Wanted::Input => PollFlags::IN,
        Wanted::Room => PollFlags::OUT,
        Wanted::Either => PollFlags::IN | PollFlags::OUT,
    };
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // Longer than a `Timespec` can tell is as good as for ever.
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut entries = [PollFd::from_borrowed_fd(stream.as_fd(), events)];
        match poll(&mut entries, timeout.as_ref()) {
            Ok(0) => return Ok(Ready::Nothing),
            Ok(_) => {
                let [entry] = &entries;
                // An error or the end is told to whoever receives, and to whoever sends.
                let room = entry.revents().contains(PollFlags::OUT) || wanted == Wanted::Room;
                let input = wanted != Wanted::Room && entry.revents() != PollFlags::OUT;
                return Ok(if input || !room { Ready::Input } else { Ready::Room });
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Something to receive, or the end.
    Input,
    /// Room to send.
    Room,
    /// Whichever comes first.
    Either,
}

/// What a wait was ended by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// Something to receive, or the end.
    Input,
    /// Room to send.
    Room,
    /// The deadline.
    Nothing,
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            result => return result,
        }
    }
}
