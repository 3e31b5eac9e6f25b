//! What can go wrong, built from the contract's one table of errors, and its form as `io::Error`.

use std::fmt;
use std::io;

use crate::endpoint::Endpoint;

/// The result of whatever asks a broker.
pub type Result<T> = std::result::Result<T, Error>;

/// Error numbers of Linux that stand for kinds which have none of their own on the wire.
const EBADF: i32 = 9;
const ENOBUFS: i32 = 105;

/// Why a call failed.
///
/// Converts into [`io::Error`]: with the error number where there is one, so that
/// [`io::Error::raw_os_error`] and [`io::Error::kind`] say what they would of a socket of one's own;
/// otherwise with the kind that fits and this error inside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(clippy::error_impl_error, reason = "the one error of the crate, as `std::io` has its own")]
pub enum Error {
    /// A system call of the broker failed.
    #[error("{message}")]
    Os {
        /// The error number; absent where CPython raises a bare `OSError`, as for a name of a service
        /// that is not found.
        errno: Option<i32>,
        /// Its name, such as `ECONNREFUSED`.
        name: Option<String>,
        /// The call that failed, such as `connect`.
        call: String,
        /// For people.
        message: String,
        /// Bytes that had left when a send ended early.
        sent: Option<u64>,
    },
    /// The resolver failed: `getaddrinfo` and `getnameinfo`, or the older host functions.
    #[error("{message}")]
    Resolver {
        /// An `EAI_*` code, or an `h_errno` code for the host functions.
        errno: i32,
        /// The name of an `EAI_*` code, such as `EAI_NONAME`; absent for the host functions.
        name: Option<String>,
        /// The call that failed.
        call: String,
        /// For people.
        message: String,
    },
    /// The socket's timeout ran out, or the call's: see `set_call_timeout`.
    #[error("{call}: timed out")]
    Timeout {
        /// The call that took too long.
        call: String,
        /// Bytes that had left when a send ended early.
        sent: Option<u64>,
    },
    /// The call was cancelled.
    #[error("{call}: cancelled")]
    Cancelled {
        /// The call.
        call: String,
        /// Bytes that had left when a send ended early.
        sent: Option<u64>,
    },
    /// The policy does not allow it.
    #[error("{message}")]
    Denied {
        /// The rule that decided, or that there is none.
        rule: String,
        /// The grant that is missing.
        grant: Option<String>,
        /// `EACCES` or `EPERM`, as the kernel would give.
        errno: i32,
        /// The call.
        call: String,
        /// For people.
        message: String,
    },
    /// No such handle in this session: closed, or lost with the session.
    #[error("{message}")]
    Handle {
        /// The call.
        call: String,
        /// For people.
        message: String,
    },
    /// No such session, or one that cannot be used so.
    #[error("{message}")]
    Session {
        /// The call.
        call: String,
        /// For people.
        message: String,
    },
    /// A limit was crossed.
    #[error("{message}")]
    Limit {
        /// Its name, as `session.limits` lists it.
        limit: String,
        /// The call.
        call: String,
        /// For people.
        message: String,
        /// Bytes that had left when a send ended early.
        sent: Option<u64>,
    },
    /// A parameter that Python's module would refuse.
    #[error("{message}")]
    Argument {
        /// The exception that Python would raise.
        exception: String,
        /// The call.
        call: String,
        /// For people.
        message: String,
    },
    /// Descriptors are missing, or this connection carries none.
    #[error("{message}")]
    Descriptor {
        /// The call.
        call: String,
        /// For people.
        message: String,
    },
    /// The broker knows no method of this name.
    #[error("{message}")]
    Method {
        /// For people.
        message: String,
    },
    /// The broker failed in this call and goes on, or gave an error this version does not know.
    #[error("{message} (code {code})")]
    Broker {
        /// The JSON-RPC code.
        code: i32,
        /// For people.
        message: String,
    },
    /// What came is not what the contract says: the broker is none, or of another version.
    #[error("the broker breaks the protocol: {message}")]
    Protocol {
        /// What is wrong.
        message: String,
    },
    /// The connection ended before the answer: whether the call had an effect is not known.
    #[error("the broker is gone: {message}")]
    Disconnected {
        /// How it ended.
        message: String,
    },
    /// No broker could be reached.
    #[error("{}", no_broker(attempts))]
    Connect {
        /// What was tried.
        attempts: Vec<Attempt>,
    },
    /// A text that names no endpoint.
    #[error("{message}")]
    Endpoint {
        /// What is wrong with it.
        message: String,
    },
}

