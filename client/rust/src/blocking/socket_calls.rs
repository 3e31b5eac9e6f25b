//! Calls of a socket: connecting, sending, receiving, timeouts, descriptors.

use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::time::Duration;

use sockbroker_proto::api::capture::{ReplayOptions, Replayed};

use super::broker::Broker;
use super::socket::Socket;
use crate::address::Address;
use crate::constant::{Domain, Flags, Protocol, Type};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::operation::{self, TRANSFER_BYTES_MAX};
use crate::values::{Message, OutgoingAncillary};

impl Socket {
    /// Creates a socket, like `socket(2)`.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] if the policy does not grant it.
    pub fn new(broker: &Broker, domain: Domain, ty: Type, protocol: Protocol) -> Result<Self> {
        Self::create(broker, operation::socket(domain, ty, protocol))
    }

    /// Creates a second handle for the same socket, like `dup(2)`.
    pub fn try_clone(&self) -> Result<Self> {
        Self::create(self.broker(), operation::dup(self.handle()))
    }

    /// Binds to a local address. The broker resolves a host name.
    pub fn bind(&self, address: impl Into<Address>) -> Result<()> {
        let bind = operation::bind(self.handle(), address.into(), self.opens_files());
        self.broker().run(bind)
    }

    /// Accepts connections from now on. At most `backlog` of them wait to be accepted.
    pub fn listen(&self, backlog: i32) -> Result<()> {
        self.broker().run(operation::listen(self.handle(), backlog))
    }

    /// Connects, and waits until the connection is established. The broker resolves a host name.
    pub fn connect(&self, address: impl Into<Address>) -> Result<()> {
        let connect = operation::connect(self.handle(), address.into(), self.opens_files());
        self.broker().run(connect)
    }

    /// Connects within a time limit. Afterwards the socket has its previous timeout.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] when the limit expires.
    pub fn connect_timeout(&self, address: impl Into<Address>, limit: Duration) -> Result<()> {
        let address = address.into();
        let previous = self.timeout()?;
        self.set_timeout(Some(limit))?;
        let result = self.connect(address);
        self.set_timeout(previous)?;
        result
    }

    /// Shuts down one direction, or both.
    pub fn shutdown(&self, how: Shutdown) -> Result<()> {
        self.broker().run(operation::shutdown(self.handle(), how))
    }

    /// The local address.
    pub fn local_addr(&self) -> Result<Address> {
        self.broker().run(operation::local_addr(self.handle()))
    }

    /// The address of the peer.
    pub fn peer_addr(&self) -> Result<Address> {
        self.broker().run(operation::peer_addr(self.handle()))
    }

    /// Sends to the peer. Returns how many bytes were sent; at most 1 MiB at a time on a stream.
    pub fn send(&self, data: &[u8]) -> Result<usize> {
        self.send_with_flags(data, Flags::NONE)
    }

    /// Sends to the peer with flags. See [`Socket::send`].
    pub fn send_with_flags(&self, data: &[u8], flags: Flags) -> Result<usize> {
        let data = operation::part_to_send(self.spec().ty, data);
        let send = operation::send(self.payload_encoding(), self.handle(), data, flags);
        self.broker().run(send)
    }

    /// Sends all bytes to the peer.
    ///
    /// # Errors
    ///
    /// The bytes are sent in parts of 1 MiB. [`Error::sent`] is how many bytes of the part that failed were
    /// sent.
    pub fn send_all(&self, data: &[u8]) -> Result<()> {
        for part in data.chunks(TRANSFER_BYTES_MAX) {
            let send = operation::send_all(self.payload_encoding(), self.handle(), part);
            self.broker().run(send)?;
        }
        Ok(())
    }

    /// Sends a datagram to an address. Returns how many bytes were sent.
    pub fn send_to(&self, data: &[u8], address: impl Into<Address>) -> Result<usize> {
        self.send_to_with_flags(data, address, Flags::NONE)
    }

