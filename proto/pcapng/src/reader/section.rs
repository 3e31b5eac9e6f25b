//! The blocks of a section of pcapng.

use crate::link_type::LinkType;
use crate::number::{
    BLOCK_OVERHEAD, COMMENT, ENHANCED_PACKET, EPB_DROPCOUNT, EPB_FLAGS, EPB_PROCESSID_THREADID,
    IF_DESCRIPTION, IF_FILTER, IF_HARDWARE, IF_MACADDR, IF_NAME, IF_OS, IF_SPEED, IF_TSOFFSET,
    IF_TSRESOL, INTERFACE_DESCRIPTION, INTERFACE_STATISTICS, ISB_ENDTIME, ISB_FILTERACCEPT,
    ISB_IFDROP, ISB_IFRECV, ISB_OSDROP, ISB_STARTTIME, ISB_USRDELIV, MAX_INTERFACES, PACKET,
    SECTION_FIELDS, SECTION_HEADER, SHB_HARDWARE, SHB_OS, SHB_USERAPPL, SIMPLE_PACKET,
};
use crate::packet::{PacketFlags, Process};
use crate::reader::block::{Block, InterfaceBlock, PacketBlock, SectionBlock, StatisticsBlock};
use crate::reader::clock::Clock;
use crate::reader::cursor::{ByteOrder, Cursor};
use crate::reader::error::FormatError;

/// A section and its interfaces.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) order: ByteOrder,
    interfaces: Vec<Interface>,
}

/// What the blocks of an interface depend on.
#[derive(Debug, Clone, Copy)]
struct Interface {
    link_type: LinkType,
    snaplen: u32,
    clock: Clock,
}

/// The error of a block whose body is shorter than the fields of its type, which have `fixed` bytes.
fn too_short(kind: u32, body: &[u8], fixed: usize) -> FormatError {
    let length = u32::try_from(body.len().saturating_add(BLOCK_OVERHEAD)).unwrap_or(u32::MAX);
    FormatError::BlockTooShort { kind, length, minimum: fixed.saturating_add(BLOCK_OVERHEAD) }
}

impl Section {
    /// Begins with the body of a section header.
    pub(super) fn begin(
        order: ByteOrder,
        body: &[u8],
    ) -> Result<(Self, SectionBlock<'_>), FormatError> {
        let mut cursor = Cursor::new(order, body);
        let mut fields = || {
            let _magic = cursor.u32()?;
            let version = (cursor.u16()?, cursor.u16()?);
            let _length = cursor.u64()?;
            Some(version)
        };
        let short = || too_short(SECTION_HEADER, body, SECTION_FIELDS);
        let (major, minor) = fields().ok_or_else(short)?;
        // Version 1.2 means 1.0 (section 4.1 of the draft).
        if major != 1 || !matches!(minor, 0 | 2) {
            return Err(FormatError::Version { major, minor });
        }
        let mut block =
            SectionBlock { order, hardware: None, os: None, application: None, comment: None };
        while let Some(option) = cursor.option()? {
            match option.code {
                COMMENT => keep_first(&mut block.comment, option.value),
                SHB_HARDWARE => keep_first(&mut block.hardware, option.value),
                SHB_OS => keep_first(&mut block.os, option.value),
                SHB_USERAPPL => keep_first(&mut block.application, option.value),
                _ => (),
            }
        }
        Ok((Self { order, interfaces: Vec::new() }, block))
    }

