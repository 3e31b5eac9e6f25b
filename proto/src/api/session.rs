//! Sessions, calls of a closed connection, and the module's constants.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::Filter;

/// The module's attributes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Constants {
    /// Every constant of Python's module on this platform, by name.
    pub constants: BTreeMap<String, i64>,
    /// `socket.has_ipv6`: true on Linux, where CPython is always built with IPv6.
    pub has_ipv6: bool,
}

/// A session that was opened or cloned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Opened {
    /// The session's number and 256 random bits in hexadecimal, with a dot between: anyone who has the same
    /// user id, groups, network namespace and this token can attach.
    pub token: String,
    /// This connection, as `call.resolve` names it; for `session.clone` the connection of the call.
    pub connection: u64,
    /// The version of the protocol.
    pub protocol: u32,
    /// The version of the broker.
    pub version: String,
    /// The number of the process that serves the session. Where `session.attach` returns another number than before,
    /// that process has ended: calls that were in progress are lost, and handles remain those of a session that was
    /// opened with `persist`.
    #[serde(default)]
    pub epoch: u64,
    /// What the session and its handles outlive; absent if it was not opened with `persist`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persist: Option<Persistence>,
}

/// What a session and its handles outlive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Persistence {
    /// The end of the process that serves the session, but not that of the service: no service manager confirms that
    /// it keeps sockets.
    Worker,
    /// The end of the service: its restart, its upgrade, and a crash.
    Service,
}

/// Information about the caller and its session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SessionInfo {
    /// The session's number, which appears in logs.
    pub session: u64,
    /// This connection, as `call.resolve` names it.
    pub connection: u64,
    /// The number of attached connections.
    pub connections: u64,
    /// The number of open handles.
    pub handles: u64,
    /// `getdefaulttimeout` in seconds.
    pub default_timeout: Option<f64>,
    /// The number of seconds that handles outlive the last connection.
    pub linger: f64,
    /// Whether the session was opened (a token exists) or is implicit.
    pub opened: bool,
    /// The caller's user id, as the kernel reported it; the number of a remote principal, which no user has.
    pub uid: u32,
    /// The name of a remote principal: its certificate or its token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// The caller's group id, as the kernel reported it.
    pub gid: u32,
    /// The caller's process id when it connected, if the kernel reported it.
    pub pid: Option<i32>,
    /// The framing or protocol of this connection: `lsp`, `ndjson`, `http` or `websocket`.
    pub framing: String,
    /// Whether messages of this connection can carry descriptors.
    pub descriptors: bool,
    /// Whether all responses on this connection may have attachments.
    pub attachments: bool,
    /// The version of the protocol.
    pub protocol: u32,
    /// The version of the broker.
    pub version: String,
}

/// The value and meaning of a limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LimitInfo {
    /// The value in force.
    pub value: u64,
    /// `bytes`, `seconds` or `count`.
    pub unit: String,
    /// What is limited, and what happens above the limit.
    pub meaning: String,
}

/// The outcome of a call of a closed connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Resolved {
    /// How the call ended.
    pub state: CallState,
    /// For `answered`: the complete response; its attachments and descriptors are attached to this
    /// frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<serde_json::Value>,
    /// For `cancelled`: the number of bytes already sent, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<u64>,
}

/// How a call of a closed connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CallState {
    /// It did not arrive completely, or its response was fetched already, or is no longer kept.
    Unknown,
    /// It was cancelled while it waited; a send can have sent a part.
    Cancelled,
    /// It was answered; the response is in `answer`.
    Answered,
    /// The process that served it has ended. Whether the call took effect is not known.
    Interrupted,
}

/// The identifier of a request: a number or a string.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a request id: an unsigned integer or a string")]
pub enum RequestId {
    /// A number.
    Number(u64),
    /// A string.
    Text(String),
}

/// The module's own attributes.
#[sockbroker_proto_macros::api(namespace = "socket")]
pub trait Module {
    /// The constants of the module, and `has_ipv6`.
    #[method(name = "constants")]
    fn constants(&self) -> RpcResult<Constants>;
}

/// Sessions.
#[sockbroker_proto_macros::api(namespace = "session")]
pub trait Session {
    /// Gives this connection's session a token, with which further connections can attach.
    #[method(name = "open")]
    async fn open(
        &self,
        /// The number of seconds that handles outlive the last connection; 0 if absent.
        linger: Option<f64>,
        /// Whether all responses on this connection may have attachments (LSP framing only).
        attachments: Option<bool>,
        /// With this or `filters`: creates a further session instead, for a child process. It keeps the rights
        /// that `session.restrict` keeps with these parameters, and closes if no client attaches within the limit
        /// `clone_seconds`.
        rules: Option<Vec<String>>,
        /// The rights that the further session keeps, regardless of the rule that grants them.
        filters: Option<Vec<Filter>>,
        /// Whether responses on this connection may have descriptors. A client behind a relay sends false, because a
        /// relay drops them; this takes effect even if the policy refuses the session.
        descriptors: Option<bool>,
        /// Whether the session and its sockets outlive the process that serves them: then they wait for
        /// `session.attach`, at most the limit `reattach_seconds` or the session's `linger`. Streams, calls in progress
        /// and kept responses are lost. Requires the grant `persist`; not with `rules` or `filters`.
        persist: Option<bool>,
        /// With `persist`: whether received bytes of TCP stay in the queue of the socket until the response is written
        /// to this connection, so that they are not lost if the process ends. The queue may then have bytes that the
        /// client has received: after a change of `epoch` it calls `socket.resume` on each TCP socket before it receives
        /// from it. The client does not receive from descriptors that it gets by `want_fd` before it calls `socket.fileno`.
        exactly_once: Option<bool>,
    ) -> RpcResult<Opened>;

    /// Moves this connection into an open session of the same user.
    ///
    /// Refused while this connection's own session has open handles, which would be closed.
    #[method(name = "attach")]
    fn attach(
        &self,
        /// The token.
        token: String,
        /// Whether all responses on this connection may have attachments (LSP framing only).
        attachments: Option<bool>,
        /// Whether responses on this connection may have descriptors, as in `session.open`.
        descriptors: Option<bool>,
    ) -> RpcResult<Opened>;

    /// Creates a new session with duplicates of all handles under the same numbers, for `fork()`.
    ///
    /// It closes if no client attaches within the limit `clone_seconds`.
    #[method(name = "clone")]
    async fn clone_session(&self) -> RpcResult<Opened>;

    /// Closes all handles of this session immediately, and invalidates the token.
    #[method(name = "close")]
    fn close(&self) -> RpcResult<()>;

    /// Information about the caller and its session.
    #[method(name = "info")]
    fn info(&self) -> RpcResult<SessionInfo>;

    /// Every limit by name.
    #[method(name = "limits")]
    fn limits(&self) -> RpcResult<BTreeMap<String, LimitInfo>>;
}

/// Calls of other connections of this session.
#[sockbroker_proto_macros::api(namespace = "call")]
pub trait Call {
    /// The outcome of a call of a closed connection.
    ///
    /// Waits until the broker has detected the end of that connection, at most the limit
    /// `resolve_seconds`. The broker keeps the response to a connection's latest request until the next
    /// request on it, and after its end until the call is resolved or the limits `resolve_kept` and
    /// `resolve_kept_seconds` are reached.
    #[method(name = "resolve")]
    async fn resolve(
        &self,
        /// The connection's number, from `session.open`, `session.attach` or `session.info`.
        connection: u64,
        /// The request's id.
        request: RequestId,
    ) -> RpcResult<Resolved>;
}
