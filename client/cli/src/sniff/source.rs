//! A packet socket of the broker: packets with their times, directions and full lengths.

use serde_json::{Value, json};
use sockbroker_proto::address::{AddressItem, AddressValue};
use sockbroker_proto::ancillary::{AncillaryData, AncillaryItem};
use sockbroker_proto::api::values::{Created, OptionValue, ReceivedMessage};
use sockbroker_proto::bytes::Bytes;

use super::pcapng::{Counts, Direction, LinkType};
use crate::failure::Failure;
use crate::interrupt::LOOK;
use crate::link::Link;

/// Every protocol, `linux/if_ether.h`.
const ETH_P_ALL: i64 = 3;
/// Kinds of hardware with an Ethernet header, `linux/if_arp.h`.
const ETHERNET: i64 = 1;
const LOOPBACK: i64 = 772;
/// Bytes that the kernel may hold while nobody takes them.
const BUFFER: i64 = 8 << 20;
/// Packets taken by one call, at most.
const BATCH: u64 = 64;
/// Room for one time of two words.
const CONTROL: i64 = 32;
/// `sizeof(struct timespec)`.
const TIMESPEC: usize = 16;

/// A packet as it was received.
#[derive(Debug)]
pub(crate) struct Received {
    /// Nanoseconds since 1970.
    pub(crate) time: u64,
    /// What was kept, with the header that the link type says.
    pub(crate) data: Vec<u8>,
    /// How long it was, with that header.
    pub(crate) length: u32,
    /// Which way it went.
    pub(crate) direction: Direction,
    /// The interface.
    pub(crate) interface: String,
    /// The protocol behind the link's header.
    pub(crate) protocol: u16,
}

/// A capturing socket.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    link: &'a Link,
    handle: u64,
    /// What packets begin with.
    pub(crate) kind: LinkType,
    is_loopback: bool,
    snaplen: u32,
    batch: u64,
}

impl<'a> Source<'a> {
    /// Captures an interface, or all for `any`, from now on.
    pub(crate) fn open(
        link: &'a Link,
        interface: &str,
        snaplen: u32,
        promiscuous: bool,
    ) -> Result<Self, Failure> {
        let room = receive_bytes(link)?;
        let snaplen = u64::from(snaplen).min(room);
        let batch = (room / snaplen.max(1)).clamp(1, BATCH);
        let any = interface == "any";
        let hardware = if any { None } else { Some(hardware(link, interface)?) };
        let kind = match hardware {
            Some(ETHERNET | LOOPBACK) => LinkType::Ethernet,
            Some(_) | None => LinkType::Cooked,
        };
        let socktype = if kind == LinkType::Ethernet { "SOCK_RAW" } else { "SOCK_DGRAM" };
        // Without a protocol nothing arrives before the socket is ready.
        let handle = make(link, socktype)?;
        let snaplen = u32::try_from(snaplen).unwrap_or(u32::MAX);
        let is_loopback = hardware == Some(LOOPBACK);
        let source = Self { link, handle, kind, is_loopback, snaplen, batch };
        source.prepare()?;
        if promiscuous && !any {
            source.join(interface)?;
        }
        let address = if any { everywhere() } else { json!([interface, ETH_P_ALL]) };
        link.call("socket.bind", json!({ "handle": handle, "address": address }))?;
        Ok(source)
    }

    fn prepare(&self) -> Result<(), Failure> {
        self.set("SOL_SOCKET", libc::SO_TIMESTAMPNS, &json!(1))?;
        // Beyond the system's limit only with CAP_NET_ADMIN; the next best is as much as there is.
        if self.set("SOL_SOCKET", libc::SO_RCVBUFFORCE, &json!(BUFFER)).is_err() {
            self.set("SOL_SOCKET", libc::SO_RCVBUF, &json!(BUFFER))?;
        }
        let timeout = json!({ "handle": self.handle, "value": LOOK });
        self.link.call("socket.settimeout", timeout).map(drop)
    }

