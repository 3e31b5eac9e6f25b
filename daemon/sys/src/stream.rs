//! The broker's own control connections on `AF_UNIX`: bytes and passed descriptors.
//!
//! The functions never wait, except `await_stream`: they return `WouldBlock` if there is nothing to do.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::slice;

use bytes::{BufMut, BytesMut};
use nix::fcntl::SpliceFFlags;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use sockbroker_proto::descriptors::Received;
use socket2::{MsgHdr, SockRef};

use crate::call::{check_size, message_header, retry};
use crate::control::{self, ControlMessage, OutgoingControl, encode_control};

/// The maximum number of descriptors of one message: `SCM_MAX_FD` of the kernel (`net/scm.h`).
pub const DESCRIPTORS_MAX: usize = 253;

/// Room for [`DESCRIPTORS_MAX`] descriptors and for credentials, in case `SO_PASSCRED` is set.
const CONTROL_SIZE: usize = 1032 + 32;

/// Sets the size of the send buffer (`SO_SNDBUF`, `socket(7)`): the kernel doubles `bytes`, and limits it
/// to `net.core.wmem_max`.
pub fn set_send_buffer(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    SockRef::from(&fd).set_send_buffer_size(bytes)
}

/// Receives at most `reserve` bytes (at least 1) of those that have arrived, appends them to
/// `buffer`, and appends the descriptors that came with them, close-on-exec, to `descriptors`.
/// Drops other ancillary data. 0 bytes are the end of the stream.
///
/// The kernel drops descriptors for which there is no room (the process has reached its limit), keeps the
/// first ones, and reports the loss (`MSG_CTRUNC`).
pub fn receive_stream(
    fd: BorrowedFd<'_>,
    buffer: &mut BytesMut,
    reserve: usize,
    descriptors: &mut VecDeque<OwnedFd>,
) -> io::Result<Received> {
    receive_with(fd, buffer, reserve, descriptors, libc::MSG_DONTWAIT)
}

/// [`receive_stream`] that waits until something arrives, for at most the time of `SO_RCVTIMEO`: then `WouldBlock`.
pub(crate) fn await_stream(
    fd: BorrowedFd<'_>,
    buffer: &mut BytesMut,
    reserve: usize,
    descriptors: &mut VecDeque<OwnedFd>,
) -> io::Result<Received> {
    receive_with(fd, buffer, reserve, descriptors, 0)
}

/// [`receive_stream`] that leaves the bytes in the queue (`MSG_PEEK`, `recv(2)`): the descriptors are copies.
pub(crate) fn peek_stream(
    fd: BorrowedFd<'_>,
    buffer: &mut BytesMut,
    reserve: usize,
    descriptors: &mut VecDeque<OwnedFd>,
) -> io::Result<Received> {
    receive_with(fd, buffer, reserve, descriptors, libc::MSG_DONTWAIT | libc::MSG_PEEK)
}

fn receive_with(
    fd: BorrowedFd<'_>,
    buffer: &mut BytesMut,
    reserve: usize,
    descriptors: &mut VecDeque<OwnedFd>,
    flags: i32,
) -> io::Result<Received> {
    let reserve = reserve.max(1);
    buffer.reserve(reserve);
    let mut bytes =
        libc::iovec { iov_base: buffer.spare_capacity_mut().as_mut_ptr().cast(), iov_len: reserve };
    let mut control = [0u8; CONTROL_SIZE];
    let mut header = message_header(
        (std::ptr::null_mut(), 0),
        (&raw mut bytes, 1),
        (control.as_mut_ptr().cast(), CONTROL_SIZE),
    );
    let flags = libc::MSG_CMSG_CLOEXEC | flags;
    let n = retry(|| {
        // SAFETY: `header` points to `bytes`, `control` and, through `bytes`, to `reserve` bytes of
        // spare capacity of `buffer`; all live for the call and are written within their lengths.
        check_size(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags) })
    })?;
    // SAFETY: the kernel has initialised `n` bytes after those of `buffer`; a stream socket
    // without MSG_TRUNC never returns more than `reserve`.
    unsafe { buffer.advance_mut(n.min(reserve)) };
    let filled = control.get(..header.msg_controllen).unwrap_or_default();
    // SAFETY: the kernel has just filled these bytes, and they are decoded once.
    let messages = unsafe { control::decode(filled, true) }?;
    for message in messages {
        match message {
            ControlMessage::Descriptors { descriptors: received, .. } => {
                descriptors.extend(received);
            }
            ControlMessage::Data { .. } => {}
        }
    }
    Ok(Received { bytes: n, lost_descriptors: header.msg_flags & libc::MSG_CTRUNC != 0 })
}

