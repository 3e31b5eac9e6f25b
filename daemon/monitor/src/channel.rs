//! A channel between two processes of the broker: one message a record, with an exact number of descriptors.
//!
//! No send waits: a peer that does not read loses the channel, and with it its process.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sockbroker_sys::record::{self, Record};

/// A message of a channel.
pub trait Message: Serialize + DeserializeOwned {
    /// The number of descriptors that every message of this variant has.
    fn descriptors(&self) -> usize;
}

/// One end of a channel that sends `S` and receives `R`.
#[derive(Debug)]
pub struct Channel<S, R> {
    socket: OwnedFd,
    messages: PhantomData<fn(S) -> R>,
}

/// Why a message was not sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError<R = ()> {
    /// There is nothing to receive, or no room to send.
    #[error("the channel is not ready")]
    NotReady,
    #[error("the other process has closed the channel")]
    Closed,
    /// A message came without all its descriptors, because this process cannot open more. Those that came are
    /// here, because closing them may wait.
    #[error("this process cannot open more files")]
    LostDescriptors { message: R, descriptors: Vec<OwnedFd> },
    /// The record is not a message. Its descriptors are here, because closing them may wait.
    #[error("the other process sent nonsense: {reason}")]
    Nonsense { reason: &'static str, descriptors: Vec<OwnedFd> },
    #[error("{0}")]
    System(io::Error),
}

impl<S: Message, R: Message> Channel<S, R> {
    /// Both ends of a new channel: this one, and the socket for the other process.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (own, other) = record::pair()?;
        Ok((Self::over(own), other))
    }

    /// The channel whose end this is.
    pub fn over(socket: OwnedFd) -> Self {
        Self { socket, messages: PhantomData }
    }

    /// Sends a message with its descriptors.
    pub fn send(&self, message: &S, descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        debug_assert_eq!(message.descriptors(), descriptors.len(), "the number is fixed");
        let bytes = postcard::to_stdvec(message)
            .map_err(|error| ChannelError::System(io::Error::other(error)))?;
        record::send(self.socket.as_fd(), &bytes, descriptors).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => ChannelError::NotReady,
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ChannelError::Closed,
            _ => ChannelError::System(error),
        })
    }

    /// The next message, with exactly as many descriptors as its variant has.
    pub fn receive(&self) -> Result<(R, Vec<OwnedFd>), ChannelError<R>> {
        received(record::receive(self.socket.as_fd()))
    }

    /// The next message, as soon as it arrives; `NotReady` after the time of [`Channel::wait_at_most`].
    pub fn receive_within(&self) -> Result<(R, Vec<OwnedFd>), ChannelError<R>> {
        received(record::receive_within(self.socket.as_fd()))
    }

    /// Limits how long [`Channel::receive_within`] waits.
    pub fn wait_at_most(&self, longest: Duration) -> io::Result<()> {
        record::wait_at_most(self.socket.as_fd(), Some(longest))
    }

    /// Gives the socket back.
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }
}

fn received<R: Message>(
    received: io::Result<Option<Record>>,
) -> Result<(R, Vec<OwnedFd>), ChannelError<R>> {
    match received {
        Ok(Some(record)) => decode(record),
        Ok(None) => Err(ChannelError::Closed),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(ChannelError::NotReady),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(ChannelError::Closed),
        Err(error) => Err(ChannelError::System(error)),
    }
}

impl<S, R> AsFd for Channel<S, R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// An end of a channel for questions: the other process answers each before the next is sent.
#[derive(Debug)]
pub struct Asker<S, R>(Channel<S, R>);

/// Why a question has no answer. The channel must not be used afterwards: an answer could belong to an earlier question.
#[derive(Debug, thiserror::Error)]
pub enum AskError<R> {
    /// The other process did not get the question.
    #[error("{0}")]
    NotSent(ChannelError),
    #[error("{0}")]
    NotAnswered(ChannelError<R>),
    #[error("no answer in time")]
    Late,
}

impl<S: Message, R: Message> Asker<S, R> {
    /// Over this socket. An answer takes at most `longest`.
    pub fn over(socket: OwnedFd, longest: Duration) -> io::Result<Self> {
        let channel = Channel::over(socket);
        channel.wait_at_most(longest)?;
        Ok(Self(channel))
    }

