//! Lots: descriptors that lie in the queue of a `SOCK_SEQPACKET` socket, each with bytes about it.
//!
//! What lies in a lot stays open as long as any process has an end of the lot. Nothing ever leaves the queue to be put
//! back: a message is copied to its end before it is dropped at its head, so that a crash at any instant leaves at
//! least one copy. The functions never wait.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bytes::BytesMut;
use nix::sys::socket::{MsgFlags, recv};

use crate::call::retry;
use crate::ioctl::{self, IntRequest};
use crate::{option, record, stream};

/// The largest message in bytes.
pub const MESSAGE_MAX: usize = 1536;
/// The send buffer of a lot in bytes, which needs no privilege. The kernel doubles it.
const BUFFER: usize = 212_992;

/// Both ends of a lot.
#[derive(Debug)]
pub struct Lot {
    read: OwnedFd,
    write: OwnedFd,
}

/// A message of a lot.
#[derive(Debug)]
pub struct Parked {
    pub bytes: Vec<u8>,
    /// Copies of its descriptors.
    pub descriptors: Vec<OwnedFd>,
    /// Whether this process could not open all of them.
    pub lost_descriptors: bool,
}

impl Lot {
    pub fn create() -> io::Result<Self> {
        let (read, write) = record::pair()?;
        // It may be limited further, which leaves less room.
        stream::set_send_buffer(write.as_fd(), BUFFER)?;
        stream::set_send_buffer(read.as_fd(), BUFFER)?;
        Ok(Self { read, write })
    }

    /// The lot of two ends in any order: the end with messages is the one to read. `InvalidInput` if both have.
    pub fn of_ends(first: OwnedFd, second: OwnedFd) -> io::Result<Self> {
        let queued = |end: &OwnedFd| {
            Ok::<_, io::Error>(ioctl::get_int(end.as_fd(), IntRequest::Fionread)? > 0)
        };
        match (queued(&first)?, queued(&second)?) {
            (true, true) => Err(crate::call::invalid("both ends of a lot have messages")),
            (false, true) => Ok(Self { read: second, write: first }),
            (true | false, false) => Ok(Self { read: first, write: second }),
        }
    }

