//! The errors of operations: what Python would raise, and the broker's own refusals.

pub mod netns;

use std::io;

use sockbroker_proto::address::{AddressError, Exception};
use sockbroker_proto::handle::Handle;
use sockbroker_sys::resolver::ResolverError;

use crate::error::netns::Reason;
use sockbroker_policy::Denial;

/// A limit that a request would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitExceeded {
    /// Its name in `session.limits`.
    pub name: &'static str,
    pub value: u64,
}

/// The error of an operation; `rpc` turns it into an error object.
#[derive(Debug)]
pub enum OpError {
    /// A system call failed.
    Os {
        /// The call, such as `connect`.
        call: &'static str,
        /// Its error number.
        errno: i32,
    },
    /// What CPython raises as `OSError` without an error number.
    Plain(String),
    /// What CPython refuses before any system call.
    Argument(Exception, String),
    /// The handle's timeout ran out.
    Timeout,
    /// The resolver failed with an `EAI_*` code.
    Gai(i32),
    /// The host database failed with an `h_errno` code.
    Host(i32),
    /// The policy refused.
    Denied(Box<Denial>),
    /// The policy could not be reloaded.
    Policy(String),
    /// No such handle in this session.
    Handle(Handle),
    /// The handle is not of the kind that the call takes.
    HandleKind {
        handle: Handle,
        /// The kind of the handle.
        kind: &'static str,
        /// The kind that the call takes.
        wanted: &'static str,
    },
    /// The session or the token cannot be used for this.
    Session(&'static str),
    /// What a call of an ended process did is not known.
    Interrupted(&'static str),
    /// As many received bytes are lost with an ended process.
    LostBytes(u64),
    /// A limit was exceeded.
    Limit {
        /// Its name in `session.limits`.
        name: &'static str,
        value: u64,
    },
    /// The user exceeds a rate limit, and the socket does not wait.
    Pace(LimitExceeded),
    /// The broker cannot take the caller's ids for a call that the kernel checks by them.
    Identity {
        call: &'static str,
        /// The caller's user id.
        uid: u32,
    },
    /// What a remote principal cannot do, or why its connection ends.
    Remote(String),
    /// A network namespace cannot be used for a call.
    Netns {
        call: &'static str,
        /// `caller`, or its name.
        namespace: String,
        reason: Reason,
    },
    /// The socket of a channel listens (`EINVAL`).
    Listens { call: &'static str },
    /// There is no interface with this name (`ENODEV`).
    Interface {
        call: &'static str,
        /// What is missing: the interface, or one of several.
        missing: String,
    },
    /// No name server of a network namespace answers.
    NameServers {
        /// Whether the call reports an `h_errno` code, and not an `EAI_*` code.
        of_host: bool,
        /// The servers and the namespace.
        asked: String,
    },
    /// Descriptors are missing, or the connection cannot carry them.
    Descriptor(&'static str),
    /// The kernel dropped descriptors of the request, because the broker has too many files open.
    LostDescriptors,
    /// The descriptor is the client's end of a connection to this broker.
    ControlConnection,
    /// Every attempt failed: `ExceptionGroup`.
    Group(Vec<OpError>),
    /// Sending failed after some bytes were sent.
    Partly {
        /// The number of bytes that were sent.
        sent: u64,
        cause: Box<OpError>,
    },
}

pub type OpResult<T> = Result<T, OpError>;

impl OpError {
    /// The error of a system call.
    #[expect(clippy::needless_pass_by_value, reason = "reads well in map_err")]
    pub fn os(call: &'static str, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::Os { call, errno },
            None => Self::Plain(format!("{call}: {error}")),
        }
    }

    /// Adds the interfaces that the call names, if the error is that one of them does not exist.
    #[must_use]
    pub fn naming_interfaces(self, names: &[String]) -> Self {
        match (self, names) {
            (Self::Os { call, errno: libc::ENODEV }, [name]) => {
                Self::Interface { call, missing: format!("the interface {name:?}") }
            }
            (Self::Os { call, errno: libc::ENODEV }, [_, _, ..]) => Self::Interface {
                call,
                missing: format!("one of the interfaces {}", names.join(", ")),
            },
            (error, _) => error,
        }
    }

    /// Fails if a value exceeds the limit of this name.
    pub fn within(name: &'static str, asked: u64, limit: u64) -> OpResult<()> {
        if asked > limit { Err(Self::Limit { name, value: limit }) } else { Ok(()) }
    }

    /// A `ValueError`.
    pub fn value(message: impl Into<String>) -> Self {
        Self::Argument(Exception::ValueError, message.into())
    }

    /// A `TypeError`.
    pub fn type_error(message: impl Into<String>) -> Self {
        Self::Argument(Exception::TypeError, message.into())
    }

    /// An `OverflowError`.
    pub fn overflow(message: impl Into<String>) -> Self {
        Self::Argument(Exception::OverflowError, message.into())
    }

    /// The error number of a failed system call.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Os { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// Adds the number of bytes that were sent before the error.
    #[must_use]
    pub fn after(self, sent: u64) -> Self {
        if sent == 0 { self } else { Self::Partly { sent, cause: Box::new(self) } }
    }
}

/// Adds the name of the system call to an `io::Error`.
pub trait During<T> {
    fn during(self, call: &'static str) -> OpResult<T>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, call: &'static str) -> OpResult<T> {
        self.map_err(|error| OpError::os(call, error))
    }
}

impl From<Box<Denial>> for OpError {
    fn from(denial: Box<Denial>) -> Self {
        Self::Denied(denial)
    }
}

impl From<LimitExceeded> for OpError {
    fn from(LimitExceeded { name, value }: LimitExceeded) -> Self {
        Self::Limit { name, value }
    }
}

impl From<AddressError> for OpError {
    fn from(error: AddressError) -> Self {
        match error.exception {
            Exception::OSError => Self::Plain(error.message),
            exception => Self::Argument(exception, error.message),
        }
    }
}

impl From<ResolverError> for OpError {
    fn from(error: ResolverError) -> Self {
        match error {
            ResolverError::Gai(code) => Self::Gai(code),
            ResolverError::Host(code) => Self::Host(code),
            ResolverError::System(error) => Self::os("getaddrinfo", error),
        }
    }
}
