//! The error of the crate, and its conversion to `io::Error`.

use std::fmt;
use std::io;

use sockbroker_proto::handle::Handle;

use crate::endpoint::Endpoint;

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// Error numbers of Linux for kinds of errors that the broker sends without a number.
const EBADF: i32 = 9;
const ENOBUFS: i32 = 105;

/// Why a call failed.
///
/// It converts into [`io::Error`]. If there is an error number, [`io::Error::raw_os_error`] and
/// [`io::Error::kind`] return what they would for a native socket; otherwise the [`io::Error`] wraps this
/// error and has the kind of [`Error::kind`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(clippy::error_impl_error, reason = "the one error of the crate, as `std::io` has its own")]
pub enum Error {
    /// A system call failed, in the broker or on a path in this process.
    #[error("{message}")]
    Os {
        /// The error number; absent where CPython raises a bare `OSError`, for example for an unknown
        /// service name.
        errno: Option<i32>,
        /// Its name, such as `ECONNREFUSED`.
        name: Option<String>,
        /// The system call that failed, such as `connect`.
        call: String,
        /// The text of the error.
        message: String,
        /// How many bytes had been sent before a send failed.
        sent: Option<u64>,
    },
    /// The resolver failed: `getaddrinfo`, `getnameinfo`, or a `gethostby*` function.
    #[error("{message}")]
    Resolver {
        /// An `EAI_*` code, or an `h_errno` code for the `gethostby*` functions.
        errno: i32,
        /// The name of an `EAI_*` code, such as `EAI_NONAME`; absent for the `gethostby*` functions.
        name: Option<String>,
        /// The function that failed.
        call: String,
        /// The text of the error.
        message: String,
    },
    /// The timeout of the socket expired (`set_timeout`), or that of calls (`set_call_timeout`).
    #[error("{call}: timed out")]
    Timeout {
        /// The call that timed out.
        call: String,
        /// How many bytes had been sent before a send failed.
        sent: Option<u64>,
    },
    /// The call was cancelled.
    #[error("{call}: cancelled")]
    Cancelled {
        /// The call.
        call: String,
        /// How many bytes had been sent before a send failed.
        sent: Option<u64>,
    },
    /// The policy refused the call.
    #[error("{message}")]
    Denied {
        /// The rule that decided, or a text that says that no rule did.
        rule: String,
        /// The grant that the caller lacks.
        grant: Option<String>,
        /// `EACCES` or `EPERM`, as the kernel would return.
        errno: i32,
        /// The call.
        call: String,
        /// The text of the error.
        message: String,
    },
    /// The session has no such handle: it was closed, or its session ended.
    #[error("{message}")]
    Handle {
        /// The call.
        call: String,
        /// The text of the error.
        message: String,
    },
    /// There is no such session, or it does not support the call.
    #[error("{message}")]
    Session {
        /// The call.
        call: String,
        /// The text of the error.
        message: String,
    },
    /// The call exceeds a limit.
    #[error("{message}")]
    Limit {
        /// The name of the limit, as `session.limits` lists it.
        limit: String,
        /// The call.
        call: String,
        /// The text of the error.
        message: String,
        /// How many bytes had been sent before a send failed.
        sent: Option<u64>,
    },
    /// A parameter is not valid: Python's `socket` module would raise an exception.
    #[error("{message}")]
    Argument {
        /// The name of the exception.
        exception: String,
        /// The call.
        call: String,
        /// The text of the error.
        message: String,
    },
    /// The connection cannot carry descriptors, or the request lacks one.
    #[error("{message}")]
    Descriptor {
        /// The call.
        call: String,
        /// The text of the error.
        message: String,
    },
    /// The broker has no such method.
    #[error("{message}")]
    Method {
        /// The text of the error.
        message: String,
    },
    /// The broker failed internally in this call, or sent an error that this version does not know.
    #[error("{message} (code {code})")]
    Broker {
        /// The JSON-RPC code.
        code: i32,
        /// The text of the error.
        message: String,
    },
    /// The peer violated the protocol: it is not a broker, or one of an incompatible version.
    #[error("the broker violated the protocol: {message}")]
    Protocol {
        /// The violation.
        message: String,
    },
    /// The connection ended before the response. Whether the call had an effect is unknown.
    #[error("the connection to the broker ended: {message}")]
    Disconnected {
        /// How the connection ended.
        message: String,
    },
    /// The broker was restarted during the call, and whether the call took effect is not known, or data were lost.
    /// Only a session that outlives its process ([`Config::persist`](crate::Config::persist)) has this error: its
    /// sockets remain usable.
    #[error("{message}")]
    Interrupted {
        /// The call.
        call: String,
        /// The socket, if the call is one of a socket.
        handle: Option<Handle>,
        /// What is known.
        message: String,
    },
    /// No broker accepts connections.
    #[error("{}", connect_message(attempts))]
    Connect {
        /// Every endpoint that was tried, in order.
        attempts: Vec<Attempt>,
    },
    /// A text is not an endpoint.
    #[error("{message}")]
    Endpoint {
        /// The text, and what is wrong with it.
        message: String,
    },
}

/// A failed attempt to connect to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Why the attempt failed.
    pub reason: String,
    /// The error number, if a system call failed.
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

fn connect_message(attempts: &[Attempt]) -> String {
    let tried: Vec<_> = attempts.iter().map(Attempt::to_string).collect();
    if attempts.iter().all(|attempt| matches!(attempt.endpoint, Endpoint::Ssh(_))) {
        return format!("cannot connect to a broker: tried {}", tried.join(", "));
    }
    format!(
        "cannot connect to a broker: tried {}; start one with `sockbrokerd --socket PATH`, or set \
         $SOCKBROKER to an endpoint such as unix:PATH or ssh://HOST",
        tried.join(", ")
    )
}

impl Error {
    pub(crate) fn protocol(message: impl fmt::Display) -> Self {
        Self::Protocol { message: message.to_string() }
    }

    /// A system call that failed in this process, before the request was sent.
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

    /// The error number that a system call would return for this error, if there is one.
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

    /// How many bytes had been sent before a send failed; 0 for other calls.
    pub fn sent(&self) -> u64 {
        match self {
            Self::Os { sent, .. }
            | Self::Timeout { sent, .. }
            | Self::Cancelled { sent, .. }
            | Self::Limit { sent, .. } => sent.unwrap_or(0),
            _ => 0,
        }
    }

    /// The kind of the [`io::Error`] that this error converts into.
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
            Self::Interrupted { .. } => io::ErrorKind::ConnectionAborted,
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
    fn connect_error_names_every_attempt_and_what_to_do() {
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