    /// Promiscuous mode for as long as the socket lives (`packet(7)`, `struct packet_mreq`).
    fn join(&self, interface: &str) -> Result<(), Failure> {
        let index = self.link.call("socket.if_nametoindex", json!({ "if_name": interface }))?;
        let index = index.as_i64().and_then(|index| i32::try_from(index).ok()).unwrap_or(0);
        let mut membership = index.to_ne_bytes().to_vec();
        membership.extend(PACKET_MR_PROMISC.to_ne_bytes());
        membership.extend([0; 10]);
        let membership = OptionValue::Bytes(Bytes::Inline(membership));
        let membership = serde_json::to_value(membership).unwrap_or_default();
        self.set("SOL_PACKET", libc::PACKET_ADD_MEMBERSHIP, &membership)
    }

    fn set(&self, level: &str, name: i32, value: &Value) -> Result<(), Failure> {
        let level = if level == "SOL_PACKET" { json!(libc::SOL_PACKET) } else { json!(level) };
        let option =
            json!({ "handle": self.handle, "level": level, "optname": name, "value": value });
        self.link.call("socket.setsockopt", option).map(drop)
    }

    /// What has arrived, after a short wait if there is nothing.
    pub(crate) fn receive(&self, most: u64) -> Result<Vec<Received>, Failure> {
        let parameters = json!({
            "handle": self.handle,
            "vlen": most.clamp(1, self.batch),
            "bufsize": self.snaplen,
            "ancbufsize": CONTROL,
            // The full length is told, however much is kept.
            "flags": "MSG_TRUNC",
        });
        let messages: Vec<ReceivedMessage> =
            match self.link.call_typed("socket.recvmmsg", parameters) {
                Ok(messages) => messages,
                Err(failure) if failure.is_timeout() => Vec::new(),
                Err(failure) => return Err(failure),
            };
        messages.into_iter().filter_map(|message| self.read(message).transpose()).collect()
    }

    /// `None` for what is seen twice: a packet over the loopback, once as it leaves.
    fn read(&self, message: ReceivedMessage) -> Result<Option<Received>, Failure> {
        let strange = || Failure::protocol("the sender of a packet is not understood");
        let AddressValue::Tuple(items) = &message.address else { return Err(strange()) };
        let [
            AddressItem::Text(interface),
            AddressItem::Number(protocol),
            AddressItem::Number(packet_type),
            AddressItem::Number(hardware),
            ..,
        ] = items.as_slice()
        else {
            return Err(strange());
        };
        let direction = match packet_type {
            1 => Direction::Broadcast,
            2 => Direction::Multicast,
            3 => Direction::Promiscuous,
            4 => Direction::Outgoing,
            _ => Direction::Unicast,
        };
        let looped = self.is_loopback || *hardware == LOOPBACK;
        if looped && direction == Direction::Outgoing {
            return Ok(None);
        }
        let Bytes::Inline(data) = message.data else { return Err(strange()) };
        let protocol = u16::try_from(*protocol).unwrap_or(0);
        let mut packet = Received {
            time: time(&message.ancdata).unwrap_or_else(super::now),
            length: u32::try_from(message.n).unwrap_or(u32::MAX),
            data,
            direction,
            interface: interface.clone(),
            protocol,
        };
        if self.kind == LinkType::Cooked {
            let header = cooked_header(protocol, *hardware, *packet_type, items.get(4));
            packet.length = packet.length.saturating_add(COOKED_HEADER);
            packet.data.splice(..0, header);
        }
        Ok(Some(packet))
    }

    /// What the kernel counted, `PACKET_STATISTICS` of `packet(7)`.
    pub(crate) fn counts(&self) -> Result<Counts, Failure> {
        let parameters = json!({
            "handle": self.handle,
            "level": libc::SOL_PACKET,
            "optname": libc::PACKET_STATISTICS,
            "buflen": 8,
        });
        let value: OptionValue = self.link.call_typed("socket.getsockopt", parameters)?;
        let OptionValue::Bytes(Bytes::Inline(bytes)) = value else {
            return Err(Failure::protocol("the packet statistics are no bytes"));
        };
        let number = |at: usize| {
            let word = bytes.get(at..).and_then(|rest| rest.first_chunk()).copied();
            u64::from(u32::from_ne_bytes(word.unwrap_or_default()))
        };
        Ok(Counts { received: number(0), dropped: number(4) })
    }
}

