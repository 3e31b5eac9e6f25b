//! How long the thread of a capture sleeps between two looks at the ring.

use std::time::Duration;

use sockbroker_sys::ring::{Geometry, Mode};

/// How long the thread sleeps after it has read packets. Meanwhile it is in no wait queue, so that the kernel wakes nobody
/// for each packet.
const SHORT: Duration = Duration::from_micros(500);
/// The same after many bytes, if the ring has room for as long: each sleep saves the client a wake-up too. A packet of a
/// capture that is live still arrives within a millisecond.
const BUSY: Duration = Duration::from_micros(800);
/// The same for rings of blocks, which wait for longer themselves.
const BULK: Duration = Duration::from_millis(2);
/// What counts as many bytes, and the smallest ring with room for them.
const BUSY_BYTES: usize = 16 << 10;
const LARGE_RING: usize = 4 << 20;

/// How long the reader of a ring sleeps after many bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moderation(Duration);

impl Moderation {
    pub(super) fn of(geometry: &Geometry) -> Self {
        Self(match geometry.mode {
            _ if geometry.bytes() < LARGE_RING => SHORT,
            Mode::Prompt => BUSY,
            Mode::Bulk => BULK,
        })
    }

    /// How long to sleep after this number of bytes was read.
    pub(super) fn after(self, bytes: usize) -> Duration {
        if bytes >= BUSY_BYTES { self.0 } else { SHORT }
    }
}
