//! Records with descriptors between two processes of the broker (`SOCK_SEQPACKET`, `unix(7)`).
//!
//! The functions never wait, except [`receive_within`]: they return `WouldBlock` if there is nothing to do.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use bytes::BytesMut;
use sockbroker_proto::descriptors::Received;
use socket2::SockRef;

use crate::call::invalid;
use crate::{socket, stream};

/// The largest record in bytes. Larger ones are refused by both sides.
pub const LENGTH_MAX: usize = 72 << 10;

/// A received record.
#[derive(Debug)]
pub struct Record {
    pub bytes: BytesMut,
    /// The descriptors that came with it, in order.
    pub descriptors: Vec<OwnedFd>,
    /// Whether the record is larger than [`LENGTH_MAX`].
    pub truncated: bool,
    /// Whether the kernel dropped descriptors, because this process cannot open more.
    pub lost_descriptors: bool,
}

/// Both ends of a channel, close-on-exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    socket::pair(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0)
}

/// Sends a record of 1 to [`LENGTH_MAX`] bytes: an empty one would look like the end of the channel.
/// `InvalidInput` for another length, `WouldBlock` if the channel is full.
pub fn send(
    channel: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    if bytes.is_empty() || bytes.len() > LENGTH_MAX {
        return Err(invalid("a record has 1 to 73728 bytes"));
    }
    stream::send_stream(channel, &[IoSlice::new(bytes)], descriptors).map(drop)
}

/// The next record; `None` at the end of the channel.
pub fn receive(channel: BorrowedFd<'_>) -> io::Result<Option<Record>> {
    receive_by(channel, stream::receive_stream)
}

/// The next record, as soon as it arrives; `WouldBlock` after the time of [`wait_at_most`].
pub fn receive_within(channel: BorrowedFd<'_>) -> io::Result<Option<Record>> {
    receive_by(channel, stream::await_stream)
}

/// Limits how long [`receive_within`] waits (`SO_RCVTIMEO`, `socket(7)`); `None` for ever.
pub fn wait_at_most(channel: BorrowedFd<'_>, longest: Option<Duration>) -> io::Result<()> {
    SockRef::from(&channel).set_read_timeout(longest)
}

type Receive =
    fn(BorrowedFd<'_>, &mut BytesMut, usize, &mut VecDeque<OwnedFd>) -> io::Result<Received>;

fn receive_by(channel: BorrowedFd<'_>, receive: Receive) -> io::Result<Option<Record>> {
    let (mut bytes, mut descriptors) = (BytesMut::new(), VecDeque::new());
    // One byte more than a record can have shows that one was too large.
    let room = LENGTH_MAX + 1;
    let received = receive(channel, &mut bytes, room, &mut descriptors)?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let (truncated, lost_descriptors) = (bytes.len() > LENGTH_MAX, received.lost_descriptors);
    Ok(Some(Record { bytes, descriptors: descriptors.into(), truncated, lost_descriptors }))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::testing::errno;

    #[test]
    fn records_keep_their_boundaries_and_descriptors() {
        let (a, b) = pair().unwrap();
        send(a.as_fd(), b"one", &[]).unwrap();
        send(a.as_fd(), b"two", &[a.as_fd(), b.as_fd()]).unwrap();
        let first = receive(b.as_fd()).unwrap().unwrap();
        assert_eq!((&first.bytes[..], first.descriptors.len()), (&b"one"[..], 0));
        let second = receive(b.as_fd()).unwrap().unwrap();
        assert_eq!((&second.bytes[..], second.descriptors.len()), (&b"two"[..], 2));
        assert_eq!(errno(receive(b.as_fd())), libc::EAGAIN);
        drop((a, second));
        assert!(receive(b.as_fd()).unwrap().is_none());
    }

    #[test]
    fn a_receive_waits_for_a_record_for_a_limited_time() {
        let (a, b) = pair().unwrap();
        wait_at_most(b.as_fd(), Some(Duration::from_millis(1))).unwrap();
        assert_eq!(errno(receive_within(b.as_fd())), libc::EAGAIN);
        wait_at_most(b.as_fd(), None).unwrap();
        let sender = std::thread::spawn(move || send(a.as_fd(), b"late", &[]).unwrap());
        assert_eq!(&receive_within(b.as_fd()).unwrap().unwrap().bytes[..], b"late");
        sender.join().unwrap();
        assert!(receive_within(b.as_fd()).unwrap().is_none());
    }

    #[test]
    fn length_is_limited_on_both_sides() {
        let (a, b) = pair().unwrap();
        assert!(send(a.as_fd(), b"", &[]).is_err());
        assert!(send(a.as_fd(), &vec![0; LENGTH_MAX + 1], &[]).is_err());
        send(a.as_fd(), &vec![0; LENGTH_MAX], &[]).unwrap();
        assert!(!receive(b.as_fd()).unwrap().unwrap().truncated);
        stream::send_stream(a.as_fd(), &[IoSlice::new(&vec![0; LENGTH_MAX + 9])], &[]).unwrap();
        assert!(receive(b.as_fd()).unwrap().unwrap().truncated);
    }

    #[test]
    fn full_channel_is_reported() {
        let (a, _b) = pair().unwrap();
        let full = (0..10_000).find_map(|_| send(a.as_fd(), b"x", &[]).err());
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
    }
}