    /// Whether it has no message.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(ioctl::get_int(self.read.as_fd(), IntRequest::Fionread)? == 0)
    }

    /// The reading end and the writing one.
    pub fn ends(&self) -> [BorrowedFd<'_>; 2] {
        [self.read.as_fd(), self.write.as_fd()]
    }

    pub fn into_ends(self) -> [OwnedFd; 2] {
        [self.read, self.write]
    }

    /// Adds a message. `WouldBlock` if the lot is full, `ETOOMANYREFS` if the user of this process has too many
    /// descriptors in flight.
    pub fn park(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        if bytes.len() > MESSAGE_MAX {
            return Err(crate::call::invalid("a message of a lot has at most 1536 bytes"));
        }
        record::send(self.write.as_fd(), bytes, descriptors)
    }

    /// Drops the oldest message. Its descriptors are closed unless they are open elsewhere: the caller MUST hold those
    /// whose close may wait.
    pub fn drop_head(&self) -> io::Result<()> {
        let mut byte = [0];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        retry(|| Ok(recv(self.read.as_raw_fd(), &mut byte, flags)?)).map(drop)
    }

    /// A copy of the oldest message; `None` if there is none.
    pub fn head(&self) -> io::Result<Option<Parked>> {
        peek(self.read.as_fd())
    }

    /// Copies of all messages, oldest first. They stay in the lot.
    pub fn messages(&self) -> io::Result<Vec<Parked>> {
        self.set_peek_offset(0)?;
        let mut all = Vec::new();
        let walked = loop {
            match peek(self.read.as_fd()) {
                Ok(Some(message)) => all.push(message),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.set_peek_offset(-1)?;
        walked.map(|()| all)
    }

    /// The first bytes of all messages, at most `most` of each, oldest first. Copies no descriptor.
    pub fn beginnings(&self, most: usize) -> io::Result<Vec<Vec<u8>>> {
        self.set_peek_offset(0)?;
        let mut all = Vec::new();
        // More than the largest message: a truncated one would stop the walk in its middle.
        let mut buffer = vec![0; record::LENGTH_MAX + 1];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK;
        let walked = loop {
            match retry(|| Ok(recv(self.read.as_raw_fd(), &mut buffer, flags)?)) {
                Ok(0) => break Ok(()),
                Ok(length) => all.push(buffer.iter().take(length.min(most)).copied().collect()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.set_peek_offset(-1)?;
        walked.map(|()| all)
    }

    /// `SO_PEEK_OFF` (`socket(7)`): from where peeking reads, or -1 for the head.
    fn set_peek_offset(&self, offset: i32) -> io::Result<()> {
        option::set_int(self.read.as_fd(), libc::SOL_SOCKET, libc::SO_PEEK_OFF, offset)
    }
}

fn peek(end: BorrowedFd<'_>) -> io::Result<Option<Parked>> {
    let (mut bytes, mut descriptors) = (BytesMut::new(), VecDeque::new());
    // More than the largest message: a truncated one would stop the walk in its middle.
    match stream::peek_stream(end, &mut bytes, record::LENGTH_MAX + 1, &mut descriptors) {
        Ok(received) if received.bytes == 0 => Ok(None),
        Ok(received) => Ok(Some(Parked {
            bytes: bytes.to_vec(),
            descriptors: descriptors.into(),
            lost_descriptors: received.lost_descriptors,
        })),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lot: &Lot) -> Vec<String> {
        let text = |message: Parked| String::from_utf8(message.bytes).unwrap();
        lot.messages().unwrap().into_iter().map(text).collect()
    }

    #[test]
    fn messages_are_read_with_copies_of_their_descriptors_and_stay() {
        let lot = Lot::create().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        lot.park(b"one", &[reader.as_fd(), writer.as_fd()]).unwrap();
        lot.park(b"two", &[]).unwrap();
        assert!(!lot.is_empty().unwrap());
        for _ in 0..2 {
            let all = lot.messages().unwrap();
            let counts: Vec<_> = all.iter().map(|message| message.descriptors.len()).collect();
            assert_eq!(counts, [2, 0]);
        }
        assert_eq!(lot.beginnings(2).unwrap(), [b"on", b"tw"]);
        assert_eq!(lot.head().unwrap().unwrap().bytes, b"one");
        assert_eq!(texts(&lot), ["one", "two"]);
        lot.drop_head().unwrap();
        assert_eq!(texts(&lot), ["two"]);
        lot.drop_head().unwrap();
        assert!(lot.head().unwrap().is_none() && lot.drop_head().is_err());
        assert!(lot.is_empty().unwrap());
    }

    #[test]
    fn dropped_message_closes_its_descriptor() {
        let lot = Lot::create().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        lot.park(b"one", &[writer.as_fd()]).unwrap();
        drop(writer);
        let mut entry = [nix::poll::PollFd::new(reader.as_fd(), nix::poll::PollFlags::empty())];
        let mut hung_up = || {
            nix::poll::poll(&mut entry, nix::poll::PollTimeout::ZERO).unwrap();
            entry[0].revents().unwrap().contains(nix::poll::PollFlags::POLLHUP)
        };
        assert!(!hung_up());
        lot.drop_head().unwrap();
        assert!(hung_up());
    }

    #[test]
    fn ends_are_recognised_in_any_order() {
        let lot = Lot::create().unwrap();
        lot.park(b"one", &[]).unwrap();
        let [read, write] = lot.into_ends();
        let lot = Lot::of_ends(write, read).unwrap();
        assert_eq!(texts(&lot), ["one"]);
        lot.park(b"two", &[]).unwrap();
        let [read, write] = lot.into_ends();
        assert_eq!(texts(&Lot::of_ends(read, write).unwrap()), ["one", "two"]);
        let (a, b) = record::pair().unwrap();
        record::send(a.as_fd(), b"x", &[]).unwrap();
        record::send(b.as_fd(), b"x", &[]).unwrap();
        assert!(Lot::of_ends(a, b).is_err());
    }

    #[test]
    fn lot_takes_150_of_the_largest_messages_and_reports_that_it_is_full() {
        let lot = Lot::create().unwrap();
        assert!(lot.park(&[7; MESSAGE_MAX + 1], &[]).is_err());
        let fits = (0..10_000)
            .take_while(|_| lot.park(&[7; MESSAGE_MAX], &[lot.ends()[0]]).is_ok())
            .count();
        assert!((120..10_000).contains(&fits), "{fits}");
        assert_eq!(lot.messages().unwrap().len(), fits);
    }
}
