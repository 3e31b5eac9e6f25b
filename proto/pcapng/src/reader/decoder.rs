//! Decodes blocks from bytes, without I/O.

use crate::link_type::LinkType;
use crate::number::{
    BLOCK_OVERHEAD, BYTE_ORDER_MAGIC, ENHANCED_PACKET, MAX_BLOCK_BYTES, PCAP_MICROSECONDS,
    PCAP_NANOSECONDS, SECTION_FIELDS, SECTION_HEADER,
};
use crate::reader::block::{Block, InterfaceBlock, PacketBlock};
use crate::reader::cursor::{ByteOrder, Cursor};
use crate::reader::error::FormatError;
use crate::reader::section::Section;

/// The length of the header of a pcap file.
const PCAP_HEADER: usize = 24;
/// The length of the header of a packet in it.
const PCAP_RECORD: usize = 16;

/// Decodes a capture, one block after the other.
///
/// [`required`](Self::required) returns how many bytes the next block needs, and [`decode`](Self::decode) decodes it. After
/// an error the capture cannot be decoded further.
#[derive(Debug, Default)]
pub struct Decoder {
    format: Format,
}

#[derive(Debug, Default)]
enum Format {
    /// Nothing was read.
    #[default]
    Unknown,
    Pcapng(Section),
    Pcap {
        order: ByteOrder,
        link_type: LinkType,
        /// Nanoseconds of the unit of the second field of a time.
        unit: u64,
    },
}

/// The length and the byte order of a block.
#[derive(Debug, Clone, Copy)]
struct Shape {
    kind: u32,
    length: u32,
    order: ByteOrder,
}

impl Decoder {
    /// A decoder at the start of a capture.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the length of the next block, or a greater number than that of the given bytes if these do not
    /// contain the length.
    pub fn required(&self, input: &[u8]) -> Result<usize, FormatError> {
        match &self.format {
            Format::Unknown => {
                let Some(magic) = first_word(ByteOrder::Little, input) else { return Ok(4) };
                match pcap_magic(magic) {
                    Some(_) => Ok(PCAP_HEADER),
                    None if magic == SECTION_HEADER => block_length(ByteOrder::Little, input),
                    None => Err(FormatError::NotACapture { magic }),
                }
            }
            Format::Pcapng(section) => block_length(section.order, input),
            Format::Pcap { order, .. } => {
                let Some(header) = input.get(..PCAP_RECORD) else { return Ok(PCAP_RECORD) };
                let length = header.get(8..).and_then(|fields| first_word(*order, fields));
                let length = length.unwrap_or_default();
                let bytes = usize::try_from(length).unwrap_or(usize::MAX);
                if bytes > MAX_BLOCK_BYTES - PCAP_RECORD {
                    return Err(FormatError::BlockTooLong { length });
                }
                Ok(bytes.saturating_add(PCAP_RECORD))
            }
        }
    }

    /// Decodes the block at the start of the bytes, which are at least as many as [`required`](Self::required) returns,
    /// and returns its length. With fewer bytes it returns [`FormatError::Truncated`].
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> Result<(Block<'a>, usize), FormatError> {
        let length = self.required(input)?;
        let Some(block) = input.get(..length) else {
            return Err(FormatError::Truncated { missing: length.saturating_sub(input.len()) });
        };
        let decoded = match &mut self.format {
            Format::Unknown => {
                let magic = first_word(ByteOrder::Little, block).unwrap_or_default();
                match pcap_magic(magic) {
                    Some((order, unit)) => self.begin_pcap(order, unit, block)?,
                    None => self.pcapng_block(block)?,
                }
            }
            Format::Pcapng(_) => self.pcapng_block(block)?,
            Format::Pcap { order, link_type, unit } => {
                Block::Packet(pcap_packet(*order, *link_type, *unit, block)?)
            }
        };
        Ok((decoded, length))
    }

    /// Like [`decode`](Self::decode), but does not decode packets: of a packet of pcapng it checks the lengths alone.
    /// Returns whether the block is a packet, and its length; `None` if the bytes do not contain the whole block.
    pub fn pass(&mut self, input: &[u8]) -> Result<Option<(bool, usize)>, FormatError> {
        if let Format::Pcapng(section) = &self.format
            && let order = section.order
            && let Some(kind) = first_word(order, input)
            && kind == ENHANCED_PACKET
        {
            let bytes = block_length(order, input)?;
            let Some(block) = input.get(..bytes) else { return Ok(None) };
            let [first, last] = [block.get(4..), block.get(bytes.saturating_sub(4)..)]
                .map(|field| field.and_then(|field| first_word(order, field)).unwrap_or_default());
            if first != last {
                return Err(FormatError::LengthMismatch { first, last });
            }
            return Ok(Some((true, bytes)));
        }
        if self.required(input)? > input.len() {
            return Ok(None);
        }
        let (block, bytes) = self.decode(input)?;
        Ok(Some((matches!(block, Block::Packet(_)), bytes)))
    }

