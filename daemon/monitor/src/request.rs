//! The messages between a worker and the opener: one request, one answer.

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
/// The most interfaces in one answer. Their names have at most 15 bytes.
pub const INTERFACES_MAX: usize = 3000;

/// A request of a worker: a system call on a socket of a network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenerRequest {
    /// For a new socket, where to make it. For any other, as the worker knows it: the opener asks the kernel.
    pub network: SelectedNamespace,
    pub request: Request,
}

/// A network namespace, as a client selects it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SelectedNamespace {
    /// That of the broker.
    #[default]
    Broker,
    /// That of the connection's client.
    Caller,
    /// The one with this name.
    Named(String),
    /// One that the client owns, and whose descriptor it passed. For a request without a socket, it is the second
    /// descriptor.
    Passed,
}

/// The index and the name of each interface.
pub type InterfaceList = Vec<(u32, String)>;

/// A query about the interfaces of a network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InterfaceQuery {
    /// All of them.
    All,
    /// The one with this name.
    Name(String),
    /// The one with this index.
    Index(u32),
}

/// Why a network namespace cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unreachable {
    /// There is no file with the name.
    NoFile,
    /// The file with the name is not a network namespace.
    OtherFile,
    /// The namespace with the name is the broker's own.
    BrokersOwn,
    /// The kernel does not let the broker find or enter it, with this error number.
    Failed(i32),
    /// The new socket belongs to another one.
    AnotherNetwork,
    /// The client does not own the one that it passed.
    NotOwned,
    /// The broker lacks a capability that it takes to enter any other one.
    Incapable,
}

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
    /// `if_nameindex(3)`, `if_nametoindex(3)` and `if_indextoname(3)` in another network namespace than the broker's own.
    Interfaces { query: InterfaceQuery },
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
    /// The new socket came with [`Answer::Made`].
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
    /// The network namespace cannot be used.
    Unreachable(Unreachable),
    /// The client has closed its connection.
    HungUp,
    /// A new socket, before the answer. Descriptor: the socket. The opener closes its copy before it answers, so that the
    /// worker then has the only one.
    Made,
    /// Index and name of each interface that was found.
    Interfaces(InterfaceList),
}

impl Message for OpenerRequest {
    fn descriptors(&self) -> usize {
        1 + usize::from(self.request.has_socket() || self.passes_network())
    }
}

impl OpenerRequest {
    /// Whether the second descriptor is to be a network namespace, and not a socket.
    pub(crate) fn passes_network(&self) -> bool {
        self.network == SelectedNamespace::Passed && !self.request.has_socket()
    }
}

impl From<Request> for OpenerRequest {
    /// About a socket of the broker's own namespace.
    fn from(request: Request) -> Self {
        Self { network: SelectedNamespace::Broker, request }
    }
}

impl Request {
    /// Whether it is about a socket, which is the second descriptor.
    fn has_socket(&self) -> bool {
        match self {
            Self::Create { .. }
            | Self::SetHostname { .. }
            | Self::Interfaces { .. }
            | Self::Capture { .. }
            | Self::SetCaptureFilter { .. } => false,
            Self::Bind { .. }
            | Self::Connect { .. }
            | Self::SetOption { .. }
            | Self::Send { .. } => true,
        }
    }

    /// The name of the system call.
    pub fn call(&self) -> &'static str {
        match self {
            Self::Create { .. } => "socket",
            Self::Bind { .. } => "bind",
            Self::Connect { .. } => "connect",
            Self::SetOption { .. } => "setsockopt",
            Self::Send { .. } => "sendmsg",
            Self::SetHostname { .. } => "sethostname",
            Self::Interfaces { .. } => "if_nameindex",
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
            | Self::SetHostname { .. }
            | Self::Interfaces { .. } => true,
        }
    }
}

impl Message for Answer {
    fn descriptors(&self) -> usize {
        match self {
            Self::Made => 1,
            Self::Done
            | Self::Socket
            | Self::Sent(_)
            | Self::Failed(_)
            | Self::Refused(_)
            | Self::Limit(_)
            | Self::NotServed
            | Self::Unreachable(_)
            | Self::Interfaces(_)
            | Self::HungUp => 0,
        }
    }
}

/// A worker's end of the channel to the opener.
pub type OpenerChannel = Asker<OpenerRequest, Answer>;
