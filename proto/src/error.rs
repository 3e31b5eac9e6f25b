//! The table of errors: JSON-RPC code, kind and Python exception, and the fixed data fields.
//!
//! Codes above zero are in blocks outside the range that JSON-RPC reserves: 1000 operating
//! system, 2000 resolver, 3000 policy, 4000 handle, session and limits, 5000 capture and channel.
//! The meaning of a code never changes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The kind of an error: the broker returns no other kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The text is not JSON.
    Parse,
    /// Not a JSON-RPC 2.0 request, or one that violates a rule of the protocol.
    Request,
    /// There is no method of this name.
    Method,
    /// A parameter of the wrong type, or one that Python's module refuses with an exception.
    Argument,
    /// The broker failed in this call and continues.
    Internal,
    /// `$/cancelRequest` or the end of the connection cancelled the call.
    Cancelled,
    /// A system call failed: `errno` and `name` state the error.
    Os,
    /// The handle's timeout expired. Without errno; the kernel's ETIMEDOUT is an [`ErrorKind::Os`].
    Timeout,
    /// `getaddrinfo` or `getnameinfo` failed: `errno` is the `EAI_*` code.
    Gai,
    /// `gethostbyname_ex` or `gethostbyaddr` failed: `errno` is the `h_errno` code.
    Host,
    /// The policy does not allow the action: `rule` and `grant` state the reason.
    Denied,
    /// The policy could not be reloaded; the old one stays in force.
    Policy,
    /// There is no such handle in this session.
    Handle,
    /// There is no such session or token, or it cannot be used in this way.
    Session,
    /// A limit was exceeded: `limit` names it.
    Limit,
    /// The frame lacks descriptors, or this transport carries none.
    Descriptor,
    /// The process that served the call has ended: nobody knows whether the call took effect, or data were lost.
    Interrupted,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorEntry {
    /// The kind.
    pub kind: ErrorKind,
    /// The JSON-RPC code.
    pub code: i32,
    /// `data.kind` on the wire.
    pub name: &'static str,
    /// What the Python client raises.
    pub exception: &'static str,
    /// When the error occurs, as a sentence for documents.
    pub meaning: &'static str,
}

impl ErrorKind {
    /// The row of this kind.
    pub fn entry(self) -> ErrorEntry {
        // The table has the order of the variants; a test checks it.
        TABLE[self as usize]
    }

    /// The JSON-RPC code.
    pub fn code(self) -> i32 {
        self.entry().code
    }

    /// Every kind, in the order of the table.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|entry| entry.kind)
    }
}

const fn row(
    kind: ErrorKind,
    code: i32,
    name: &'static str,
    exception: &'static str,
    meaning: &'static str,
) -> ErrorEntry {
    ErrorEntry { kind, code, name, exception, meaning }
}

/// The table of errors.
#[rustfmt::skip]
static TABLE: [ErrorEntry; 17] = [
    row(ErrorKind::Parse, -32700, "parse", "RuntimeError",
        "the text is not JSON"),
    row(ErrorKind::Request, -32600, "request", "RuntimeError",
        "not a JSON-RPC 2.0 request, or one that violates a rule of the protocol"),
    row(ErrorKind::Method, -32601, "method", "NotImplementedError",
        "there is no method of this name"),
    row(ErrorKind::Argument, -32602, "argument", "as data.exception says",
        "a parameter is missing, unknown, of the wrong type or out of range; data.exception names what Python raises"),
    row(ErrorKind::Internal, -32603, "internal", "RuntimeError",
        "the broker failed in this call and continues"),
    row(ErrorKind::Cancelled, -32800, "cancelled", "asyncio.CancelledError",
        "the call was cancelled; data.sent is the number of bytes already sent"),
    row(ErrorKind::Os, 1000, "OSError", "OSError",
        "a system call failed; errno and name state the error"),
    row(ErrorKind::Timeout, 1001, "timeout", "TimeoutError",
        "the handle's timeout expired; without errno"),
    row(ErrorKind::Gai, 2000, "gaierror", "socket.gaierror",
        "getaddrinfo or getnameinfo failed; errno is the EAI_ code"),
    row(ErrorKind::Host, 2001, "herror", "socket.herror",
        "gethostbyname_ex or gethostbyaddr failed; errno is the h_errno code"),
    row(ErrorKind::Denied, 3000, "denied", "PermissionError",
        "the policy does not allow it; rule and grant state the reason"),
    row(ErrorKind::Policy, 3001, "policy", "ValueError",
        "the policy could not be reloaded; the old one stays in force, the message names file, line and column"),
    row(ErrorKind::Handle, 4000, "handle", "OSError(EBADF)",
        "there is no such handle in this session"),
    row(ErrorKind::Session, 4001, "session", "RuntimeError",
        "there is no such session or token, or it cannot be used in this way"),
    row(ErrorKind::Limit, 4002, "limit", "OSError(ENOBUFS)",
        "a limit was exceeded; data.limit names it, session.limits lists all"),
    row(ErrorKind::Descriptor, 4003, "descriptor", "OSError(EBADF)",
        "the frame lacks descriptors, or this transport carries none"),
    row(ErrorKind::Interrupted, 4004, "interrupted", "ConnectionAbortedError",
        "the process that served the call has ended: whether the call took effect is not known, or received data are lost"),
];

/// `error.data`: fixed fields; fields that do not apply are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorData {
    /// The kind, such as `OSError`, `timeout`, `denied` or `limit`.
    pub kind: String,
    /// The error number: of the system call, an `EAI_*` code, or an `h_errno` code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
    /// The error number's name, such as `ECONNREFUSED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The Python call or system call that failed, such as `connect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// The Python exception of an argument error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exception: Option<String>,
    /// The name of the policy's rule that decided, or `no rule`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The grant that is missing, as fields of a rule: `allow = ["create"] family = ["AF_PACKET"]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// The limit that was exceeded, as `session.limits` names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// The network namespace that cannot be used: `caller`, `passed`, or its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// The errors of all attempts, if `create_connection` was called with `all_errors`; Python raises an
    /// `ExceptionGroup`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<AttemptError>")]
    pub errors: Vec<ErrorData>,
    /// The number of bytes already sent when a `sendall` or `send` ended early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<u64>,
}

/// The schema of an attempt's error. It has no attempts of its own, because many generators do not support
/// recursive schemas.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it replaces ErrorData in the schema")]
struct AttemptError {
    /// The kind, such as `OSError`.
    kind: String,
    /// The error number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    errno: Option<i32>,
    /// The error number's name, such as `ECONNREFUSED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The call that failed, such as `connect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    call: Option<String>,
    /// The name of the policy's rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    /// The grant that is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grant: Option<String>,
    /// The limit that was exceeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<String>,
    /// The network namespace that cannot be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    netns: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn table_has_the_order_of_the_kinds() {
        for (place, entry) in TABLE.iter().enumerate() {
            assert_eq!(entry.kind as usize, place, "{}", entry.name);
        }
    }

    #[test]
    fn codes_and_names_are_unique_and_codes_are_not_those_of_the_rpc_library() {
        let codes: HashSet<_> = ErrorKind::all().map(ErrorKind::code).collect();
        let names: HashSet<_> = ErrorKind::all().map(|kind| kind.entry().name).collect();
        assert_eq!((codes.len(), names.len()), (TABLE.len(), TABLE.len()));
        assert!(codes.iter().all(|code| !(-32011..=-32000).contains(code)));
    }
}
