//! The errors of calls. They are typed until `RpcError::encode` writes them into a response.

#![deny(clippy::wildcard_enum_match_arm)]

use jsonrpsee_types::Id;
use serde::Serialize;
use sockbroker_proto::address::Exception;
use sockbroker_proto::errno;
use sockbroker_proto::error::{ErrorData, ErrorKind};
use sockbroker_sys::resolver;

use crate::error::LimitExceeded;
use crate::error::OpError;
use crate::error::netns::Reason;

/// The `rule` of a refusal that no rule of the policy decides.
const REMOTE_RULE: &str = "built-in: remote principals have neither users nor files here";
const IDENTITY_RULE: &str = "built-in: calls on AF_UNIX sockets are made as the caller";

/// `h_errno` of `netdb.h`.
const TRY_AGAIN: i32 = 2;

/// A request whose descriptors the kernel had to drop (`MSG_CTRUNC`).
const LOST: &str = "the broker cannot open the descriptors of this request: too many open files";
/// The `rule` of a refused descriptor that would keep a connection to the broker open.
const CONTROL_RULE: &str =
    "built-in: an end of a control connection cannot become a socket of the broker";

/// An error of the contract.
#[derive(Debug)]
pub struct RpcError {
    /// Its row in the table of errors, with the code.
    pub kind: ErrorKind,
    pub message: String,
    pub data: Box<ErrorData>,
}

impl From<OpError> for RpcError {
    fn from(error: OpError) -> Self {
        let (kind, message, data) = describe(error);
        Self::new(kind, message, data)
    }
}

impl RpcError {
    fn new(kind: ErrorKind, message: String, data: ErrorData) -> Self {
        let data = ErrorData { kind: kind.entry().name.to_owned(), ..data };
        Self { kind, message, data: Box::new(data) }
    }

    /// An error without data other than its kind.
    pub(crate) fn plain(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::new(kind, message.into(), ErrorData::default())
    }

    /// The error of a limit that was exceeded after `sent` bytes were sent.
    pub(crate) fn limit(LimitExceeded { name, value }: LimitExceeded, sent: u64) -> Self {
        let (kind, message, data) = describe(OpError::Limit { name, value });
        Self::new(kind, message, ErrorData { sent: (sent > 0).then_some(sent), ..data })
    }

    /// The error of a call that was cancelled after `sent` bytes were sent.
    pub(crate) fn cancelled(sent: u64) -> Self {
        let data = ErrorData { sent: (sent > 0).then_some(sent), ..ErrorData::default() };
        Self::new(ErrorKind::Cancelled, "the call was cancelled".to_owned(), data)
    }

    /// The error of parameters that CPython would refuse with this exception.
    pub(super) fn argument(exception: Exception, message: String) -> Self {
        let exception = Some(exception_name(exception).to_owned());
        let data = ErrorData { exception, ..ErrorData::default() };
        Self::new(ErrorKind::Argument, message, data)
    }

    /// Adds the name of the call, unless the error has one already.
    #[must_use]
    pub(super) fn of_call(mut self, call: &str) -> Self {
        self.data.call.get_or_insert_with(|| call.to_owned());
        self
    }

    /// The name of the limit, if one was exceeded.
    pub(super) fn limit_name(&self) -> Option<&str> {
        self.data.limit.as_deref()
    }

    /// Writes the response to the request with this id.
    pub(super) fn encode(&self, id: &Id<'_>) -> bytes::Bytes {
        #[derive(Serialize)]
        struct Response<'a> {
            jsonrpc: &'static str,
            id: &'a Id<'a>,
            error: Object<'a>,
        }
        #[derive(Serialize)]
        struct Object<'a> {
            code: i32,
            message: &'a str,
            data: &'a ErrorData,
        }
        let error = Object { code: self.kind.code(), message: &self.message, data: &self.data };
        let response = Response { jsonrpc: "2.0", id, error };
        // Strings, numbers and lists of them can always be encoded.
        serde_json::to_vec(&response).unwrap_or_default().into()
    }
}

/// The message and the `data` of an operation's error, for results that contain both.
pub(crate) fn message_and_data(error: OpError) -> (String, Box<ErrorData>) {
    let RpcError { message, data, .. } = RpcError::from(error);
    (message, data)
}

/// The `data` of an operation's error, for results that contain errors.
pub(crate) fn data(error: OpError) -> ErrorData {
    *RpcError::from(error).data
}