const PACKET_MR_PROMISC: u16 = 1;
/// Bytes of `LINKTYPE_LINUX_SLL2`.
pub(crate) const COOKED_HEADER: u32 = 20;

/// The header of a cooked capture, version 2: all in the order of the network.
fn cooked_header(
    protocol: u16,
    hardware: i64,
    packet_type: i64,
    address: Option<&AddressItem>,
) -> Vec<u8> {
    let address = match address {
        Some(AddressItem::Text(text)) => {
            let bytes = serde_json::from_value(Value::from(text.as_str()));
            if let Ok(Bytes::Inline(bytes)) = bytes { bytes } else { Vec::new() }
        }
        _ => Vec::new(),
    };
    let mut header = protocol.to_be_bytes().to_vec();
    // Reserved, and the interface's index, which a packet's address does not have.
    header.extend([0; 6]);
    header.extend(u16::try_from(hardware).unwrap_or(u16::MAX).to_be_bytes());
    header.push(u8::try_from(packet_type).unwrap_or(0));
    header.push(u8::try_from(address.len().min(8)).unwrap_or(0));
    header.extend(address.iter().take(8));
    header.resize(COOKED_HEADER as usize, 0);
    header
}

/// All interfaces: `struct sockaddr_ll` with the index 0, which no name has.
fn everywhere() -> Value {
    let mut address = u16::try_from(ETH_P_ALL).unwrap_or(0).to_be_bytes().to_vec();
    address.extend([0; 16]);
    let base64 = serde_json::to_value(Bytes::Inline(address)).unwrap_or_default();
    json!({ "family": "AF_PACKET", "base64": base64 })
}

fn make(link: &Link, socktype: &str) -> Result<u64, Failure> {
    let parameters = json!({ "family": "AF_PACKET", "type": socktype, "proto": 0 });
    let made: Created = link.call_typed("socket.socket", parameters)?;
    Ok(made.handle.number())
}

/// The kind of hardware of an interface.
fn hardware(link: &Link, interface: &str) -> Result<i64, Failure> {
    let handle = make(link, "SOCK_DGRAM")?;
    link.call("socket.bind", json!({ "handle": handle, "address": [interface, 0] }))?;
    let address = link.call("socket.getsockname", json!({ "handle": handle }))?;
    link.call("socket.close", json!({ "handle": handle }))?;
    let hardware = address.get(3).and_then(Value::as_i64);
    hardware.ok_or_else(|| Failure::protocol("the address of a packet socket is not understood"))
}

/// What one receiving call may ask for.
fn receive_bytes(link: &Link) -> Result<u64, Failure> {
    let limits = link.call("session.limits", json!({}))?;
    let limit = limits.pointer("/receive_bytes/value").and_then(Value::as_u64);
    limit.ok_or_else(|| Failure::protocol("the broker does not tell its limit receive_bytes"))
}

/// When the kernel saw a packet, from `SCM_TIMESTAMPNS`.
fn time(items: &[AncillaryItem]) -> Option<u64> {
    items.iter().find_map(|AncillaryItem(level, kind, data)| {
        let wanted = (i64::from(libc::SOL_SOCKET), i64::from(libc::SCM_TIMESTAMPNS));
        let AncillaryData::Bytes(Bytes::Inline(bytes)) = data else { return None };
        if (level.0, kind.0) != wanted || bytes.len() < TIMESPEC {
            return None;
        }
        let (seconds, nanoseconds) = (bytes.first_chunk()?, bytes.get(8..)?.first_chunk()?);
        let seconds = u64::from_ne_bytes(*seconds);
        seconds.checked_mul(1_000_000_000)?.checked_add(u64::from_ne_bytes(*nanoseconds))
    })
}
