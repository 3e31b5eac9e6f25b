//! Reads a packet and its ancillary data: the time, the full length and the VLAN tag.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use sockbroker_proto::address::{AddressItem, AddressValue};
use sockbroker_proto::ancillary::{AncillaryData, AncillaryItem};
use sockbroker_proto::api::values::ReceivedMessage;
use sockbroker_proto::bytes::Bytes;

use super::link::{LinkHeader, PacketType};
use crate::failure::Failure;

/// Nanoseconds in a second.
pub(super) const SECOND: u64 = 1_000_000_000;
/// Hardware types with an Ethernet header, `linux/if_arp.h`.
pub(super) const ETHERNET: i64 = 1;
pub(super) const LOOPBACK: i64 = 772;
/// Bytes of the header of `LINKTYPE_LINUX_SLL2`.
pub(crate) const COOKED_HEADER: u32 = 20;
/// The offset of the protocol in an Ethernet header, after two addresses.
const ETHERTYPE_AT: usize = 12;
/// Bytes of a VLAN tag: its protocol, then its priority and number.
const TAG: u32 = 4;
/// `ETH_P_8021Q`, for kernels that do not report the protocol of a tag.
const VLAN: u16 = 0x8100;
/// `sizeof(struct timespec)`.
const TIMESPEC: usize = 16;
/// Bits of `tp_status`, `linux/if_packet.h`.
const TAG_VALID: u32 = 1 << 4;
const TAG_PROTOCOL_VALID: u32 = 1 << 6;

/// A received packet.
#[derive(Debug)]
pub(crate) struct Received {
    /// Nanoseconds since 1970.
    pub(crate) time: u64,
    /// The captured bytes, with the header of the link type.
    pub(crate) data: Vec<u8>,
    /// The full length of the packet, with that header.
    pub(crate) length: u32,
    pub(crate) packet_type: PacketType,
    pub(crate) interface: String,
    /// The `EtherType` of the payload.
    pub(crate) protocol: u16,
}

/// The parts of `struct sockaddr_ll`.
struct LinkAddress<'a> {
    interface: &'a str,
    protocol: u16,
    packet_type: i64,
    hardware: i64,
    address: Option<&'a AddressItem>,
}

impl<'a> LinkAddress<'a> {
    fn of(address: &'a AddressValue) -> Option<Self> {
        let AddressValue::Tuple(items) = address else { return None };
        let [
            AddressItem::Text(interface),
            AddressItem::Number(protocol),
            AddressItem::Number(packet_type),
            AddressItem::Number(hardware),
            ..,
        ] = items.as_slice()
        else {
            return None;
        };
        Some(Self {
            interface,
            protocol: u16::try_from(*protocol).unwrap_or(0),
            packet_type: *packet_type,
            hardware: *hardware,
            address: items.get(4),
        })
    }
}

/// Reads a message of a packet socket and keeps at most `snaplen` bytes of the packet. `index` returns the
/// index of an interface for the cooked header. Returns `None` for an outgoing packet on the loopback
/// interface, because the same packet also arrives as an incoming one.
pub(super) fn read(
    message: ReceivedMessage,
    kind: LinkHeader,
    snaplen: u32,
    index: impl FnOnce(&str) -> u32,
) -> Result<Option<Received>, Failure> {
    let malformed = || {
        Failure::protocol(
            "socket.recvmmsg: cannot read the broker's answer: a packet has no valid address",
        )
    };
    let link = LinkAddress::of(&message.address).ok_or_else(malformed)?;
    let packet_type = PacketType::from_number(link.packet_type);
    if link.hardware == LOOPBACK && packet_type == PacketType::Outgoing {
        return Ok(None);
    }
    let Bytes::Inline(data) = message.data else { return Err(malformed()) };
    let auxiliary = AuxiliaryData::find(&message.ancdata);
    let received = u32::try_from(message.n).unwrap_or(u32::MAX);
    let mut packet = Received {
        time: time(&message.ancdata).unwrap_or_else(now),
        length: auxiliary.as_ref().map_or(received, |auxiliary| auxiliary.length.max(received)),
        data,
        packet_type,
        interface: link.interface.to_owned(),
        protocol: link.protocol,
    };
    if let Some(tag) = auxiliary.and_then(|auxiliary| auxiliary.tag) {
        packet.restore(tag, kind);
    }
    packet.data.truncate(usize::try_from(snaplen).unwrap_or(usize::MAX));
    if kind == LinkHeader::Cooked {
        let header = cooked_header(packet.protocol, index(link.interface), &link);
        packet.length = packet.length.saturating_add(COOKED_HEADER);
        packet.data.splice(..0, header);
    }
    Ok(Some(packet))
}