fn describe(error: OpError) -> (ErrorKind, String, ErrorData) {
    let none = ErrorData::default();
    match error {
        OpError::Os { call, errno } => describe_errno(call, errno),
        OpError::Plain(message) => (ErrorKind::Os, message, none),
        OpError::Argument(exception, message) => {
            let exception = Some(exception_name(exception).to_owned());
            (ErrorKind::Argument, message, ErrorData { exception, ..none })
        }
        OpError::Timeout => (ErrorKind::Timeout, "timed out".to_owned(), none),
        OpError::Gai(code) => {
            let name = gai_name(code).map(str::to_owned);
            let data = ErrorData { errno: Some(code), name, ..none };
            (ErrorKind::Gai, lower(&resolver::gai_message(code)), data)
        }
        OpError::Host(code) => {
            let data = ErrorData { errno: Some(code), ..none };
            (ErrorKind::Host, lower(&resolver::host_message(code)), data)
        }
        OpError::Denied(denial) => {
            let rule = Some(denial.rule.to_string());
            let grant = Some(denial.grant.clone());
            let data = ErrorData { rule, grant, ..with_errno(denial.errno) };
            (ErrorKind::Denied, denial.to_string(), data)
        }
        OpError::Policy(message) => (ErrorKind::Policy, message, none),
        OpError::Handle(handle) => {
            let message = format!("no handle {handle} in this session");
            (ErrorKind::Handle, message, with_errno(libc::EBADF))
        }
        OpError::HandleKind { handle, kind, wanted } => {
            let message = format!("handle {handle} is a {kind}: the call takes a {wanted}");
            (ErrorKind::Handle, message, with_errno(libc::ENOTSOCK))
        }
        OpError::Session(message) => (ErrorKind::Session, message.to_owned(), none),
        OpError::Interrupted(message) => describe_interrupted(message.to_owned()),
        OpError::LostBytes(lost) => describe_lost(lost),
        OpError::Limit { name, value } => {
            describe_limit("limit", LimitExceeded { name, value }, libc::ENOBUFS)
        }
        OpError::Pace(exceeded) => describe_limit("rate limit", exceeded, libc::EAGAIN),
        OpError::Identity { call, uid } => describe_identity(call, uid),
        OpError::Remote(message) => describe_remote(message),
        OpError::Descriptor(message) => describe_descriptor(message, libc::EBADF),
        OpError::Listens { call } => describe_listening(call),
        OpError::Interface { call, missing } => describe_interface(call, &missing),
        OpError::NameServers { of_host, asked } => describe_name_servers(of_host, &asked),
        OpError::Netns { call, namespace, reason } => describe_netns(call, namespace, &reason),
        OpError::LostDescriptors => describe_descriptor(LOST, libc::EMFILE),
        OpError::ControlConnection => describe_control_connection(),
        OpError::Group(failures) => {
            let message = format!("all {} attempts failed", failures.len());
            let errors = failures.into_iter().map(data).collect();
            (ErrorKind::Os, message, ErrorData { errors, ..none })
        }
        OpError::Partly { sent, cause } => {
            let (kind, message, data) = describe(*cause);
            (kind, message, ErrorData { sent: Some(sent), ..data })
        }
    }
}

fn describe_interrupted(message: String) -> (ErrorKind, String, ErrorData) {
    (ErrorKind::Interrupted, message, with_errno(libc::ECONNABORTED))
}

fn describe_lost(lost: u64) -> (ErrorKind, String, ErrorData) {
    let message =
        format!("{lost} received bytes are lost with the process that served the session");
    describe_interrupted(message)
}

fn describe_name_servers(of_host: bool, asked: &str) -> (ErrorKind, String, ErrorData) {
    let error = if of_host { OpError::Host(TRY_AGAIN) } else { OpError::Gai(libc::EAI_AGAIN) };
    let (kind, message, data) = describe(error);
    (kind, format!("{message}: no answer from {asked}"), data)
}

fn describe_netns(
    call: &'static str,
    namespace: String,
    reason: &Reason,
) -> (ErrorKind, String, ErrorData) {
    let message = format!("{call}: network namespace {namespace:?}: {reason}");
    let (call, netns) = (Some(call.to_owned()), Some(namespace));
    (ErrorKind::Os, message, ErrorData { call, netns, ..with_errno(reason.errno()) })
}

fn describe_descriptor(message: &str, errno: i32) -> (ErrorKind, String, ErrorData) {
    (ErrorKind::Descriptor, message.to_owned(), with_errno(errno))
}

fn describe_interface(call: &'static str, missing: &str) -> (ErrorKind, String, ErrorData) {
    let (kind, message, data) = describe_errno(call, libc::ENODEV);
    let way = "socket.if_nameindex lists the interfaces";
    (kind, format!("{message}: {missing} does not exist here: {way}"), data)
}