    fn pcapng_block<'a>(&mut self, block: &'a [u8]) -> Result<Block<'a>, FormatError> {
        let order = match &self.format {
            Format::Pcapng(section) => section.order,
            Format::Unknown | Format::Pcap { .. } => ByteOrder::Little,
        };
        let too_few = FormatError::Truncated { missing: BLOCK_OVERHEAD };
        let Some(Shape { kind, length: first, order }) = shape(order, block)? else {
            return Err(too_few);
        };
        let Some((rest, last)) = block.split_last_chunk() else { return Err(too_few) };
        let last = order.u32(*last);
        if first != last {
            return Err(FormatError::LengthMismatch { first, last });
        }
        let body = rest.get(8..).unwrap_or_default();
        match &mut self.format {
            Format::Pcapng(section) if kind != SECTION_HEADER => section.block(kind, body),
            Format::Pcapng(_) | Format::Unknown | Format::Pcap { .. } => {
                let (section, header) = Section::begin(order, body)?;
                self.format = Format::Pcapng(section);
                Ok(Block::Section(header))
            }
        }
    }

    fn begin_pcap<'a>(
        &mut self,
        order: ByteOrder,
        unit: u64,
        header: &'a [u8],
    ) -> Result<Block<'a>, FormatError> {
        let mut cursor = Cursor::new(order, header);
        let mut fields = || {
            let _magic = cursor.u32()?;
            let version = (cursor.u16()?, cursor.u16()?);
            let _reserved = cursor.u64()?;
            Some((version, cursor.u32()?, cursor.u32()?))
        };
        let Some(((major, minor), snaplen, link_type)) = fields() else {
            return Err(FormatError::Truncated { missing: 1 });
        };
        if (major, minor) != (2, 4) {
            return Err(FormatError::Version { major, minor });
        }
        // The upper half describes the checksums of frames.
        let link_type = LinkType(u16::try_from(link_type & 0xFFFF).unwrap_or_default());
        self.format = Format::Pcap { order, link_type, unit };
        Ok(Block::Interface(InterfaceBlock::new(0, link_type, snaplen)))
    }
}

fn first_word(order: ByteOrder, bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|word| order.u32(*word))
}

/// Returns byte order and unit of a pcap file by its first four bytes.
fn pcap_magic(magic: u32) -> Option<(ByteOrder, u64)> {
    let order = |number: u32, unit| {
        let orders = [(number, ByteOrder::Little), (number.swap_bytes(), ByteOrder::Big)];
        orders.into_iter().find(|(number, _)| *number == magic).map(|(_, order)| (order, unit))
    };
    order(PCAP_NANOSECONDS, 1).or_else(|| order(PCAP_MICROSECONDS, 1_000))
}

/// Returns the length of a block of pcapng, or a greater number than that of the bytes.
fn block_length(order: ByteOrder, input: &[u8]) -> Result<usize, FormatError> {
    let Some(Shape { kind, length, .. }) = shape(order, input)? else {
        return Ok(BLOCK_OVERHEAD);
    };
    let bytes = usize::try_from(length).unwrap_or(usize::MAX);
    let minimum =
        if kind == SECTION_HEADER { BLOCK_OVERHEAD + SECTION_FIELDS } else { BLOCK_OVERHEAD };
    if bytes < minimum {
        return Err(FormatError::BlockTooShort { kind, length, minimum });
    }
    if bytes > MAX_BLOCK_BYTES {
        return Err(FormatError::BlockTooLong { length });
    }
    if !bytes.is_multiple_of(4) {
        return Err(FormatError::LengthNotAligned { length });
    }
    Ok(bytes)
}

/// Reads type and length of a block, and the byte order if a section begins. `None` if there are too few bytes.
fn shape(order: ByteOrder, input: &[u8]) -> Result<Option<Shape>, FormatError> {
    let Some(([kind, length, third], _)) = input.as_chunks::<4>().0.split_first_chunk() else {
        return Ok(None);
    };
    let (kind, length, third) = (*kind, *length, *third);
    if kind != SECTION_HEADER.to_le_bytes() {
        return Ok(Some(Shape { kind: order.u32(kind), length: order.u32(length), order }));
    }
    // The type of a section header is the same in both orders.
    let orders = [ByteOrder::Little, ByteOrder::Big];
    let Some(order) = orders.into_iter().find(|order| order.u32(third) == BYTE_ORDER_MAGIC) else {
        return Err(FormatError::ByteOrder { magic: u32::from_le_bytes(third) });
    };
    Ok(Some(Shape { kind: SECTION_HEADER, length: order.u32(length), order }))
}

fn pcap_packet(
    order: ByteOrder,
    link_type: LinkType,
    unit: u64,
    record: &[u8],
) -> Result<PacketBlock<'_>, FormatError> {
    let mut cursor = Cursor::new(order, record);
    let mut fields = || Some((cursor.u32()?, cursor.u32()?, cursor.u32()?, cursor.u32()?));
    let Some((seconds, fraction, _captured, length)) = fields() else {
        return Err(FormatError::Truncated { missing: 1 });
    };
    // Below 2^32 × 10^9 + 2^32 × 10^3, which fits.
    let time = u64::from(seconds)
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::from(fraction).saturating_mul(unit));
    Ok(PacketBlock::new(0, link_type, Some(time), cursor.rest(), length))
}