impl Received {
    /// Inserts the VLAN tag again: the kernel removes the outermost tag from the frame.
    fn restore(&mut self, tag: Tag, kind: LinkHeader) {
        let Tag { protocol, control } = tag;
        let (at, bytes) = match kind {
            LinkHeader::Ethernet => (ETHERTYPE_AT, [protocol.to_be_bytes(), control.to_be_bytes()]),
            // The cooked header has the protocol of the tag; the packet begins with the rest of the tag.
            LinkHeader::Cooked => {
                let inner = std::mem::replace(&mut self.protocol, protocol);
                (0, [control.to_be_bytes(), inner.to_be_bytes()])
            }
        };
        if self.data.len() < at {
            return;
        }
        self.data.splice(at..at, bytes.concat());
        self.length = self.length.saturating_add(TAG);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tag {
    protocol: u16,
    /// The priority and the VLAN number.
    control: u16,
}

/// The ancillary data of `PACKET_AUXDATA` (`struct tpacket_auxdata` of `packet(7)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct AuxiliaryData {
    /// Bytes of the packet on the wire, without the tag.
    length: u32,
    tag: Option<Tag>,
}

impl AuxiliaryData {
    fn find(items: &[AncillaryItem]) -> Option<Self> {
        Self::read(ancillary(items, libc::SOL_PACKET, libc::PACKET_AUXDATA)?)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let long = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        let short = |at: usize| Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        let (status, length, control, protocol) = (long(0)?, long(4)?, short(16)?, short(18)?);
        let protocol = if status & TAG_PROTOCOL_VALID == 0 { VLAN } else { protocol };
        // Kernels before 3.0 set no bit for a tag, only its number.
        let tagged = status & TAG_VALID != 0 || control != 0;
        Some(Self { length, tag: tagged.then_some(Tag { protocol, control }) })
    }
}

/// Returns the current time in nanoseconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns the bytes of the first item of this level and type.
fn ancillary(items: &[AncillaryItem], level: i32, kind: i32) -> Option<&[u8]> {
    items.iter().find_map(|AncillaryItem(of, what, data)| {
        let AncillaryData::Bytes(Bytes::Inline(bytes)) = data else { return None };
        let wanted = (of.0, what.0) == (i64::from(level), i64::from(kind));
        wanted.then_some(bytes.as_slice())
    })
}

/// Returns when the kernel received the packet, from `SCM_TIMESTAMPNS`.
fn time(items: &[AncillaryItem]) -> Option<u64> {
    let bytes = ancillary(items, libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS)?;
    let bytes = bytes.get(..TIMESPEC)?;
    let (seconds, nanoseconds) = (bytes.first_chunk()?, bytes.last_chunk()?);
    let seconds = u64::from_ne_bytes(*seconds);
    seconds.checked_mul(SECOND)?.checked_add(u64::from_ne_bytes(*nanoseconds))
}

/// Encodes the header of a cooked capture, version 2. All numbers are in network byte order.
fn cooked_header(protocol: u16, index: u32, link: &LinkAddress<'_>) -> Vec<u8> {
    let address = match link.address {
        Some(AddressItem::Text(text)) => {
            let bytes = serde_json::from_value(Value::from(text.as_str()));
            if let Ok(Bytes::Inline(bytes)) = bytes { bytes } else { Vec::new() }
        }
        _ => Vec::new(),
    };
    let mut header = protocol.to_be_bytes().to_vec();
    // Reserved.
    header.extend([0; 2]);
    header.extend(index.to_be_bytes());
    header.extend(u16::try_from(link.hardware).unwrap_or(u16::MAX).to_be_bytes());
    header.push(u8::try_from(link.packet_type).unwrap_or(0));
    header.push(u8::try_from(address.len().min(8)).unwrap_or(0));
    header.extend(address.iter().take(8));
    header.resize(COOKED_HEADER as usize, 0);
    header
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// `struct tpacket_auxdata` of a packet of 60 bytes.
    fn auxiliary(status: u32, control: u16, protocol: u16) -> Vec<u8> {
        let mut bytes = [status, 60, 60, 0].map(u32::to_ne_bytes).concat();
        bytes.extend([control, protocol].map(u16::to_ne_bytes).concat());
        bytes
    }

    fn message(data: &[u8], auxiliary: &[u8]) -> ReceivedMessage {
        let auxiliary = serde_json::to_value(Bytes::Inline(auxiliary.to_vec())).unwrap();
        serde_json::from_value(json!({
            "data": Bytes::Inline(data.to_vec()),
            "n": data.len(), "eof": false,
            "ancdata": [[libc::SOL_PACKET, libc::PACKET_AUXDATA, auxiliary]],
            "flags": 0,
            "address": ["v0", 0x0800, 0, 1, "AgAAAAAB"],
        }))
        .unwrap()
    }

    #[test]
    fn vlan_tag_is_valid_by_its_bit_or_its_number() {
        let tag = |status, control, protocol| {
            AuxiliaryData::read(&auxiliary(status, control, protocol)).unwrap().tag
        };
        assert_eq!(tag(0, 0, 0), None);
        assert_eq!(tag(TAG_VALID, 0, 0), Some(Tag { protocol: VLAN, control: 0 }));
        let outer = Some(Tag { protocol: 0x88A8, control: 0xE007 });
        assert_eq!(tag(TAG_VALID | TAG_PROTOCOL_VALID, 0xE007, 0x88A8), outer);
        assert_eq!(tag(0, 7, 0), Some(Tag { protocol: VLAN, control: 7 }));
        assert_eq!(AuxiliaryData::read(&[0; 19]), None);
    }

    #[test]
    fn vlan_tag_follows_the_addresses_and_counts_as_length() {
        let frame = [&[1; 12][..], &[8, 0], &[9; 46]].concat();
        let tagged = auxiliary(TAG_VALID | TAG_PROTOCOL_VALID, 0x2064, 0x8100);
        let kept = |snaplen| {
            let message = message(&frame, &tagged);
            read(message, LinkHeader::Ethernet, snaplen, |_| 0).unwrap().unwrap()
        };
        let whole = kept(1000);
        assert_eq!(whole.data[10..18], [1, 1, 0x81, 0, 0x20, 0x64, 8, 0]);
        assert_eq!((whole.length, whole.data.len()), (64, 64));
        // The limit counts the tag too.
        assert_eq!((kept(60).length, kept(60).data.len()), (64, 60));
    }

    #[test]
    fn cooked_packet_has_index_and_tag() {
        let tagged = auxiliary(TAG_VALID | TAG_PROTOCOL_VALID, 0x0007, 0x88A8);
        let packet = read(message(&[0x45; 60], &tagged), LinkHeader::Cooked, 1000, |name| {
            assert_eq!(name, "v0");
            0x0102_0304
        });
        let packet = packet.unwrap().unwrap();
        assert_eq!(packet.data[..8], [0x88, 0xA8, 0, 0, 1, 2, 3, 4]);
        assert_eq!(packet.data[20..26], [0, 7, 8, 0, 0x45, 0x45]);
        assert_eq!((packet.length, packet.protocol), (84, 0x88A8));
    }
}
