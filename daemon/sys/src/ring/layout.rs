//! The headers of packets in a ring (`linux/if_packet.h`). All numbers but the protocol of an address are in host order.

use super::packet::{Packet, Tag};

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word))
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|word| u16::from_ne_bytes(*word))
}

/// The bytes of `struct sockaddr_ll`, which stands behind the header.
const ADDRESS: usize = 20;
/// The protocol of a tag without one.
const ETH_P_8021Q: u16 = 0x8100;

/// Where the fields of a header are.
pub(super) struct Fields {
    pub(super) status: usize,
    pub(super) length: usize,
    pub(super) captured: usize,
    pub(super) data: usize,
    pub(super) seconds: usize,
    pub(super) nanoseconds: usize,
    pub(super) tag: usize,
    pub(super) tag_protocol: usize,
    /// The length of the header, aligned.
    pub(super) header: usize,
}

/// `struct tpacket2_hdr`.
pub(super) const V2: Fields = Fields {
    status: 0,
    length: 4,
    captured: 8,
    data: 12,
    seconds: 16,
    nanoseconds: 20,
    tag: 24,
    tag_protocol: 26,
    header: 32,
};

/// `struct tpacket3_hdr`; the first word is the distance to the next packet.
pub(super) const V3: Fields = Fields {
    status: 20,
    length: 16,
    captured: 12,
    data: 24,
    seconds: 4,
    nanoseconds: 8,
    tag: 32,
    tag_protocol: 36,
    header: 48,
};

impl Fields {
    /// The bytes of header and address.
    pub(super) fn size(&self) -> usize {
        self.header + ADDRESS
    }

    /// The position of the data after the header, and its length.
    pub(super) fn data(&self, header: &[u8]) -> Option<(usize, usize)> {
        Some((usize::from(u16_at(header, self.data)?), u32_at(header, self.captured)? as usize))
    }

    /// A packet with these data.
    pub(super) fn packet<'a>(
        &self,
        header: &[u8],
        data: &'a [u8],
        losing: bool,
    ) -> Option<Packet<'a>> {
        let status = u32_at(header, self.status)?;
        let seconds = u64::from(u32_at(header, self.seconds)?);
        let control = u16_at(header, self.tag)?;
        let protocol = if status & libc::TP_STATUS_VLAN_TPID_VALID == 0 {
            ETH_P_8021Q
        } else {
            u16_at(header, self.tag_protocol)?
        };
        let tagged = status & libc::TP_STATUS_VLAN_VALID != 0;
        // sll_family, sll_protocol, sll_ifindex, sll_hatype, sll_pkttype.
        let address = header.get(self.header..)?;
        Some(Packet {
            time: seconds * 1_000_000_000 + u64::from(u32_at(header, self.nanoseconds)?),
            data,
            length: u32_at(header, self.length)?,
            tag: tagged.then_some(Tag { protocol, control }),
            interface: u32_at(address, 4)?,
            hardware: u16_at(address, 8)?,
            kind: *address.get(10)?,
            losing,
        })
    }
}
