//! The messages between a worker and the process that makes calls on `AF_UNIX` sockets with the ids of its caller.
//!
//! There are two channels of the same messages. On one, the worker waits for the answer to a send to the peer of a
//! socket, which the kernel makes at once. The other has numbered calls, which may wait for a file system.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::channel::{Asker, Channel, Message};
use crate::message::Build;

/// The most bytes of data in one message; more lie in shared memory, or are sent as [`ToCaller::Large`].
pub const DATA_MAX: usize = 64 << 10;
/// The most bytes of data in shared memory.
pub const SHARED_MAX: usize = 1 << 20;
/// The most bytes of a call or an answer in sealed memory.
pub const LARGE_MAX: usize = 32 << 20;
/// The most descriptors of a message: one less than `SCM_MAX_FD`, for the sealed memory.
pub const DESCRIPTORS_MAX: usize = 252;

/// The ids of the caller, in sealed memory: it can have 65536 groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerIds {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// To the process that makes the calls. The first two messages are the monitor's, all others the worker's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToCaller {
    Hello(Build),
    /// What the process begins with. Descriptors: the text of the configuration, the [`CallerIds`] (sealed memory), and
    /// the channel for sends that do not wait. The process answers `Ready`.
    Begin {
        /// Whether the process keeps the capabilities to access all files, which root has.
        overrides_files: bool,
    },
    /// Before the first [`Data::Shared`], on the channel for sends that do not wait. Descriptor: the memory.
    Memory,
    /// Descriptors for the call of this number, which do not fit into its own message.
    Attach {
        number: u64,
        count: u8,
    },
    /// A call. Descriptors: as the call has.
    Call {
        number: u64,
        call: UnixCall,
    },
    /// A call that is too large for a record. Descriptors: the call (sealed memory), and those of the call.
    Large {
        number: u64,
        descriptors: u8,
    },
}

/// From the process that makes the calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromCaller {
    Hello(Build),
    /// The process has the ids of the caller, and is confined.
    Ready,
    /// What a call has made or opened, before its answer. Descriptors: as many as `count`. The process closes its copies
    /// before it answers, so that the worker then has the only ones.
    Made {
        number: u64,
        count: u8,
    },
    Answer {
        number: u64,
        answer: UnixAnswer,
    },
    /// An answer that is too large for a record. Descriptor: the answer (sealed memory).
    Large {
        number: u64,
    },
}

/// A call on an `AF_UNIX` socket, or on the files of such sockets. The first descriptor is the socket, if there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnixCall {
    /// `socketpair(2)`.
    Pair { domain: i32, ty: i32, protocol: i32 },
    /// `bind(2)` to an address in the layout of the kernel.
    Bind { address: Vec<u8> },
    /// `bind(2)` to a name in a directory, which is the second descriptor. `written` is the path from the client.
    BindFile { name: Vec<u8>, written: Option<Vec<u8>> },
    /// `connect(2)`. The worker has set `O_NONBLOCK`.
    Connect { address: Vec<u8> },
    /// `connect(2)` to a file, which is the second descriptor.
    ConnectFile,
    /// `listen(2)`.
    Listen { backlog: i32 },
    /// `sendmsg(2)`, which does not wait. Descriptors: the socket, the file of the destination if it is one, and those of
    /// the ancillary data.
    Send(Outgoing, Data),
    /// What rules judge about a file: a socket's, or a directory with a name in it. Descriptor: the file.
    Examine { name: Option<Vec<u8>>, paths: Vec<String> },
    /// Opens a path, or the directory of a path if a file is to be created, and examines it.
    LookUp { path: Vec<u8>, creates: bool, paths: Vec<String> },
    /// The file to which a path leads.
    Identify { path: Vec<u8> },
}

/// A message to send, without its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    pub destination: Destination,
    pub flags: i32,
    pub control: Vec<ControlItem>,
    /// Whether the descriptors of the ancillary data came with [`ToCaller::Attach`].
    pub attached: bool,
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Destination {
    Peer,
    /// An address in the layout of the kernel.
    Address(Vec<u8>),
    /// A file.
    File,
}

/// An item of ancillary data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlItem {
    Data {
        level: i32,
        kind: i32,
        data: Vec<u8>,
    },
    /// This number of descriptors (`SCM_RIGHTS`), and odd bytes after them.
    Descriptors {
        count: u8,
        rest: Vec<u8>,
    },
}

