//! A socket of the broker: creating, accepting, receiving, closing.
//!
//! These calls use what dropped calls of the socket had taken. The others are in `socket_calls.rs` and
//! `options.rs`.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use sockbroker_proto::handle::Handle;

use super::broker::Broker;
use super::dropped::{DroppedCall, Unclaimed};
use super::stream_state::StreamState;
use crate::address::Address;
use crate::constant::{Domain, Flags, Type};
use crate::error::{Error, Result};
use crate::operation::{self, NewSocket, Operation};
use crate::request::PayloadEncoding;
use crate::values::SocketSpec;
use crate::wire::response::OwnedResponse;

/// `EBUSY`.
const EBUSY: i32 = 16;

/// A socket that the broker owns, by its handle.
///
/// A call waits in the broker, and its task waits for the response. Dropping the socket closes the handle:
/// the request to close follows all earlier requests, and nothing waits for its response.
pub struct Socket {
    broker: Broker,
    handle: Handle,
    spec: SocketSpec,
    unclaimed: Arc<Unclaimed>,
    stream_state: StreamState,
    /// Whether dropping has to close the handle.
    open: bool,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SocketSpec { domain, ty, protocol } = self.spec;
        write!(f, "Socket({}, {domain}, {ty}, {protocol})", self.handle)
    }
}

impl Socket {
    fn from_new(broker: &Broker, new: NewSocket) -> Self {
        Self {
            broker: broker.clone(),
            handle: new.handle,
            spec: new.spec,
            unclaimed: Arc::default(),
            stream_state: StreamState::default(),
            open: true,
        }
    }

    /// Runs an operation that creates a socket.
    pub(super) async fn create(
        broker: &Broker,
        operation: impl Operation<Output = NewSocket>,
    ) -> Result<Self> {
        let new = broker.run_or(operation, DroppedCall::CloseSockets).await?;
        Ok(Self::from_new(broker, new))
    }

    /// Runs an operation that creates two sockets.
    pub(super) async fn create_pair(
        broker: &Broker,
        operation: impl Operation<Output = (NewSocket, NewSocket)>,
    ) -> Result<(Self, Self)> {
        let (left, right) = broker.run_or(operation, DroppedCall::CloseSockets).await?;
        Ok((Self::from_new(broker, left), Self::from_new(broker, right)))
    }

    /// The broker that owns the socket.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// The handle of the socket in the session.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// Address family, type and protocol.
    pub fn spec(&self) -> SocketSpec {
        self.spec
    }

    pub(super) fn payload_encoding(&self) -> PayloadEncoding {
        self.broker.payload_encoding()
    }

    /// Whether this process opens the files of addresses: for `AF_UNIX`, on connections that can pass
    /// descriptors.
    pub(super) fn opens_files(&self) -> bool {
        self.spec.domain == Domain::UNIX && self.payload_encoding() == PayloadEncoding::Attachments
    }

    pub(super) fn unclaimed(&self) -> &Unclaimed {
        &self.unclaimed
    }

    pub(super) fn stream_state(&self) -> &StreamState {
        &self.stream_state
    }

    /// Keeps the result of a dropped call for the next one.
    pub(super) fn keep(&self) -> DroppedCall {
        DroppedCall::Keep(Arc::clone(&self.unclaimed))
    }

    /// Waits for a connection and accepts it. Returns the new socket and the address of the peer.
    ///
    /// A connection that a dropped `accept` had taken comes first.
    pub async fn accept(&self) -> Result<(Self, Address)> {
        let mut operation = operation::accept(self.handle);
        let (new, address) = match self.unclaimed.next().await {
            Some(mut response) => response.read(&mut |response| operation.read(response))?,
            None => self.broker.run_or(operation, self.keep()).await?,
        };
        Ok((Self::from_new(&self.broker, new), address))
    }

    /// Receives into `buffer` with flags. Returns what `recv(2)` returns: the number of bytes, or with
    /// [`Flags::TRUNC`] the length of the datagram. See [`Socket::recv`].
    pub async fn recv_with_flags(&self, buffer: &mut [u8], flags: Flags) -> Result<usize> {
        self.stream_state.cancel_read();
        if let Some(response) = self.unclaimed.next().await {
            return self.read_unclaimed(response, buffer);
        }
        let operation = operation::recv(self.handle, buffer, flags);
        self.broker.run_or(operation, self.on_dropped_receive(flags)).await
    }

    /// Receives into `buffer` with flags. Returns what `recvfrom(2)` returns, and the sender's address.
    /// See [`Socket::recv_with_flags`].
    pub async fn recv_from_with_flags(
        &self,
        buffer: &mut [u8],
        flags: Flags,
    ) -> Result<(usize, Address)> {
        self.stream_state.cancel_read();
        if let Some(mut response) = self.unclaimed.next().await {
            let address = response.read(&mut operation::received_sender)?;
            return Ok((self.read_unclaimed(response, buffer)?, address));
        }
        let operation = operation::recv_from(self.handle, buffer, flags);
        self.broker.run_or(operation, self.on_dropped_receive(flags)).await
    }

    /// With `PEEK` the data stay in the queue of the socket, so that nothing has to be kept.
    fn on_dropped_receive(&self, flags: Flags) -> DroppedCall {
        if flags.contains(Flags::PEEK) { DroppedCall::Discard } else { self.keep() }
    }

    /// Reads what a dropped receive had taken. The rest stays for the next call on a stream, and is
    /// discarded for a datagram.
    fn read_unclaimed(&self, mut response: OwnedResponse, buffer: &mut [u8]) -> Result<usize> {
        let is_stream = self.spec.ty == Type::STREAM;
        let mut take = |data: &[u8]| {
            let (now, later) = data.split_at(data.len().min(buffer.len()));
            buffer.get_mut(..now.len()).unwrap_or_default().copy_from_slice(now);
            (now.len(), (is_stream && !later.is_empty()).then(|| OwnedResponse::of_data(later)))
        };
        let (length, later) =
            response.read(&mut |response| operation::received_data(response, &mut take))?;
        if let Some(later) = later {
            self.unclaimed.put_back(later);
        }
        Ok(length)
    }

    /// Passes the real descriptor, close-on-exec, and closes the handle. The caller uses the socket
    /// natively, and the broker takes no further part. Types of `std` and tokio are made from it. The
    /// socket is non-blocking if it had a timeout.
    ///
    /// # Errors
    ///
    /// The socket is closed on an error. [`Error::Denied`] if the policy does not grant the descriptor,
    /// [`Error::Descriptor`] if the connection cannot carry one, [`Error::Os`] with `EBUSY` if a dropped
    /// receive had taken data that have not been read.
    pub async fn into_owned_fd(mut self) -> Result<OwnedFd> {
        self.stream_state.flush().await?;
        self.stream_state.cancel_read();
        if let Some(response) = self.unclaimed.next().await {
            self.unclaimed.put_back(response);
            return Err(Error::Os {
                errno: Some(EBUSY),
                name: Some("EBUSY".to_owned()),
                call: "detach".to_owned(),
                message: "detach: received data have not been read".to_owned(),
                sent: None,
            });
        }
        let detached = self.broker.run(operation::detach(self.handle)).await;
        self.open = detached.is_err();
        detached
    }

    /// Closes the handle and returns the error of closing, if there is one.
    pub async fn close(mut self) -> Result<()> {
        self.open = false;
        self.stream_state.flush().await?;
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
