//! The socket of a channel: each receive and each send is authorized like a call.

use std::sync::Arc;

use bytes::Bytes;
use sockbroker_proto::address::AddressValue;
use sockbroker_proto::channel::{ADDRESS_MAX, DATA_MAX};

use crate::config::limits::size;
use crate::error::{OpError, OpResult};
use crate::handlers::address::encode_address;
use crate::handlers::contents::{Payload, Sizes};
use crate::handlers::messages;
use crate::ops::channel::ClientEnd;
use crate::ops::receive::{self, FromStream, Spliced, is_end};
use crate::ops::{channel, connect, send};
use crate::rpc::call::Call;
use crate::table::channel::ChannelClaim;
use crate::table::entry::Entry;
use sockbroker_policy::action::Shutdown;
use sockbroker_policy::verb::Verb;

/// The socket of a channel.
#[derive(Debug)]
pub(super) struct SocketEnd {
    call: Call,
    entry: Arc<Entry>,
    /// Its sends are in order with each other, and with no call.
    queue: u64,
    /// Whether out-of-band data is received apart from the data.
    separates_urgent: bool,
    /// Whether received data can be moved to the client without a copy.
    splices: bool,
    /// How many datagrams the kernel had dropped when the channel was opened.
    pub(super) dropped_before: u32,
}

/// What was received.
#[derive(Debug)]
pub(super) enum Received {
    /// Bytes of a stream.
    Data(Vec<u8>),
    /// A byte of out-of-band data.
    Urgent(u8),
    /// A datagram, with its sender as JSON, or nothing.
    Datagram(String, Vec<u8>),
    /// Nothing more will be received.
    End,
}

impl SocketEnd {
    /// With `has_frames`, out-of-band data is received apart from the data. Otherwise it is lost as with `recv(2)`.
    pub(super) fn new(
        call: Call,
        entry: Arc<Entry>,
        has_frames: bool,
        dropped_before: u32,
    ) -> Self {
        let queue = call.broker().number();
        let actual = entry.actual();
        let internet = [libc::AF_INET, libc::AF_INET6].contains(&actual.domain);
        let is_stream = internet && actual.ty == libc::SOCK_STREAM;
        let separates_urgent = has_frames && is_stream;
        let splices = !has_frames && is_stream && actual.protocol == libc::IPPROTO_TCP;
        Self { call, entry, queue, separates_urgent, splices, dropped_before }
    }

    pub(super) fn call(&self) -> &Call {
        &self.call
    }

    /// The number of bytes of one read.
    pub(super) fn piece(&self) -> usize {
        size(self.call.broker().limits.channel_bytes)
    }

    pub(super) fn is_stream(&self) -> bool {
        self.entry.actual().ty == libc::SOCK_STREAM
    }

    /// Waits until a stream is connected.
    pub(super) async fn connected(&self, claim: &ChannelClaim) -> OpResult<()> {
        if self.is_stream() {
            channel::connected(&self.call.inspect(&self.entry)?, claim).await?;
        }
        Ok(())
    }

    /// Receives; without waiting if `waits` is false. Dropping it loses nothing.
    pub(super) async fn receive(&self, waits: bool) -> OpResult<Received> {
        let length = if self.is_stream() { self.piece() } else { DATA_MAX };
        let sizes = Sizes { length, ancillary: 0, flags: 0 };
        let permitted = self.call.permit_receive_of_channel(&self.entry, sizes)?;
        if self.separates_urgent {
            let received = receive::receive_urgent_for_channel(&permitted, waits).await?;
            drop(self.call.permit_receive_of_channel(&self.entry, sizes)?);
            return Ok(match received {
                FromStream::Urgent(byte) => Received::Urgent(byte),
                FromStream::Data(data) if data.is_empty() => Received::End,
                FromStream::Data(data) => Received::Data(data),
            });
        }
        let sender_check = self.call.sender_check(&self.entry);
        let receiving = receive::receive_for_channel(&permitted, sender_check.as_deref(), waits);
        let received = receiving.await?;
        // The policy may have been replaced, and the session restricted, while it waited.
        let permitted = self.call.permit_receive_of_channel(&self.entry, sizes)?;
        if is_end(&permitted, received.n) {
            return Ok(Received::End);
        }
        if self.is_stream() {
            return Ok(Received::Data(received.data));
        }
        let sender = messages::sender(permitted.socket(), &received);
        let address = match encode_address(permitted.socket(), sender.as_ref()) {
            AddressValue::None(()) => String::new(),
            address => serde_json::to_string(&address).unwrap_or_default(),
        };
        let address = if address.len() > ADDRESS_MAX { String::new() } else { address };
        Ok(Received::Datagram(address, received.data))
    }

