//! Counters of the data that passed through sockets.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number of messages and of their bytes.
#[derive(Debug, Default)]
pub struct Volume {
    pub packets: AtomicU64,
    pub bytes: AtomicU64,
}

impl Volume {
    /// Adds messages with this number of bytes in all.
    pub(super) fn add(&self, packets: usize, bytes: usize) {
        self.packets.fetch_add(packets as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn include(&self, other: &Self) {
        self.packets.fetch_add(other.packets.load(Ordering::Relaxed), Ordering::Relaxed);
        self.bytes.fetch_add(other.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Messages and bytes in each direction.
#[derive(Debug, Default)]
pub struct Traffic {
    pub sent: Volume,
    pub received: Volume,
}

impl Traffic {
    pub(super) fn include(&self, other: &Self) {
        self.sent.include(&other.sent);
        self.received.include(&other.received);
    }
}
