//! A socket of the broker with the vocabulary of `socket2` and tokio.

use std::fmt;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use sockbroker_proto::api::option::IoctlArgument;
use sockbroker_proto::handle::Handle;

use super::Broker;
use super::dropped::Kept;
use super::pending::Heir;
use super::stream::StreamState;
use crate::address::Address;
use crate::constant::{Domain, Flags, Protocol, Type};
use crate::error::{Error, Result};
use crate::face::socket_methods;
use crate::message::{Attributes, Message, OutgoingAncillary};
use crate::operation::{self, MAX_TRANSFER, NewSocket};
use crate::option::{self, OptionType, RawValue, SocketOption};
use crate::request::PayloadEncoding;
use crate::wire::response::OwnedResponse;

/// `EBUSY`.
const EBUSY: i32 = 16;

/// A socket that the broker owns, by its handle.
///
/// Every call waits in the broker, not in a thread. Dropping the socket closes the handle: the
/// request to close stands behind all that was asked before, and nobody waits for its answer.
pub struct Socket {
    broker: Broker,
    handle: Handle,
    attributes: Attributes,
    /// What dropped receives and accepts had taken.
    pub(super) kept: Arc<Kept>,
    /// What `AsyncRead` and `AsyncWrite` have under way.
    pub(super) streaming: StreamState,
    /// Whether the handle is still to be closed.
    open: bool,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Attributes { domain, kind, protocol } = self.attributes;
        write!(f, "Socket({}, {domain}, {kind}, {protocol})", self.handle)
    }
}

socket_methods!(asynchronous Socket);

impl Socket {
    /// Makes a socket, as `socket(2)` does.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] if the policy does not grant it.
    pub async fn new(
        broker: &Broker,
        domain: Domain,
        kind: Type,
        protocol: Protocol,
    ) -> Result<Self> {
        broker.make(operation::socket(domain, kind, protocol)).await
    }

    pub(crate) fn from_new(broker: &Broker, made: NewSocket) -> Self {
        Self {
            broker: broker.clone(),
            handle: made.handle,
            attributes: made.attributes,
            kept: Arc::default(),
            streaming: StreamState::default(),
            open: true,
        }
    }

    /// The broker that owns it.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Its handle in the session.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// Family, type and protocol.
    pub fn attributes(&self) -> Attributes {
        self.attributes
    }

    /// Whether this process opens the files that addresses name: those of `AF_UNIX`, where descriptors
    /// can be passed.
    pub(super) fn opens_files(&self) -> bool {
        self.attributes.domain == Domain::UNIX
            && self.payload_encoding() == PayloadEncoding::Attachments
    }

    /// How payload goes, and whether files of addresses are opened here.
    fn route(&self) -> (PayloadEncoding, bool) {
        (self.payload_encoding(), self.opens_files())
    }

    pub(super) fn payload_encoding(&self) -> PayloadEncoding {
        self.broker.payload_encoding()
    }