    /// Sends a message that has no answer.
    pub fn send(&self, message: &S, descriptors: &[BorrowedFd<'_>]) -> Result<(), AskError<R>> {
        self.0.send(message, descriptors).map_err(AskError::NotSent)
    }

    /// Sends a question, and waits for its answer.
    pub fn ask(
        &self,
        question: &S,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(R, Vec<OwnedFd>), AskError<R>> {
        self.send(question, descriptors)?;
        self.answer()
    }

    /// Waits for the next message of an answer: in one system call, because both processes may share a CPU.
    pub fn answer(&self) -> Result<(R, Vec<OwnedFd>), AskError<R>> {
        self.0.receive_within().map_err(|error| match error {
            ChannelError::NotReady => AskError::Late,
            error => AskError::NotAnswered(error),
        })
    }
}

/// Reads a record as a message. Every byte and every descriptor must belong to it.
pub fn decode<M: Message>(record: Record) -> Result<(M, Vec<OwnedFd>), ChannelError<M>> {
    let Record { bytes, descriptors, truncated, lost_descriptors } = record;
    let message = match postcard::take_from_bytes::<M>(&bytes) {
        _ if truncated => Err("a record was truncated"),
        Err(_) => Err("a record is not a message"),
        Ok((_, rest)) if !rest.is_empty() => Err("a message has bytes after its end"),
        Ok((message, _)) if lost_descriptors => {
            return Err(ChannelError::LostDescriptors { message, descriptors });
        }
        Ok((message, _)) if message.descriptors() != descriptors.len() => {
            Err("a message has the wrong number of descriptors")
        }
        Ok((message, _)) => Ok(message),
    };
    match message {
        Ok(message) => Ok((message, descriptors)),
        Err(reason) => Err(ChannelError::Nonsense { reason, descriptors }),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Test {
        Bare(u32),
        WithTwo,
    }

    impl Message for Test {
        fn descriptors(&self) -> usize {
            match self {
                Self::Bare(_) => 0,
                Self::WithTwo => 2,
            }
        }
    }

    fn channel() -> (Channel<Test, Test>, Channel<Test, Test>) {
        let (own, other) = Channel::pair().unwrap();
        (own, Channel::over(other))
    }

    fn nonsense(
        received: Result<(Test, Vec<OwnedFd>), ChannelError<Test>>,
    ) -> (&'static str, usize) {
        match received {
            Err(ChannelError::Nonsense { reason, descriptors }) => (reason, descriptors.len()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn messages_arrive_with_their_descriptors() {
        let (own, other) = channel();
        own.send(&Test::WithTwo, &[own.as_fd(), own.as_fd()]).unwrap();
        own.send(&Test::Bare(7), &[]).unwrap();
        let (message, descriptors) = other.receive().unwrap();
        assert_eq!((message, descriptors.len()), (Test::WithTwo, 2));
        assert_eq!(other.receive().unwrap().0, Test::Bare(7));
        assert!(matches!(other.receive(), Err(ChannelError::NotReady)));
        drop((own, descriptors));
        assert!(matches!(other.receive(), Err(ChannelError::Closed)));
        assert!(matches!(other.send(&Test::Bare(1), &[]), Err(ChannelError::Closed)));
    }

    #[test]
    fn anything_but_a_message_is_nonsense_and_its_descriptors_are_kept() {
        let (own, other) = channel();
        for (bytes, descriptors, reason) in [
            (&[9][..], 0, "a record is not a message"),
            (&[0], 0, "a record is not a message"),
            (&[0, 1, 1], 0, "a message has bytes after its end"),
            (&[0, 1], 1, "a message has the wrong number of descriptors"),
            (&[1], 1, "a message has the wrong number of descriptors"),
            (&[1], 3, "a message has the wrong number of descriptors"),
        ] {
            record::send(own.as_fd(), bytes, &vec![own.as_fd(); descriptors]).unwrap();
            assert_eq!(nonsense(other.receive()), (reason, descriptors));
        }
    }

    #[test]
    fn a_full_channel_does_not_wait() {
        let (own, _other) = channel();
        let full = (0..10_000).find_map(|_| own.send(&Test::Bare(0), &[]).err());
        assert!(matches!(full, Some(ChannelError::NotReady)));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_message_or_nonsense(bytes in proptest::collection::vec(0u8.., 1..64)) {
            let (own, other) = channel();
            record::send(own.as_fd(), &bytes, &[]).unwrap();
            let received = other.receive();
            assert!(matches!(received, Ok(_) | Err(ChannelError::Nonsense { .. })), "{received:?}");
        }
    }
}
