//! Rings of slots: each packet is visible at once (`TPACKET_V2`).

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::geometry::Geometry;
use super::layout::{V2, u32_at};
use super::packet::{NOTED, Packet, Position, malformed};
use crate::call::retry;
use crate::mapping::Mapping;

/// The longest packet that is larger than a slot: the largest of `net.ipv4.gso_max_size` and a header.
const LARGEST: usize = (512 << 10) + 256;

/// How many slots ahead of the one that is read the next ones are loaded into the cache: the kernel has filled them on
/// another processor, and no processor predicts accesses that are so far from each other.
const AHEAD: u32 = 3;
/// The length of a line of the cache.
const LINE: usize = 64;

/// The reader of such a ring.
#[derive(Debug)]
pub(super) struct Prompt {
    mapping: Mapping,
    slot_bytes: usize,
    slots: u32,
    next: u32,
    /// The bytes of a slot that the last packet took: the next ones are probably as long.
    used: usize,
    /// A packet that is larger than a slot.
    large: Vec<u8>,
}

impl Prompt {
    pub(super) fn new(mapping: Mapping, geometry: &Geometry) -> Self {
        let slots = geometry.slots_of_block() * geometry.blocks;
        let slot_bytes = geometry.slot_bytes as usize;
        Self { mapping, slot_bytes, slots, next: 0, used: 0, large: Vec::new() }
    }

    pub(super) fn take<C, T>(
        &mut self,
        socket: BorrowedFd<'_>,
        context: &mut C,
        function: impl FnOnce(&mut C, Packet<'_>) -> T,
        note: Option<impl FnMut(&mut C, Option<&T>, Position)>,
    ) -> io::Result<Option<T>> {
        let start = self.next as usize * self.slot_bytes;
        let status = self.mapping.status(start).ok_or_else(malformed)?;
        // What the kernel wrote before it gave the slot away is visible after this.
        let value = status.load(Ordering::Acquire);
        if value & libc::TP_STATUS_USER == 0 {
            return Ok(None);
        }
        self.prefetch();
        let slot = self.mapping.bytes(start, self.slot_bytes).ok_or_else(malformed)?;
        let (header, _) = slot.split_at_checked(V2.size()).ok_or_else(malformed)?;
        let (data, length) = V2.data(header).ok_or_else(malformed)?;
        let in_slot = slot.get(data..).and_then(|rest| rest.get(..length)).ok_or_else(malformed)?;
        self.used = data.saturating_add(length);
        let whole = if value & libc::TP_STATUS_COPY == 0 {
            None
        } else {
            let peek = if note.is_some() { MsgFlags::MSG_PEEK } else { MsgFlags::empty() };
            receive(socket, &mut self.large, peek)?
        };
        let is_queued = note.is_some() && whole.is_some();
        let losing = u32_at(header, 0).unwrap_or(0) & libc::TP_STATUS_LOSING != 0;
        let packet = V2.packet(header, whole.unwrap_or(in_slot), losing).ok_or_else(malformed)?;
        let result = function(context, packet);
        let next = if self.next + 1 == self.slots { 0 } else { self.next + 1 };
        if let Some(mut note) = note {
            status.store(value | NOTED, Ordering::Release);
            note(context, Some(&result), Position { next, ..Position::default() });
            if is_queued {
                consume(socket)?;
            }
        }
        // Everything that was read of the slot was read before this.
        status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = next;
        Ok(Some(result))
    }

    pub(super) fn position(&self) -> Position {
        Position { next: self.next, ..Position::default() }
    }

    /// Continues at a position, and gives the slot before it back to the kernel, if the earlier process did not.
    pub(super) fn resume(&mut self, socket: BorrowedFd<'_>, position: Position) -> io::Result<()> {
        if position.next >= self.slots {
            return Err(malformed());
        }
        self.next = position.next;
        let last = if self.next == 0 { self.slots - 1 } else { self.next - 1 };
        let start = last as usize * self.slot_bytes;
        let status = self.mapping.status(start).ok_or_else(malformed)?;
        let value = status.load(Ordering::Acquire);
        if value & libc::TP_STATUS_USER == 0 || value & NOTED == 0 {
            return Ok(());
        }
        if value & libc::TP_STATUS_COPY != 0 {
            // The whole packet is at the head of the queue, unless the earlier process has taken it out.
            let slot = self.mapping.bytes(start, self.slot_bytes).ok_or_else(malformed)?;
            let (data, length) = V2.data(slot).ok_or_else(malformed)?;
            let in_slot =
                slot.get(data..).and_then(|rest| rest.get(..length)).ok_or_else(malformed)?;
            let queued = receive(socket, &mut self.large, MsgFlags::MSG_PEEK)?;
            if queued.is_some_and(|queued| queued.starts_with(in_slot)) {
                consume(socket)?;
            }
        }
        status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        Ok(())
    }

    /// Loads a slot into the cache that is read soon.
    fn prefetch(&self) {
        let ahead = self.next.wrapping_add(AHEAD);
        let ahead = if ahead >= self.slots { ahead.wrapping_sub(self.slots) } else { ahead };
        let start = (ahead as usize).saturating_mul(self.slot_bytes);
        for line in (0..self.used.min(self.slot_bytes)).step_by(LINE) {
            self.mapping.prefetch(start.saturating_add(line));
        }
    }
}

/// The whole packet, if a slot has a part of it. The kernel queues these packets on the socket, in order.
fn receive<'a>(
    socket: BorrowedFd<'_>,
    large: &'a mut Vec<u8>,
    peek: MsgFlags,
) -> io::Result<Option<&'a [u8]>> {
    use std::os::fd::AsRawFd as _;
    large.resize(LARGEST, 0);
    let flags = MsgFlags::MSG_DONTWAIT | peek;
    match retry(|| Ok(recv(socket.as_raw_fd(), large, flags)?)) {
        Ok(length) => Ok(large.get(..length)),
        Err(error) if error.raw_os_error() == Some(Errno::EAGAIN as i32) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes the packet at the head of the queue out.
fn consume(socket: BorrowedFd<'_>) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
    retry(|| Ok(recv(socket.as_raw_fd(), &mut [], flags)?)).map(drop)
}
