//! Rings of blocks with packets of any length (`TPACKET_V3`).

use std::io;
use std::sync::atomic::Ordering;

use super::geometry::Geometry;
use super::layout::{V3, u32_at};
use super::packet::{NOTED, Packet, Position, malformed};
use crate::mapping::Mapping;

/// Fields of `struct tpacket_block_desc`.
const STATUS: usize = 8;
const PACKETS: usize = 12;
const FIRST: usize = 16;
const DESCRIPTION: usize = 48;

/// The reader of such a ring.
#[derive(Debug)]
pub(super) struct Bulk {
    mapping: Mapping,
    block_bytes: usize,
    blocks: u32,
    next: u32,
    /// What is left of the block that is being read.
    open: Option<Open>,
}

/// A block that has packets left.
#[derive(Debug, Clone, Copy)]
struct Open {
    packets: u32,
    /// The position of the next one in the block.
    offset: usize,
    /// Whether packets were dropped before this block, if that was not reported yet.
    losing: bool,
}

impl Bulk {
    pub(super) fn new(mapping: Mapping, geometry: &Geometry) -> Self {
        let (block_bytes, blocks) = (geometry.block_bytes as usize, geometry.blocks);
        Self { mapping, block_bytes, blocks, next: 0, open: None }
    }

    pub(super) fn take<C, T>(
        &mut self,
        context: &mut C,
        function: impl FnOnce(&mut C, Packet<'_>) -> T,
        mut note: Option<impl FnMut(&mut C, Option<&T>, Position)>,
    ) -> io::Result<Option<T>> {
        let (start, open) = loop {
            let start = self.next as usize * self.block_bytes;
            let open = match self.open {
                Some(open) => open,
                None => match self.begin(start)? {
                    Some(open) => open,
                    None => return Ok(None),
                },
            };
            if open.packets > 0 {
                break (start, open);
            }
            // The kernel passes blocks without packets too, after their time.
            if let Some(note) = &mut note {
                self.mark(start)?;
                note(context, None, self.after_block());
            }
            self.release(start)?;
        };
        let block = self.mapping.bytes(start, self.block_bytes).ok_or_else(malformed)?;
        let rest = block.get(open.offset..).ok_or_else(malformed)?;
        let (header, _) = rest.split_at_checked(V3.size()).ok_or_else(malformed)?;
        let (data, length) = V3.data(header).ok_or_else(malformed)?;
        let data = rest.get(data..).and_then(|rest| rest.get(..length)).ok_or_else(malformed)?;
        let distance = u32_at(header, 0).ok_or_else(malformed)? as usize;
        let packet = V3.packet(header, data, open.losing).ok_or_else(malformed)?;
        let result = function(context, packet);
        let packets = open.packets - 1;
        let offset = open.offset + distance;
        self.open = Some(Open { packets, offset, losing: false });
        if let Some(note) = &mut note {
            let position = if packets == 0 {
                self.mark(start)?;
                self.after_block()
            } else {
                let offset = u32::try_from(offset).map_err(|_error| malformed())?;
                Position { next: self.next, left: packets, offset }
            };
            note(context, Some(&result), position);
        }
        if packets == 0 {
            self.release(start)?;
        }
        Ok(Some(result))
    }

    pub(super) fn position(&self) -> Position {
        let open = self.open.filter(|open| open.packets > 0);
        let offset = open.map_or(0, |open| u32::try_from(open.offset).unwrap_or(u32::MAX));
        Position { next: self.next, left: open.map_or(0, |open| open.packets), offset }
    }

    /// Continues at a position, and gives the block before it back to the kernel, if the earlier process did not.
    pub(super) fn resume(&mut self, position: Position) -> io::Result<()> {
        let Position { next, left, offset } = position;
        if next >= self.blocks {
            return Err(malformed());
        }
        self.next = next;
        let (packets, offset) = (left, offset as usize);
        self.open = (left > 0).then_some(Open { packets, offset, losing: false });
        let last = if next == 0 { self.blocks - 1 } else { next - 1 };
        let status = self.mapping.status(last as usize * self.block_bytes + STATUS);
        let status = status.ok_or_else(malformed)?;
        let value = status.load(Ordering::Acquire);
        if value & libc::TP_STATUS_USER != 0 && value & NOTED != 0 {
            status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        }
        Ok(())
    }

    fn after_block(&self) -> Position {
        let next = if self.next + 1 == self.blocks { 0 } else { self.next + 1 };
        Position { next, ..Position::default() }
    }

    /// Marks a block as read, before that is noted.
    fn mark(&self, start: usize) -> io::Result<()> {
        let status = self.mapping.status(start + STATUS).ok_or_else(malformed)?;
        status.fetch_or(NOTED, Ordering::Release);
        Ok(())
    }

    /// Begins to read a block, if the kernel has passed it.
    fn begin(&mut self, start: usize) -> io::Result<Option<Open>> {
        let status = self.mapping.status(start + STATUS).ok_or_else(malformed)?;
        // What the kernel wrote before it passed the block is visible after this.
        let value = status.load(Ordering::Acquire);
        if value & libc::TP_STATUS_USER == 0 {
            return Ok(None);
        }
        let description = self.mapping.bytes(start, DESCRIPTION).ok_or_else(malformed)?;
        let packets = u32_at(description, PACKETS).ok_or_else(malformed)?;
        let offset = u32_at(description, FIRST).ok_or_else(malformed)? as usize;
        let losing = value & libc::TP_STATUS_LOSING != 0;
        let open = Open { packets, offset, losing };
        self.open = Some(open);
        Ok(Some(open))
    }

    /// Gives a block back to the kernel.
    fn release(&mut self, start: usize) -> io::Result<()> {
        let status = self.mapping.status(start + STATUS).ok_or_else(malformed)?;
        // Everything that was read of the block was read before this.
        status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.open = None;
        self.next = if self.next + 1 == self.blocks { 0 } else { self.next + 1 };
        Ok(())
    }
}