    /// Sends a datagram to an address with flags. Returns how many bytes were sent.
    pub fn send_to_with_flags(
        &self,
        data: &[u8],
        address: impl Into<Address>,
        flags: Flags,
    ) -> Result<usize> {
        let (encoding, opens_files) = (self.payload_encoding(), self.opens_files());
        let address = address.into();
        let send = operation::send_to(encoding, self.handle(), data, flags, address, opens_files);
        self.broker().run(send)
    }

    /// Sends gathered buffers with ancillary data, to the peer or to an address, like `sendmsg(2)`. Returns
    /// how many bytes were sent.
    pub fn send_msg(
        &self,
        data: &[&[u8]],
        ancillary: &[OutgoingAncillary<'_>],
        flags: Flags,
        address: Option<Address>,
    ) -> Result<usize> {
        let descriptors = operation::descriptors(ancillary);
        let send = operation::send_msg(
            self.payload_encoding(),
            self.handle(),
            data,
            ancillary,
            &descriptors,
            flags,
            address,
            self.opens_files(),
        );
        self.broker().run(send)
    }

    /// Sends the packets of a capture file on a packet socket that is bound to an interface, at their times.
    ///
    /// Returns when all are sent. `file` is of the format pcapng or pcap, at most 8 MiB and 65536 blocks long; a longer one
    /// takes several calls. Packets that the interface cannot send are in the result.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] if the policy does not grant `inject`, [`Error::Argument`] for a file that is malformed,
    /// [`Error::Os`] if the interface is down or gone, each before the first packet.
    pub fn replay(&self, file: &[u8], options: &ReplayOptions) -> Result<Replayed> {
        let replay = operation::replay(self.payload_encoding(), self.handle(), file, options);
        self.broker().run(replay)
    }

    /// Receives into `buffer`, at most 1 MiB. Returns how many bytes; 0 is the end of a stream or an empty
    /// datagram.
    pub fn recv(&self, buffer: &mut [u8]) -> Result<usize> {
        self.recv_with_flags(buffer, Flags::NONE)
    }

    /// Receives into `buffer`, at most 1 MiB. Returns how many bytes, and the address of the sender.
    pub fn recv_from(&self, buffer: &mut [u8]) -> Result<(usize, Address)> {
        self.recv_from_with_flags(buffer, Flags::NONE)
    }

    /// Receives into `buffer`, and keeps the received data in the queue of the socket.
    pub fn peek(&self, buffer: &mut [u8]) -> Result<usize> {
        self.recv_with_flags(buffer, Flags::PEEK)
    }

    /// Receives a message of at most `size` bytes, like `recvmsg(2)`. `ancillary_size` is the space for
    /// ancillary data in bytes, as `cmsg(3)` counts it.
    pub fn recv_msg(&self, size: usize, ancillary_size: usize, flags: Flags) -> Result<Message> {
        let recv = operation::recv_msg(self.handle(), size, ancillary_size, flags);
        self.broker().run(recv)
    }

    /// Sets whether calls fail with `WouldBlock` instead of waiting. `false` lets them wait without limit.
    pub fn set_nonblocking(&self, nonblocking: bool) -> Result<()> {
        self.set_timeout(nonblocking.then_some(Duration::ZERO))
    }

    /// Sets how long a call of this socket waits in the broker before it fails with [`Error::Timeout`].
    /// `None` waits without limit; zero does not wait and fails with `WouldBlock`.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> Result<()> {
        self.broker().run(operation::set_timeout(self.handle(), timeout))
    }

    /// How long a call of this socket waits in the broker. See [`Socket::set_timeout`].
    pub fn timeout(&self) -> Result<Option<Duration>> {
        self.broker().run(operation::timeout(self.handle()))
    }

    /// Passes a duplicate of the real descriptor, close-on-exec. The handle stays open.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] if the policy does not grant the descriptor, [`Error::Descriptor`] if the
    /// connection cannot carry one.
    pub fn try_clone_fd(&self) -> Result<OwnedFd> {
        self.broker().run(operation::fileno(self.handle()))
    }
}
