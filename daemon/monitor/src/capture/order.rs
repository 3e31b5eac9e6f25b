//! What is asked of a capture, and what it reports.

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use sockbroker_sys::filter;
use sockbroker_sys::ring::{Geometry, Mode};

/// The bytes of the longest program.
pub const PROGRAM_MAX: usize = filter::INSTRUCTIONS_MAX * 8;
/// The most interfaces that a capture can name.
pub const INTERFACES_MAX: usize = 16;
/// The longest text of a filter in bytes.
pub const TEXT_MAX: usize = 4096;

/// Which packets are captured, and how they are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The names of the interfaces; none for all interfaces, also those that are made later.
    pub interfaces: Vec<String>,
    /// The program of the client, as for `SO_ATTACH_FILTER`; empty for all packets.
    pub program: Vec<u8>,
    /// The most bytes of a packet that are captured.
    pub snaplen: u32,
    pub direction: Direction,
    pub promiscuous: bool,
    /// Whether packets of a loopback are captured twice: when they are sent, and when they are received.
    pub duplicates: bool,
    /// Whether packets are read in blocks, which costs less and takes longer.
    pub bulk: bool,
    /// The size of the ring.
    pub buffer_bytes: u64,
    pub format: Format,
    /// The text of the filter, for the file.
    pub text: Option<String>,
    /// The capture ends after this many packets, captured bytes of packets, or milliseconds.
    pub packets: Option<u64>,
    pub bytes: Option<u64>,
    pub milliseconds: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    Both,
    In,
    Out,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    Pcapng,
    /// One link type, and neither interfaces nor counters.
    Pcap,
}

/// An interface that a capture names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interface {
    pub index: u32,
    /// Its hardware type (`ARPHRD_`).
    pub hardware: u16,
}

/// A socket that captures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Without its program.
    pub order: Order,
    /// The indexes of its interfaces.
    pub indexes: Vec<u32>,
    /// Their hardware types.
    pub hardware: Vec<u16>,
    /// The longest packet that fits into a slot of the ring.
    pub longest: u32,
    /// When the socket began to capture, in nanoseconds since 1970: not before the first, and not after the second.
    pub bind_began: u64,
    pub started: u64,
}

impl Opened {
    /// The interfaces that it names.
    pub fn interfaces(&self) -> Vec<Interface> {
        let both = self.indexes.iter().zip(&self.hardware);
        both.map(|(index, hardware)| Interface { index: *index, hardware: *hardware }).collect()
    }
}

impl Order {
    /// The ring of the capture, for packets of this length; `None` if a ring cannot have this size.
    pub fn geometry(&self, longest: u32) -> Option<Geometry> {
        let mode = if self.bulk { Mode::Bulk } else { Mode::Prompt };
        Geometry::new(mode, self.buffer_bytes, longest)
    }

    /// Whether every part is within its limit.
    pub fn is_within_limits(&self) -> bool {
        self.interfaces.len() <= INTERFACES_MAX
            && self.interfaces.iter().all(|name| name.len() <= TEXT_MAX)
            && self.program.len() <= PROGRAM_MAX
            && self.text.as_ref().is_none_or(|text| text.len() <= TEXT_MAX)
            && (self.format == Format::Pcapng || self.interfaces.len() == 1)
    }
}

/// What a running capture is asked for. Each command with a number has one [`Event`] with it as its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    Counts {
        request: u64,
    },
    /// Replaces the program: joined and checked already.
    SetFilter {
        request: u64,
        program: Vec<u8>,
    },
    /// Ends the capture after this many milliseconds, and writes what has been captured.
    Stop {
        linger: u32,
    },
    /// Ends the capture, which its client no longer reads or is no longer granted.
    Close(Reason),
    /// Lets the capture outlive this process. The answer comes when it does.
    Keep {
        request: u64,
    },
}

/// Why a capture has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// `capture.stop`.
    Stopped,
    /// The limit on packets, bytes or time that its client set.
    Limit,
    /// The interface is gone.
    InterfaceGone,
    /// The policy no longer grants it.
    Policy,
    /// Nobody reads the stream.
    Unread,
    /// The ring or the stream failed.
    Failed,
    /// The process that serves its session has ended, and the capture does not outlive it.
    Interrupted,
}

impl Reason {
    /// The word in the protocol, in files and in logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Limit => "limit",
            Self::InterfaceGone => "interface",
            Self::Policy => "policy",
            Self::Unread => "unread",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }

    /// All of them. Their places here are stored: new ones are added at the end.
    pub(super) const ALL: [Self; 7] = [
        Self::Stopped,
        Self::Limit,
        Self::InterfaceGone,
        Self::Policy,
        Self::Unread,
        Self::Failed,
        Self::Interrupted,
    ];
}

/// The packets of a capture: `captured + dropped + unread = seen`, always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Packets that the filter accepted.
    pub seen: u64,
    /// Packets that were written to the stream.
    pub captured: u64,
    /// Packets for which the ring had no room.
    pub dropped: u64,
    /// Packets that are in the ring, or were when the capture ended.
    pub unread: u64,
    /// The captured bytes of the packets that were written.
    pub bytes: u64,
}

/// An interface of a capture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceFacts {
    pub index: u32,
    pub name: String,
    /// `LINKTYPE_`.
    pub link_type: u16,
}

/// A capture whose ring is live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// The interfaces that it names.
    pub interfaces: Vec<InterfaceFacts>,
    pub bind_began: u64,
    pub started: u64,
    /// The size of the ring.
    pub buffer_bytes: u64,
}

/// How a capture has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub reason: Reason,
    pub counts: Counts,
    /// Whether the stream has all blocks. It is cut if the client did not read it.
    pub complete: bool,
}

/// A failed system call of a capture, by its error number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure(pub i32);

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

/// What a capture reports.
#[derive(Debug)]
pub enum Event {
    /// It is live. The client reads the stream from this descriptor.
    Live { capture: u64, live: Live, stream: OwnedFd },
    /// It did not begin.
    NotLive { capture: u64, failure: Failure },
    /// `None` if it has ended; this was reported before.
    Counts { request: u64, counts: Option<Counts> },
    /// The filter was replaced between these times; `None` if the capture has ended.
    Filter { request: u64, result: Option<Result<(u64, u64), Failure>> },
    /// It outlives this process from now on, unless it has ended or cannot.
    Kept { request: u64, result: Option<Result<(), Failure>> },
    /// It has ended. Its socket is closed soon.
    Ended { capture: u64, ended: Ended },
    /// Its socket and its ring are closed, or it did not begin. Nothing more is reported of it.
    Closed { capture: u64 },
}