/// An endpoint that was tried, and why it did not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Why it cannot be reached.
    pub reason: String,
    /// The error number, where the kernel gave one.
    pub errno: Option<i32>,
}

impl Attempt {
    pub(crate) fn new(endpoint: &Endpoint, error: &io::Error) -> Self {
        let (endpoint, errno) = (endpoint.clone(), error.raw_os_error());
        Self { endpoint, reason: error.to_string(), errno }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.endpoint, self.reason)
    }
}

fn no_broker(attempts: &[Attempt]) -> String {
    let tried: Vec<_> = attempts.iter().map(Attempt::to_string).collect();
    format!(
        "no broker answers; tried {}. Start one with `sockbrokerd --socket PATH`, or name one in \
         $SOCKBROKER, such as unix:PATH or stdio:sockbrokerd --stdio",
        tried.join(", ")
    )
}

impl Error {
    pub(crate) fn protocol(message: impl fmt::Display) -> Self {
        Self::Protocol { message: message.to_string() }
    }

    /// A system call of this process that failed in place of the broker's.
    pub(crate) fn native(call: &str, error: &io::Error) -> Self {
        let errno = error.raw_os_error();
        Self::Os {
            errno,
            name: errno.and_then(sockbroker_proto::errno::name).map(str::to_owned),
            call: call.to_owned(),
            message: format!("{call}: {error}"),
            sent: None,
        }
    }

    pub(crate) fn disconnected(message: impl fmt::Display) -> Self {
        Self::Disconnected { message: message.to_string() }
    }

    /// The error number of a system call that stands for this error, if one does.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Os { errno, .. } => *errno,
            Self::Denied { errno, .. } => Some(*errno),
            Self::Handle { .. } | Self::Descriptor { .. } => Some(EBADF),
            Self::Limit { .. } => Some(ENOBUFS),
            Self::Connect { attempts } => attempts.last().and_then(|attempt| attempt.errno),
            _ => None,
        }
    }

    /// Bytes that had already left when a send ended early.
    pub fn sent(&self) -> u64 {
        match self {
            Self::Os { sent, .. }
            | Self::Timeout { sent, .. }
            | Self::Cancelled { sent, .. }
            | Self::Limit { sent, .. } => sent.unwrap_or(0),
            _ => 0,
        }
    }

    /// The kind of [`io::Error`] that this is.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Timeout { .. } => io::ErrorKind::TimedOut,
            // Not `Interrupted`: what retries on that would wait again.
            Self::Cancelled { .. } => io::ErrorKind::Other,
            Self::Resolver { .. } => io::ErrorKind::NotFound,
            Self::Argument { .. } | Self::Endpoint { .. } => io::ErrorKind::InvalidInput,
            Self::Method { .. } => io::ErrorKind::Unsupported,
            Self::Protocol { .. } => io::ErrorKind::InvalidData,
            Self::Disconnected { .. } => io::ErrorKind::BrokenPipe,
            other => match other.errno() {
                Some(errno) => io::Error::from_raw_os_error(errno).kind(),
                None => io::ErrorKind::Other,
            },
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match &error {
            Error::Connect { .. } => Self::new(error.kind(), error),
            _ => match error.errno() {
                Some(errno) => Self::from_raw_os_error(errno),
                None => Self::new(error.kind(), error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_to_connect_to_is_told_with_every_socket_and_what_to_do() {
        let missing = io::Error::from_raw_os_error(2);
        let attempts =
            ["/a/s", "/b/s"].map(|path| Attempt::new(&Endpoint::Unix(path.into()), &missing));
        let error = Error::Connect { attempts: attempts.into() };
        let text = error.to_string();
        for part in
            ["unix:/a/s", "unix:/b/s", "No such file", "sockbrokerd --socket", "$SOCKBROKER"]
        {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::NotFound);
    }
}
