//! What went through sockets, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// Messages and their bytes, counted.
#[derive(Debug, Default)]
pub struct Volume {
    /// Messages.
    pub packets: AtomicU64,
    /// Bytes of data.
    pub bytes: AtomicU64,
}

impl Volume {
    /// Counts messages with so many bytes together.
    pub(super) fn add(&self, packets: usize, bytes: usize) {
        self.packets.fetch_add(packets as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn include(&self, other: &Self) {
        self.packets.fetch_add(other.packets.load(Ordering::Relaxed), Ordering::Relaxed);
        self.bytes.fetch_add(other.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// What went through sockets, both ways.
#[derive(Debug, Default)]
pub struct Traffic {
    /// To the network.
    pub sent: Volume,
    /// From the network.
    pub received: Volume,
}

impl Traffic {
    /// Adds another's.
    pub(super) fn include(&self, other: &Self) {
        self.sent.include(&other.sent);
        self.received.include(&other.received);
    }
}
