//! The messages between a worker and its reader, and between the opener and the reader.

use serde::{Deserialize, Serialize};

use crate::capture::{Counts, Ended, Failure, Live, Opened, Reason};
use crate::channel::{Channel, Message};
use crate::message::Build;

/// To the reader: the first two from the monitor, the others from the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToReader {
    Hello(Build),
    /// The user and the group that the reader becomes; `None` if it stays the broker's. Descriptors: the text of the
    /// configuration (sealed memory), the channel to the opener, and the ends of the lot for captures that outlive the
    /// reader.
    Begin {
        id: Option<u32>,
    },
    /// The counts of a capture.
    Counts {
        request: u64,
        capture: u64,
    },
    /// Ends a capture after this many milliseconds. The answer is `Ended`.
    Stop {
        capture: u64,
        linger: u32,
    },
    /// Ends a capture that the client does not read, or that it is no longer granted.
    Close {
        capture: u64,
        reason: Reason,
    },
    /// Lets a capture outlive the reader. The answer is `Kept`.
    Keep {
        request: u64,
        capture: u64,
    },
}

/// From the reader to the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReaderAnswer {
    Hello(Build),
    /// The reader is confined, and serves.
    Ready,
    /// A capture is live. Descriptor: the client's end of the stream.
    Live {
        capture: u64,
        live: Live,
    },
    NotLive {
        capture: u64,
        failure: Failure,
    },
    Counts {
        request: u64,
        counts: Option<Counts>,
    },
    Filter {
        request: u64,
        result: Option<Result<(u64, u64), Failure>>,
    },
    Ended {
        capture: u64,
        ended: Ended,
    },
    /// The answer to `Keep`; `None` if the capture has ended.
    Kept {
        request: u64,
        result: Option<Result<(), Failure>>,
    },
    /// The reader continues a capture that an earlier one has left, with these counts. It comes before `Ready`.
    Resumed {
        capture: u64,
        counts: Counts,
    },
}

/// From the opener to the reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReaderOrder {
    /// Begins a capture. Descriptor: its socket.
    Open { capture: u64, opened: Opened },
    /// Replaces the program of a capture. The reader answers the worker.
    SetFilter { request: u64, capture: u64, program: Vec<u8> },
}

/// From the reader to the opener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReaderReport {
    /// A capture has ended: it no longer counts. The worker learns this afterwards.
    Ended { capture: u64 },
    /// A capture of an earlier reader continues: it counts.
    Resumed { capture: u64, opened: Box<Opened> },
}

impl Message for ToReader {
    fn descriptors(&self) -> usize {
        match self {
            Self::Begin { .. } => 4,
            Self::Hello(_)
            | Self::Counts { .. }
            | Self::Stop { .. }
            | Self::Close { .. }
            | Self::Keep { .. } => 0,
        }
    }
}

impl Message for ReaderAnswer {
    fn descriptors(&self) -> usize {
        match self {
            Self::Live { .. } => 1,
            Self::Hello(_)
            | Self::Resumed { .. }
            | Self::Ready
            | Self::Kept { .. }
            | Self::NotLive { .. }
            | Self::Counts { .. }
            | Self::Filter { .. }
            | Self::Ended { .. } => 0,
        }
    }
}

impl Message for ReaderOrder {
    fn descriptors(&self) -> usize {
        match self {
            Self::Open { .. } => 1,
            Self::SetFilter { .. } => 0,
        }
    }
}

impl Message for ReaderReport {
    fn descriptors(&self) -> usize {
        match self {
            Self::Resumed { .. } | Self::Ended { .. } => 0,
        }
    }
}

/// A worker's end of the channel to its reader.
pub type ReaderChannel = Channel<ToReader, ReaderAnswer>;
/// The opener's end of the channel to a reader.
pub type OrderChannel = Channel<ReaderOrder, ReaderReport>;