    /// Receives bytes, and moves them to the client without a copy if that is possible. Returns those that the client does
    /// not take now. Dropping it loses nothing.
    pub(super) async fn receive_for(&self, client: &ClientEnd) -> OpResult<Received> {
        if self.splices && client.ready_for_output().await.is_ok() {
            let mut has_waited = false;
            loop {
                let sizes = Sizes { length: self.piece(), ancillary: 0, flags: 0 };
                // The policy may have been replaced, and the session restricted, while it waited.
                let permitted = self.call.permit_receive_of_channel(&self.entry, sizes)?;
                match receive::splice_for_channel(&permitted, client) {
                    Spliced::Moved { rest } => return Ok(Received::Data(rest)),
                    Spliced::Later if !has_waited => {
                        receive::readable_for_channel(&permitted).await?;
                        has_waited = true;
                    }
                    // Out-of-band data, for example, is readable and not moved.
                    Spliced::Later | Spliced::Impossible => break,
                }
            }
        }
        self.receive(true).await
    }

    /// Sends data with these flags.
    pub(super) async fn send(&self, data: Bytes, flags: i32) -> OpResult<()> {
        let ticket = self.entry.sending.join(self.queue);
        self.call.settle(&self.entry, &ticket, Verb::Send).await;
        let permitted = self.call.permit_send(&self.entry, None, Payload::of(data, flags))?;
        send::send_for_channel(&permitted, self.call.sender()).await
    }

    /// Sends a datagram, to an address or to the peer.
    pub(super) async fn send_datagram(&self, address: &str, data: Bytes) -> OpResult<()> {
        if address.is_empty() {
            return self.send(data, 0).await;
        }
        let address: AddressValue = serde_json::from_str(address)
            .map_err(|error| OpError::value(format!("the address of a datagram: {error}")))?;
        let target = self.call.target(&self.entry, &address, ("sendto", Verb::Send)).await?;
        let ticket = self.entry.sending.join(self.queue);
        self.call.settle(&self.entry, &ticket, Verb::Send).await;
        let permitted = self.call.permit_send(&self.entry, Some(target), Payload::of(data, 0))?;
        send::send_for_channel(&permitted, self.call.sender()).await
    }

    /// Ends what the peer of the socket receives.
    pub(super) async fn end_sending(&self) -> OpResult<()> {
        let ticket = self.entry.sending.join(self.queue);
        let how = libc::SHUT_WR;
        let permitted = self.call.authorize(&self.entry, |socket| Shutdown { socket, how })?;
        connect::shutdown(&permitted, ticket).await
    }

    /// Waits until the peer of a TCP connection has acknowledged everything that was sent, and drops what arrives.
    pub(super) async fn acknowledged(&self) {
        if self.is_internet_stream()
            && let Ok(inspected) = self.call.inspect(&self.entry)
        {
            channel::acknowledged(&inspected).await;
        }
    }

    /// Whether the peer of a TCP connection has acknowledged everything that was sent.
    pub(super) fn is_acknowledged(&self) -> bool {
        let inspected = self.is_internet_stream().then(|| self.call.inspect(&self.entry).ok());
        inspected.flatten().is_none_or(|inspected| channel::is_acknowledged(&inspected))
    }

    /// Makes the close of the socket a reset: the peer learns that data is missing.
    pub(super) fn reset_on_close(&self) {
        if self.is_internet_stream()
            && let Ok(inspected) = self.call.inspect(&self.entry)
        {
            channel::reset_on_close(&inspected);
        }
    }

    fn is_internet_stream(&self) -> bool {
        let actual = self.entry.actual();
        self.is_stream() && [libc::AF_INET, libc::AF_INET6].contains(&actual.domain)
    }

    /// How many datagrams the kernel has dropped.
    pub(super) fn dropped(&self) -> u32 {
        let inspected = self.call.inspect(&self.entry);
        inspected.map_or(0, |inspected| channel::dropped(inspected.socket()))
    }
}
