//! The messages between a worker and the opener: one question, one answer.

use serde::{Deserialize, Serialize};

use crate::capture::{Order, PROGRAM_MAX};
use crate::channel::{Asker, Message};

/// The largest value of an option in bytes.
pub const VALUE_MAX: usize = 4096;
/// The most bytes of data in one message. The largest datagram of UDP is smaller.
pub const DATA_MAX: usize = 64 << 10;
/// The most bytes and items of ancillary data in one message.
pub const CONTROL_MAX: usize = 4096;
pub const ITEMS_MAX: usize = 64;

/// A system call that needs a capability. The first descriptor is the connection of the client for whom the worker
/// makes it; the second, if there is one, is the socket. Addresses have the layout of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// `socket(2)`. The emulation of `SIO_RCVALL` gets its packet socket, which drops everything.
    Create { domain: i32, ty: i32, protocol: i32 },
    /// `bind(2)`.
    Bind { address: Vec<u8> },
    /// `connect(2)` of a netlink socket.
    Connect { address: Vec<u8> },
    /// `setsockopt(2)`.
    SetOption { level: i32, name: i32, value: Value },
    /// `sendmsg(2)`, which does not wait.
    Send { destination: Option<Vec<u8>>, flags: i32, control: Vec<Control>, data: Vec<u8> },
    /// `sethostname(2)`.
    SetHostname { name: String },
    /// Opens a capture with this number, whose socket goes to the reader of the worker.
    Capture { capture: u64, order: Order },
    /// Replaces the program of a capture. The reader answers with the number of the request.
    SetCaptureFilter { request: u64, capture: u64, program: Vec<u8> },
}

/// A limit that a capture would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CaptureLimit {
    OfUser,
    InAll,
    BytesOfUser,
    BytesInAll,
}

/// The value of an option.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    Bytes(Vec<u8>),
    /// A null pointer with this length.
    Null(u32),
}

/// An item of ancillary data without descriptors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    pub level: i32,
    pub kind: i32,
    pub data: Vec<u8>,
}

/// The answer of the opener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Done,
    /// Descriptor: the new socket.
    Socket,
    /// The number of bytes that were sent.
    Sent(u64),
    /// The call failed with this error number.
    Failed(i32),
    /// The policy of the opener does not allow it; the error number is that of a denial.
    Refused(i32),
    /// A limit does not allow it.
    Limit(CaptureLimit),
    /// No capability makes it possible, so a worker does it itself.
    NotServed,
    /// The client has closed its connection.
    HungUp,
}

impl Message for Request {
    fn descriptors(&self) -> usize {
        match self {
            Self::Create { .. }
            | Self::SetHostname { .. }
            | Self::Capture { .. }
            | Self::SetCaptureFilter { .. } => 1,
            Self::Bind { .. }
            | Self::Connect { .. }
            | Self::SetOption { .. }
            | Self::Send { .. } => 2,
        }
    }
}

impl Request {
    /// The name of the system call.
    pub fn call(&self) -> &'static str {
        match self {
            Self::Create { .. } => "socket",
            Self::Bind { .. } => "bind",
            Self::Connect { .. } => "connect",
            Self::SetOption { .. } => "setsockopt",
            Self::Send { .. } => "sendmsg",
            Self::SetHostname { .. } => "sethostname",
            Self::Capture { .. } => "capture.open",
            Self::SetCaptureFilter { .. } => "capture.set_filter",
        }
    }

    /// Whether every part is within its limit.
    pub fn is_within_limits(&self) -> bool {
        match self {
            Self::SetOption { value: Value::Bytes(value), .. } => value.len() <= VALUE_MAX,
            Self::Send { control, data, .. } => {
                let bytes: usize = control.iter().map(|item| item.data.len()).sum();
                data.len() <= DATA_MAX && bytes <= CONTROL_MAX && control.len() <= ITEMS_MAX
            }
            Self::Capture { order, .. } => order.is_within_limits(),
            Self::SetCaptureFilter { program, .. } => program.len() <= PROGRAM_MAX,
            Self::Create { .. }
            | Self::Bind { .. }
            | Self::Connect { .. }
            | Self::SetOption { value: Value::Null(_), .. }
            | Self::SetHostname { .. } => true,
        }
    }
}

impl Message for Answer {
    fn descriptors(&self) -> usize {
        match self {
            Self::Socket => 1,
            Self::Done
            | Self::Sent(_)
            | Self::Failed(_)
            | Self::Refused(_)
            | Self::Limit(_)
            | Self::NotServed
            | Self::HungUp => 0,
        }
    }
}

/// A worker's end of the channel to the opener.
pub type OpenerChannel = Asker<Request, Answer>;
