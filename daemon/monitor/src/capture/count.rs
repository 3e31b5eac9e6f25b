//! Counts the packets of a capture. The kernel counts what it saw and dropped, and begins again with each reading.

use std::io;
use std::os::fd::BorrowedFd;

use sockbroker_sys::journal::Journal;
use sockbroker_sys::ring;

use super::order::Counts;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    seen: u64,
    dropped: u64,
    /// Packets that were read from the ring, and those of them that are in the stream.
    taken: u64,
    captured: u64,
    bytes: u64,
    /// Dropped packets that no packet in the stream reports yet.
    unreported: u64,
    /// The readings that are counted here.
    readings: u64,
}

impl Count {
    /// Reads what the kernel has counted since the last time. With a journal, the count MUST be noted afterwards.
    pub(super) fn read(
        &mut self,
        socket: BorrowedFd<'_>,
        journal: Option<&mut Journal>,
    ) -> io::Result<()> {
        let counted = match journal {
            Some(journal) => journal.statistics(socket, self.readings + 1)?,
            None => ring::statistics(socket)?,
        };
        self.add(counted);
        Ok(())
    }

    fn add(&mut self, counted: ring::Statistics) {
        self.readings += 1;
        self.seen += u64::from(counted.packets);
        self.dropped += u64::from(counted.drops);
        self.unreported += u64::from(counted.drops);
    }

    /// The numbers that are noted.
    pub(super) fn words(&self) -> [u64; 7] {
        let Self { seen, dropped, taken, captured, bytes, unreported, readings } = *self;
        [seen, dropped, taken, captured, bytes, unreported, readings]
    }

    /// What an earlier process has counted: what it noted, and what it read of the kernel and did not note.
    pub(super) fn resume(words: [u64; 7], journal: &Journal) -> io::Result<Self> {
        let [seen, dropped, taken, captured, bytes, unreported, readings] = words;
        let mut count = Self { seen, dropped, taken, captured, bytes, unreported, readings };
        count.add(journal.read_statistics(readings + 1)?);
        Ok(count)
    }

    /// A packet was read from the ring, and these bytes of it were written to the stream, with this number of drops.
    pub(super) fn note_captured(&mut self, bytes: usize, dropped: u64) {
        self.unreported = self.unreported.saturating_sub(dropped);
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
        self.seen.saturating_sub(self.dropped).saturating_sub(self.taken)
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