fn describe_listening(call: &'static str) -> (ErrorKind, String, ErrorData) {
    let (kind, message, data) = describe_errno(call, libc::EINVAL);
    let way = "the socket listens: open channels on the sockets that it accepts";
    (kind, format!("{message}: {way}"), data)
}

fn describe_control_connection() -> (ErrorKind, String, ErrorData) {
    let message = "the descriptor is an end of a connection to this broker: pass another one";
    let rule = Some(CONTROL_RULE.to_owned());
    (ErrorKind::Denied, message.to_owned(), ErrorData { rule, ..with_errno(libc::EPERM) })
}

fn describe_limit(
    what: &str,
    LimitExceeded { name, value }: LimitExceeded,
    errno: i32,
) -> (ErrorKind, String, ErrorData) {
    let message = format!("the {what} {name} ({value}) was exceeded: see session.limits");
    let limit = Some(name.to_owned());
    (ErrorKind::Limit, message, ErrorData { limit, ..with_errno(errno) })
}

fn describe_identity(call: &str, uid: u32) -> (ErrorKind, String, ErrorData) {
    let message =
        format!("{call}: the broker cannot act as uid {uid}: it needs CAP_SETUID and CAP_SETGID");
    let (rule, call) = (Some(IDENTITY_RULE.to_owned()), Some(call.to_owned()));
    (ErrorKind::Denied, message, ErrorData { rule, call, ..with_errno(libc::EPERM) })
}

fn describe_remote(message: String) -> (ErrorKind, String, ErrorData) {
    let rule = Some(REMOTE_RULE.to_owned());
    (ErrorKind::Denied, message, ErrorData { rule, ..with_errno(libc::EACCES) })
}

/// A message with its first letter in lower case.
fn lower(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map(|first| first.to_lowercase().chain(rest).collect()).unwrap_or_default()
}

fn with_errno(errno: i32) -> ErrorData {
    let name = errno::name(errno).map(str::to_owned);
    ErrorData { errno: Some(errno), name, ..ErrorData::default() }
}

fn describe_errno(call: &'static str, errno: i32) -> (ErrorKind, String, ErrorData) {
    // "Connection refused (os error 111)" becomes "connection refused".
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let text = lower(text.split(" (os error").next().unwrap_or_default());
    let data = ErrorData { call: Some(call.to_owned()), ..with_errno(errno) };
    (ErrorKind::Os, format!("{call}: {text}"), data)
}

fn exception_name(exception: Exception) -> &'static str {
    match exception {
        Exception::TypeError => "TypeError",
        Exception::ValueError => "ValueError",
        Exception::OverflowError => "OverflowError",
        Exception::OSError => "OSError",
    }
}

/// The name of an `EAI_*` code.
fn gai_name(code: i32) -> Option<&'static str> {
    sockbroker_proto::constant::names()
        .find(|(name, value)| name.starts_with("EAI_") && *value == i64::from(code))
        .map(|(name, _)| name)
}

/// Whether serde refused an integer because it does not fit into its type. The JSON parser reads an integer
/// beyond 64 bits as a floating point number without a fraction.
pub(super) fn is_out_of_range(detail: &str) -> bool {
    const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;
    if detail.contains("invalid value: integer `") {
        return true;
    }
    let (_, number) = detail.split_once("invalid type: floating point `").unwrap_or_default();
    let number = number.split('`').next().and_then(|number| number.parse::<f64>().ok());
    number.is_some_and(|number| number.abs() >= TWO_TO_63 && number.fract() == 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_of_the_wrong_kind_is_named_with_both_kinds() {
        let handle = sockbroker_proto::handle::Handle::new(5).unwrap();
        let error = OpError::HandleKind { handle, kind: "capture", wanted: "socket" };
        let (kind, message, data) = describe(error);
        assert_eq!(message, "handle 5 is a capture: the call takes a socket");
        assert_eq!((kind, data.errno), (ErrorKind::Handle, Some(libc::ENOTSOCK)));
    }

    #[test]
    fn large_integers_are_out_of_range_and_fractions_are_not() {
        let refused = |json: &str| serde_json::from_str::<i64>(json).unwrap_err().to_string();
        for json in ["9223372036854775808", "-9223372036854775809", "1180591620717411303424"] {
            assert!(is_out_of_range(&refused(json)), "{json}");
        }
        for json in ["1.5", "-0.25", "1e3", "true", "null", "\"9223372036854775808\""] {
            assert!(!is_out_of_range(&refused(json)), "{json}");
        }
    }
}