    /// Decodes a block by its type and body.
    pub(super) fn block<'a>(
        &mut self,
        kind: u32,
        body: &'a [u8],
    ) -> Result<Block<'a>, FormatError> {
        Ok(match kind {
            INTERFACE_DESCRIPTION => Block::Interface(self.describe(body)?),
            ENHANCED_PACKET => Block::Packet(self.enhanced_packet(body)?),
            SIMPLE_PACKET => Block::Packet(self.simple_packet(body)?),
            PACKET => Block::Packet(self.obsolete_packet(body)?),
            INTERFACE_STATISTICS => Block::Statistics(self.statistics(body)?),
            _ => Block::Other { kind, body },
        })
    }

    fn interface(&self, interface: u32) -> Result<Interface, FormatError> {
        let interfaces = self.interfaces.len();
        let unknown = FormatError::UnknownInterface { interface, interfaces };
        let index = usize::try_from(interface).unwrap_or(usize::MAX);
        self.interfaces.get(index).copied().ok_or(unknown)
    }

    fn describe<'a>(&mut self, body: &'a [u8]) -> Result<InterfaceBlock<'a>, FormatError> {
        if self.interfaces.len() >= MAX_INTERFACES {
            return Err(FormatError::TooManyInterfaces);
        }
        let mut cursor = Cursor::new(self.order, body);
        let mut fields = || Some((cursor.u16()?, cursor.u16()?, cursor.u32()?));
        let (link_type, _reserved, snaplen) =
            fields().ok_or_else(|| too_short(INTERFACE_DESCRIPTION, body, 8))?;
        let link_type = LinkType(link_type);
        let mut clock = Clock::DEFAULT;
        let number = u32::try_from(self.interfaces.len()).unwrap_or(u32::MAX);
        let mut block = InterfaceBlock::new(number, link_type, snaplen);
        while let Some(option) = cursor.option()? {
            match option.code {
                COMMENT => keep_first(&mut block.comment, option.value),
                IF_NAME => keep_first(&mut block.name, option.value),
                IF_DESCRIPTION => keep_first(&mut block.description, option.value),
                IF_MACADDR => block.mac = Some(option.array()?),
                IF_SPEED => block.speed = Some(option.u64()?),
                IF_TSRESOL => [clock.resolution] = option.array()?,
                IF_TSOFFSET => clock.offset = option.u64()?.cast_signed(),
                IF_FILTER => {
                    // Another first byte means that the filter is not a text.
                    if let Some((0, text)) = option.value.split_first() {
                        keep_first(&mut block.filter, text);
                    }
                }
                IF_OS => keep_first(&mut block.os, option.value),
                IF_HARDWARE => keep_first(&mut block.hardware, option.value),
                _ => (),
            }
        }
        self.interfaces.push(Interface { link_type, snaplen, clock });
        Ok(block)
    }

    fn enhanced_packet<'a>(&self, body: &'a [u8]) -> Result<PacketBlock<'a>, FormatError> {
        let mut cursor = Cursor::new(self.order, body);
        let mut fields = || Some((cursor.u32()?, cursor.time()?, cursor.u32()?, cursor.u32()?));
        let (interface, ticks, captured, length) =
            fields().ok_or_else(|| too_short(ENHANCED_PACKET, body, 20))?;
        let Interface { link_type, clock, .. } = self.interface(interface)?;
        let time = Some(clock.nanoseconds(ticks)?);
        let data = data(&mut cursor, captured)?;
        with_options(PacketBlock::new(interface, link_type, time, data, length), cursor)
    }

    /// The packet block of early drafts: as the enhanced one, with a small number of the interface and the packets
    /// that were dropped.
    fn obsolete_packet<'a>(&self, body: &'a [u8]) -> Result<PacketBlock<'a>, FormatError> {
        let mut cursor = Cursor::new(self.order, body);
        let mut fields =
            || Some((cursor.u16()?, cursor.u16()?, cursor.time()?, cursor.u32()?, cursor.u32()?));
        let (interface, dropped, ticks, captured, length) =
            fields().ok_or_else(|| too_short(PACKET, body, 20))?;
        let interface = u32::from(interface);
        let Interface { link_type, clock, .. } = self.interface(interface)?;
        let time = Some(clock.nanoseconds(ticks)?);
        let data = data(&mut cursor, captured)?;
        let block = PacketBlock {
            // The highest value means that the number is not known.
            dropped: Some(u64::from(dropped)).filter(|_| dropped != u16::MAX),
            ..PacketBlock::new(interface, link_type, time, data, length)
        };
        with_options(block, cursor)
    }

    /// A packet of the first interface, without a time.
    fn simple_packet<'a>(&self, body: &'a [u8]) -> Result<PacketBlock<'a>, FormatError> {
        let mut cursor = Cursor::new(self.order, body);
        let length = cursor.u32().ok_or_else(|| too_short(SIMPLE_PACKET, body, 4))?;
        let Interface { link_type, snaplen, .. } = self.interface(0)?;
        let captured = if snaplen == 0 { length } else { length.min(snaplen) };
        Ok(PacketBlock::new(0, link_type, None, data(&mut cursor, captured)?, length))
    }

    fn statistics<'a>(&self, body: &'a [u8]) -> Result<StatisticsBlock<'a>, FormatError> {
        let mut cursor = Cursor::new(self.order, body);
        let mut fields = || Some((cursor.u32()?, cursor.time()?));
        let (interface, ticks) =
            fields().ok_or_else(|| too_short(INTERFACE_STATISTICS, body, 12))?;
        let clock = self.interface(interface)?.clock;
        let mut block = StatisticsBlock {
            interface,
            time: clock.nanoseconds(ticks)?,
            start: None,
            end: None,
            received: None,
            dropped: None,
            accepted: None,
            os_dropped: None,
            delivered: None,
            comment: None,
        };
        while let Some(option) = cursor.option()? {
            match option.code {
                COMMENT => keep_first(&mut block.comment, option.value),
                ISB_STARTTIME => block.start = Some(clock.nanoseconds(option.time()?)?),
                ISB_ENDTIME => block.end = Some(clock.nanoseconds(option.time()?)?),
                ISB_IFRECV => block.received = Some(option.u64()?),
                ISB_IFDROP => block.dropped = Some(option.u64()?),
                ISB_FILTERACCEPT => block.accepted = Some(option.u64()?),
                ISB_OSDROP => block.os_dropped = Some(option.u64()?),
                ISB_USRDELIV => block.delivered = Some(option.u64()?),
                _ => (),
            }
        }
        Ok(block)
    }
}

/// Takes the captured bytes and their padding.
fn data<'a>(cursor: &mut Cursor<'a>, captured: u32) -> Result<&'a [u8], FormatError> {
    let available = cursor.rest().len();
    let bytes = usize::try_from(captured).unwrap_or(usize::MAX);
    let data = cursor.bytes(bytes).ok_or(FormatError::DataTooLong { captured, available })?;
    // A body is a multiple of four bytes, so the padding is complete.
    let padding = bytes.next_multiple_of(4).abs_diff(bytes);
    let _padding = cursor.bytes(padding);
    Ok(data)
}

fn with_options<'a>(
    mut block: PacketBlock<'a>,
    mut cursor: Cursor<'a>,
) -> Result<PacketBlock<'a>, FormatError> {
    while let Some(option) = cursor.option()? {
        match option.code {
            COMMENT => keep_first(&mut block.comment, option.value),
            EPB_FLAGS => block.flags = Some(PacketFlags(option.u32()?)),
            EPB_DROPCOUNT => block.dropped = Some(option.u64()?),
            EPB_PROCESSID_THREADID => {
                let both = option.time()?;
                let [process, thread] = [both >> 32, both & 0xFFFF_FFFF]
                    .map(|half| u32::try_from(half).unwrap_or_default());
                block.process = Some(Process { process, thread });
            }
            _ => (),
        }
    }
    Ok(block)
}

fn keep_first<'a>(kept: &mut Option<&'a [u8]>, value: &'a [u8]) {
    kept.get_or_insert(value);
}