    fn piece<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        operation::piece(self.attributes.kind, data)
    }

    /// Waits for a connection and takes it. One that a dropped future had taken comes first.
    pub async fn accept(&self) -> Result<(Self, Address)> {
        let mut call = operation::accept(self.handle);
        let (made, address) = match self.kept.next().await {
            Some(mut answer) => answer.read(&mut call.read)?,
            None => self.broker.run_for(call, Heir::Socket(Arc::clone(&self.kept))).await?,
        };
        Ok((Self::from_new(&self.broker, made), address))
    }

    /// Connects within a time; the socket's timeout is afterwards what it was.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] when the time is over.
    pub async fn connect_timeout(
        &self,
        address: impl Into<Address>,
        limit: Duration,
    ) -> Result<()> {
        let address = address.into();
        let before = self.timeout().await?;
        self.set_timeout(Some(limit)).await?;
        let result = self.connect(address).await;
        self.set_timeout(before).await?;
        result
    }

    /// Sends all bytes to the peer.
    ///
    /// # Errors
    ///
    /// [`Error::sent`] tells how many bytes of the last MiB had left.
    pub async fn send_all(&self, data: &[u8]) -> Result<()> {
        for part in data.chunks(MAX_TRANSFER) {
            self.broker
                .run(operation::send_all(self.payload_encoding(), self.handle, part))
                .await?;
        }
        Ok(())
    }

    /// Sends gathered bytes with ancillary data, to the peer or to an address; how many bytes left.
    pub async fn send_msg(
        &self,
        data: &[&[u8]],
        ancillary: &[OutgoingAncillary<'_>],
        flags: Flags,
        address: Option<Address>,
    ) -> Result<usize> {
        let (payload_encoding, beside) =
            (self.payload_encoding(), operation::descriptors(ancillary));
        let handle = self.handle;
        let to = (address, self.opens_files());
        let call =
            operation::send_msg(payload_encoding, handle, data, ancillary, &beside, flags, to);
        self.broker.run(call).await
    }

    /// Receives into a buffer; how many bytes. 0 is the end of a stream, or an empty datagram. Not
    /// more than 1 MiB comes at a time.
    pub async fn recv(&self, buffer: &mut [u8]) -> Result<usize> {
        self.recv_with_flags(buffer, Flags::NONE).await
    }

    /// Receives into a buffer with flags; what `recv(2)` returned.
    pub async fn recv_with_flags(&self, buffer: &mut [u8], flags: Flags) -> Result<usize> {
        self.streaming.leave_reading();
        if let Some(answer) = self.kept.next().await {
            return self.read_kept(answer, buffer);
        }
        let call = operation::recv(self.handle, buffer, flags);
        self.broker.run_for(call, self.heir(flags)).await
    }

    /// Receives into a buffer, with the address of the sender.
    pub async fn recv_from(&self, buffer: &mut [u8]) -> Result<(usize, Address)> {
        self.recv_from_with_flags(buffer, Flags::NONE).await
    }

    /// Receives into a buffer with flags, with the address of the sender.
    pub async fn recv_from_with_flags(
        &self,
        buffer: &mut [u8],
        flags: Flags,
    ) -> Result<(usize, Address)> {
        self.streaming.leave_reading();
        if let Some(mut answer) = self.kept.next().await {
            let address = answer.read(&mut operation::sender)?;
            return Ok((self.read_kept(answer, buffer)?, address));
        }
        let call = operation::recv_from(self.handle, buffer, flags);
        self.broker.run_for(call, self.heir(flags)).await
    }

    /// What was only looked at is still there.
    fn heir(&self, flags: Flags) -> Heir {
        if flags.contains(Flags::PEEK) {
            Heir::Nobody
        } else {
            Heir::Socket(Arc::clone(&self.kept))
        }
    }

    /// Gives what a dropped receive had taken. A stream's rest waits for the next one.
    fn read_kept(&self, mut answer: OwnedResponse, buffer: &mut [u8]) -> Result<usize> {
        let stream = self.attributes.kind == Type::STREAM;
        let mut take = |data: &[u8]| {
            let (now, later) = data.split_at(data.len().min(buffer.len()));
            buffer.get_mut(..now.len()).unwrap_or_default().copy_from_slice(now);
            (now.len(), (stream && !later.is_empty()).then(|| OwnedResponse::of_data(later)))
        };
        let (read, later) = answer.read(&mut |response| operation::data(response, &mut take))?;
        if let Some(later) = later {
            self.kept.put_back(later);
        }
        Ok(read)
    }

    /// Receives into a buffer, and leaves in the queue what was received.
    pub async fn peek(&self, buffer: &mut [u8]) -> Result<usize> {
        self.recv_with_flags(buffer, Flags::PEEK).await
    }

    /// A second handle for the same socket.
    pub async fn try_clone(&self) -> Result<Self> {
        self.broker.make(operation::dup(self.handle)).await
    }

    /// The real descriptor, close-on-exec; the handle is gone. Whoever holds it uses the socket
    /// natively, and the broker takes no further part. `std` and tokio types are made from it.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] if the policy does not grant the hand-over, [`Error::Descriptor`] where the
    /// connection carries none, [`Error::Os`] with `EBUSY` if a dropped receive had taken data that
    /// was not read since. The socket is closed then.
    pub async fn into_owned_fd(mut self) -> Result<OwnedFd> {
        self.streaming.finish_writing().await?;
        self.streaming.leave_reading();
        if let Some(answer) = self.kept.next().await {
            self.kept.put_back(answer);
            return Err(Error::Os {
                errno: Some(EBUSY),
                name: Some("EBUSY".to_owned()),
                call: "detach".to_owned(),
                message: "detach: received data has not been read".to_owned(),
                sent: None,
            });
        }
        let detached = self.broker.run(operation::detach(self.handle)).await;
        self.open = detached.is_err();
        detached
    }

    /// Closes the handle, and tells how that went.
    pub async fn close(mut self) -> Result<()> {
        self.open = false;
        self.streaming.finish_writing().await?;
        self.broker.run(operation::close(self.handle)).await
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.open {
            self.broker.close_without_waiting(self.handle);
        }
    }
}