/// The data of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Data {
    Inside(Bytes),
    /// The first bytes of the memory that came with [`ToCaller::Memory`].
    Shared {
        length: u32,
    },
}

/// Bytes, which are encoded in one piece.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

/// What a call returned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnixAnswer {
    Done,
    /// Both ends came with [`FromCaller::Made`].
    Pair,
    /// The name that the kernel reports for a socket that was bound to a file.
    Bound(Vec<u8>),
    /// The number of bytes that were sent.
    Sent(u64),
    Examined(Examined),
    /// The file that was opened came with [`FromCaller::Made`].
    LookedUp(Examined),
    /// Device and inode; `None` if there is no such file.
    Identified(Option<(u64, u64)>),
    /// The call failed with this error number.
    Failed(i32),
    /// The system cannot create the thread for the call.
    NoThread(i32),
}

/// A file, with what rules judge about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examined {
    /// Device and inode.
    pub file: (u64, u64),
    pub names: Vec<Vec<u8>>,
    pub possible: Vec<String>,
    pub visible: bool,
}

/// A worker's end of the channel for sends that do not wait.
pub type SendChannel = Asker<ToCaller, FromCaller>;
/// A worker's end of the channel for calls that may wait.
pub type CallChannel = Channel<ToCaller, FromCaller>;

impl UnixCall {
    /// The number of descriptors in its own message.
    fn descriptors(&self) -> usize {
        match self {
            Self::Pair { .. } | Self::LookUp { .. } | Self::Identify { .. } => 0,
            Self::Bind { .. }
            | Self::Connect { .. }
            | Self::Listen { .. }
            | Self::Examine { .. } => 1,
            Self::BindFile { .. } | Self::ConnectFile => 2,
            Self::Send(outgoing, _) => {
                let file = usize::from(outgoing.destination == Destination::File);
                let passed = if outgoing.attached { 0 } else { outgoing.passed() };
                1 + file + passed
            }
        }
    }

    /// The number of all its descriptors.
    pub fn all_descriptors(&self) -> usize {
        let attached = match self {
            Self::Send(outgoing, _) if outgoing.attached => outgoing.passed(),
            _ => 0,
        };
        self.descriptors() + attached
    }

    /// Whether the kernel makes the call at once: it does not look up a path.
    pub fn is_prompt(&self) -> bool {
        matches!(self, Self::Send(Outgoing { destination: Destination::Peer, .. }, _))
    }
}

impl Outgoing {
    /// The number of descriptors in the ancillary data.
    pub fn passed(&self) -> usize {
        let counts = self.control.iter().map(|item| match item {
            ControlItem::Data { .. } => 0,
            ControlItem::Descriptors { count, .. } => usize::from(*count),
        });
        counts.sum()
    }
}

impl UnixAnswer {
    /// The number of descriptors that come before it, with [`FromCaller::Made`].
    pub fn made(&self) -> usize {
        match self {
            Self::Pair => 2,
            Self::LookedUp(_) => 1,
            Self::Done
            | Self::Bound(_)
            | Self::Sent(_)
            | Self::Examined(_)
            | Self::Identified(_)
            | Self::Failed(_)
            | Self::NoThread(_) => 0,
        }
    }
}

impl Message for UnixCall {
    fn descriptors(&self) -> usize {
        self.descriptors()
    }
}

impl Message for UnixAnswer {
    fn descriptors(&self) -> usize {
        0
    }
}

impl Message for ToCaller {
    fn descriptors(&self) -> usize {
        match self {
            Self::Hello(_) => 0,
            Self::Begin { .. } => 3,
            Self::Memory => 1,
            Self::Attach { count, .. } => usize::from(*count),
            Self::Call { call, .. } => call.descriptors(),
            Self::Large { descriptors, .. } => 1 + usize::from(*descriptors),
        }
    }
}

impl Message for FromCaller {
    fn descriptors(&self) -> usize {
        match self {
            Self::Hello(_) | Self::Ready | Self::Answer { .. } => 0,
            Self::Made { count, .. } => usize::from(*count),
            Self::Large { .. } => 1,
        }
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OnePiece;
        impl Visitor<'_> for OnePiece {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(OnePiece)
    }
}
