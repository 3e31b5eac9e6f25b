//! Rings of slots: each packet is visible at once (`TPACKET_V2`).

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::geometry::Geometry;
use super::layout::{V2, u32_at};
use super::mapping::Mapping;
use super::packet::{Packet, malformed};
use crate::call::retry;

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

    pub(super) fn take<T>(
        &mut self,
        socket: BorrowedFd<'_>,
        function: impl FnOnce(Packet<'_>) -> T,
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
            receive(socket, &mut self.large)?
        };
        let losing = u32_at(header, 0).unwrap_or(0) & libc::TP_STATUS_LOSING != 0;
        let packet = V2.packet(header, whole.unwrap_or(in_slot), losing).ok_or_else(malformed)?;
        let result = function(packet);
        // Everything that was read of the slot was read before this.
        status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = if self.next + 1 == self.slots { 0 } else { self.next + 1 };
        Ok(Some(result))
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
fn receive<'a>(socket: BorrowedFd<'_>, large: &'a mut Vec<u8>) -> io::Result<Option<&'a [u8]>> {
    use std::os::fd::AsRawFd as _;
    large.resize(LARGEST, 0);
    let flags = MsgFlags::MSG_DONTWAIT;
    match retry(|| Ok(recv(socket.as_raw_fd(), large, flags)?)) {
        Ok(length) => Ok(large.get(..length)),
        Err(error) if error.raw_os_error() == Some(Errno::EAGAIN as i32) => Ok(None),
        Err(error) => Err(error),
    }
}
