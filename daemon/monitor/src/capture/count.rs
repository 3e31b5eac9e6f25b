//! Counts the packets of a capture. The kernel counts what it saw and dropped, and begins again with each reading.

use std::io;
use std::os::fd::BorrowedFd;

use sockbroker_sys::ring;

use super::order::Counts;

#[derive(Debug, Default)]
pub(super) struct Count {
    seen: u64,
    dropped: u64,
    /// Packets that were read from the ring, and those of them that are in the stream.
    taken: u64,
    captured: u64,
    bytes: u64,
    /// Dropped packets that no packet in the stream reports yet.
    unreported: u64,
}

impl Count {
    /// Reads what the kernel has counted since the last time.
    pub(super) fn read(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let counted = ring::statistics(socket)?;
        self.seen += u64::from(counted.packets);
        self.dropped += u64::from(counted.drops);
        self.unreported += u64::from(counted.drops);
        Ok(())
    }

    /// A packet was read from the ring, and these bytes of it were written to the stream, with this number of drops.
    pub(super) fn note_captured(&mut self, bytes: usize, dropped: u64) {
        self.unreported -= dropped;
        self.taken += 1;
        self.captured += 1;
        self.bytes += bytes as u64;
    }

    /// Packets that were written do not reach the client.
    pub(super) fn note_lost(&mut self, packets: u64, bytes: u64) {
        self.captured = self.captured.saturating_sub(packets);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// The drops that the next packet reports.
    pub(super) fn unreported(&self) -> u64 {
        self.unreported
    }

    /// Packets that the kernel had written to the ring at the last reading, and that were not read from it.
    pub(super) fn in_ring(&self) -> u64 {
        (self.seen - self.dropped).saturating_sub(self.taken)
    }

    pub(super) fn captured(&self) -> (u64, u64) {
        (self.captured, self.bytes)
    }

    /// The counts, exact if they were read after the last packet was taken.
    pub(super) fn counts(&self) -> Counts {
        let Self { seen, dropped, captured, bytes, .. } = *self;
        Counts { seen, captured, dropped, unread: seen.saturating_sub(captured + dropped), bytes }
    }
}