/// Sends bytes and, with the first of them, descriptors (at most [`DESCRIPTORS_MAX`]). A result of
/// less than all bytes still means that the descriptors are sent. Sends no descriptors without bytes.
pub fn send_stream(
    fd: BorrowedFd<'_>,
    buffers: &[IoSlice<'_>],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let rights = OutgoingControl::Descriptors { descriptors, rest: &[] };
    let rights = if descriptors.is_empty() { &[] } else { slice::from_ref(&rights) };
    let control = encode_control(rights);
    let mut message = MsgHdr::new().with_buffers(buffers);
    if !control.is_empty() {
        message = message.with_control(&control);
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    retry(|| SockRef::from(&fd).sendmsg(&message, flags))
}

/// Moves at most `most` bytes from a stream to a pipe, or from a pipe to a stream, without a copy (`splice(2)`). Does not
/// wait for the pipe. The stream has to have `O_NONBLOCK` set. 0 can be the end of the input, or a byte that only
/// `recv(2)` returns (`tcp_splice_read()` in `net/ipv4/tcp.c`).
pub fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
    retry(|| Ok(nix::fcntl::splice(from, None, to, None, most, flags)?))
}

/// The next byte, which stays in the receive queue; `None` at the end of the stream.
pub fn peek_byte(fd: BorrowedFd<'_>) -> io::Result<Option<u8>> {
    let mut byte = [0];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    let n = retry(|| Ok(recv(fd.as_raw_fd(), &mut byte, flags)?))?;
    Ok(byte.first().copied().filter(|_| n > 0))
}

/// Sent bytes that the peer has not read yet (`SIOCOUTQ`, `unix(7)`). On `AF_UNIX` the kernel counts
/// its buffers with their overhead: only 0, which means that all was read, is exact.
pub fn unread_by_peer(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let unread = crate::ioctl::get_int(fd, crate::ioctl::IntRequest::Siocoutq)?;
    Ok(usize::try_from(unread).unwrap_or(0))
}

/// Whether both directions are shut down (`POLLHUP`, `poll(2)`): the peer has closed the connection, or both
/// sides have shut it down.
pub fn is_hung_up(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut entry = [PollFd::new(fd, PollFlags::empty())];
    retry(|| Ok(poll(&mut entry, PollTimeout::ZERO)?))?;
    Ok(entry.iter().any(|entry| entry.revents().is_some_and(|r| r.contains(PollFlags::POLLHUP))))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsFd;

    use super::*;
    use crate::socket::{set_nonblocking, shutdown};
    use crate::testing::{errno, tcp_pair, unix_pair, wait};

    fn stream_pair() -> (OwnedFd, OwnedFd) {
        unix_pair(libc::SOCK_STREAM)
    }

    /// The bytes of a read that lost no descriptors.
    fn bytes(received: io::Result<Received>) -> usize {
        let received = received.unwrap();
        assert!(!received.lost_descriptors);
        received.bytes
    }

    #[test]
    fn received_bytes_are_appended_to_the_buffer() {
        let (a, b) = stream_pair();
        let (mut buffer, mut descriptors) = (BytesMut::from(&b"old "[..]), VecDeque::new());
        let buffers = [IoSlice::new(b"ne"), IoSlice::new(b"w")];
        assert_eq!(send_stream(a.as_fd(), &buffers, &[]).unwrap(), 3);
        assert_eq!(bytes(receive_stream(b.as_fd(), &mut buffer, 100, &mut descriptors)), 3);
        assert_eq!(buffer, b"old new"[..]);
        assert!(descriptors.is_empty());
        let nothing = receive_stream(b.as_fd(), &mut buffer, 100, &mut descriptors);
        assert_eq!(errno(nothing), libc::EAGAIN);
        drop(a);
        assert_eq!(bytes(receive_stream(b.as_fd(), &mut buffer, 100, &mut descriptors)), 0);
    }

    #[test]
    fn receive_returns_at_most_the_reserved_bytes() {
        let (a, b) = stream_pair();
        let (mut buffer, mut descriptors) = (BytesMut::with_capacity(4096), VecDeque::new());
        send_stream(a.as_fd(), &[IoSlice::new(b"abcd")], &[]).unwrap();
        assert_eq!(bytes(receive_stream(b.as_fd(), &mut buffer, 2, &mut descriptors)), 2);
        // With a reserve of 0, the result would look like the end of the stream.
        assert_eq!(bytes(receive_stream(b.as_fd(), &mut buffer, 0, &mut descriptors)), 1);
        assert_eq!(buffer, b"abc"[..]);
    }

    #[test]
    fn maximum_number_of_descriptors_arrives_in_order() {
        let (a, b) = stream_pair();
        let (mut read, write) = io::pipe().unwrap();
        let null = File::open("/dev/null").unwrap();
        let mut sent = vec![null.as_fd(); DESCRIPTORS_MAX];
        sent[DESCRIPTORS_MAX - 1] = write.as_fd();
        send_stream(a.as_fd(), &[IoSlice::new(b"x")], &sent).unwrap();
        let (mut buffer, mut descriptors) = (BytesMut::new(), VecDeque::new());
        assert_eq!(bytes(receive_stream(b.as_fd(), &mut buffer, 10, &mut descriptors)), 1);
        assert_eq!(descriptors.len(), DESCRIPTORS_MAX);
        drop(write);
        File::from(descriptors.pop_back().unwrap()).write_all(b"hi").unwrap();
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hi");
    }

    #[test]
    fn too_many_descriptors_are_refused_by_the_kernel() {
        let (a, b) = stream_pair();
        let sent = vec![a.as_fd(); DESCRIPTORS_MAX + 1];
        assert_eq!(errno(send_stream(a.as_fd(), &[IoSlice::new(b"x")], &sent)), libc::EINVAL);
        assert_eq!(errno(peek_byte(b.as_fd())), libc::EAGAIN);
    }

    #[test]
    fn credentials_with_the_maximum_of_descriptors_are_not_truncated() {
        let (a, b) = stream_pair();
        crate::option::set_int(b.as_fd(), libc::SOL_SOCKET, libc::SO_PASSCRED, 1).unwrap();
        let sent = vec![a.as_fd(); DESCRIPTORS_MAX];
        send_stream(a.as_fd(), &[IoSlice::new(b"x")], &sent).unwrap();
        let (mut buffer, mut descriptors) = (BytesMut::new(), VecDeque::new());
        assert_eq!(bytes(receive_stream(b.as_fd(), &mut buffer, 10, &mut descriptors)), 1);
        assert_eq!(descriptors.len(), DESCRIPTORS_MAX);
    }

    #[test]
    fn peeked_byte_stays_in_the_queue() {
        let (a, b) = stream_pair();
        assert_eq!(errno(peek_byte(b.as_fd())), libc::EAGAIN);
        send_stream(a.as_fd(), &[IoSlice::new(b"Cx")], &[]).unwrap();
        assert_eq!(peek_byte(b.as_fd()).unwrap(), Some(b'C'));
        assert_eq!(peek_byte(b.as_fd()).unwrap(), Some(b'C'));
        let (mut buffer, mut descriptors) = (BytesMut::new(), VecDeque::new());
        receive_stream(b.as_fd(), &mut buffer, 10, &mut descriptors).unwrap();
        assert_eq!(buffer, b"Cx"[..]);
        drop(a);
        assert_eq!(peek_byte(b.as_fd()).unwrap(), None);
    }

    #[test]
    fn unread_bytes_of_the_peer_are_counted() {
        let (a, b) = stream_pair();
        assert_eq!(unread_by_peer(a.as_fd()).unwrap(), 0);
        send_stream(a.as_fd(), &[IoSlice::new(&[0; 100])], &[]).unwrap();
        assert!(unread_by_peer(a.as_fd()).unwrap() >= 100);
        crate::message::receive(b.as_fd(), 100, 0).unwrap();
        assert_eq!(unread_by_peer(a.as_fd()).unwrap(), 0);
    }

    #[test]
    fn half_closed_is_not_hung_up() {
        let (a, b) = stream_pair();
        assert!(!is_hung_up(b.as_fd()).unwrap());
        shutdown(a.as_fd(), libc::SHUT_WR).unwrap();
        assert!(!is_hung_up(b.as_fd()).unwrap());
        drop(a);
        assert!(is_hung_up(b.as_fd()).unwrap());
        assert_eq!(errno(send_stream(b.as_fd(), &[IoSlice::new(b"x")], &[])), libc::EPIPE);
    }

    #[test]
    fn bytes_are_moved_through_a_pipe() {
        let (client, server) = tcp_pair();
        set_nonblocking(server.as_fd(), true).unwrap();
        let (own, other) = unix_pair(libc::SOCK_STREAM);
        let (output, input) = io::pipe().unwrap();
        let would_block = splice(server.as_fd(), input.as_fd(), 8).unwrap_err();
        assert_eq!(would_block.kind(), io::ErrorKind::WouldBlock);
        let mut client = std::net::TcpStream::from(client);
        client.write_all(b"moved").unwrap();
        wait(server.as_fd(), libc::POLLIN);
        assert_eq!(splice(server.as_fd(), input.as_fd(), 3).unwrap(), 3);
        assert_eq!(splice(output.as_fd(), own.as_fd(), 8).unwrap(), 3);
        assert_eq!(splice(server.as_fd(), input.as_fd(), 8).unwrap(), 2);
        assert_eq!(splice(output.as_fd(), own.as_fd(), 8).unwrap(), 2);
        let mut moved = [0; 5];
        std::os::unix::net::UnixStream::from(other).read_exact(&mut moved).unwrap();
        assert_eq!(&moved, b"moved");
        drop(client);
        wait(server.as_fd(), libc::POLLIN);
        assert_eq!(splice(server.as_fd(), input.as_fd(), 8).unwrap(), 0);
    }
}
