//! The broker's own calls: sessions, calls of a lost connection, the module's constants.

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
    /// The session's number and 256 random bits in hexadecimal, with a dot between: whoever has the same
    /// user id and this token may attach.
    pub token: String,
    /// This connection, as `call.resolve` names it; for `session.clone` the one that asked.
    pub connection: u64,
    /// The version of the protocol.
    pub protocol: u32,
    /// The version of the broker.
    pub version: String,
}

/// What is known of the caller and its session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SessionInfo {
    /// The session's number, for logs and people.
    pub session: u64,
    /// This connection, as `call.resolve` names it.
    pub connection: u64,
    /// How many connections are attached.
    pub connections: u64,
    /// How many handles are open.
    pub handles: u64,
    /// `getdefaulttimeout` in seconds.
    pub default_timeout: Option<f64>,
    /// Seconds that handles outlive the last connection.
    pub linger: f64,
    /// Whether the session was opened (a token exists) or is implicit.
    pub opened: bool,
    /// The caller's user id, as the kernel told it.
    pub uid: u32,
    /// The caller's group id.
    pub gid: u32,
    /// The caller's process id when it connected, where the kernel told it.
    pub pid: Option<i32>,
    /// The spelling of this connection: `lsp`, `ndjson`, `http` or `websocket`.
    pub spelling: String,
    /// Whether descriptors can ride beside frames of this connection.
    pub descriptors: bool,
    /// Whether answers on this connection may carry attachments unasked.
    pub attachments: bool,
    /// The version of the protocol.
    pub protocol: u32,
    /// The version of the broker.
    pub version: String,
}

/// One named limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LimitInfo {
    /// The value in force.
    pub value: u64,
    /// `bytes`, `seconds` or `count`.
    pub unit: String,
    /// What it limits, and what happens beyond it.
    pub meaning: String,
}

/// What became of a call whose connection was lost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Resolved {
    /// How it ended.
    pub state: CallState,
    /// For `answered`: the whole answer as it was, its attachments and descriptors beside this
    /// frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<serde_json::Value>,
    /// For `cancelled`: bytes that had already been sent, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<u64>,
}

/// How a call of a lost connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CallState {
    /// It never arrived whole, or its answer was taken already, or is no longer kept.
    Unknown,
    /// It was cancelled while it waited; a send may have sent a part.
    Cancelled,
    /// It was answered; the answer is here.
    Answered,
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
    /// Gives this connection's session a token, so that further connections can attach.
    #[method(name = "open")]
    fn open(
        &self,
        /// Seconds that handles outlive the last connection; 0 if absent.
        linger: Option<f64>,
        /// Whether answers on this connection may carry attachments unasked (LSP framing only).
        attachments: Option<bool>,
        /// With this or `filters`: makes a further session instead, for a child process. It keeps no more
        /// than `session.restrict` would with the same, and closes if nobody attaches within the limit
        /// `clone_seconds`.
        rules: Option<Vec<String>>,
        /// What the further session keeps whatever rule grants it.
        filters: Option<Vec<Filter>>,
    ) -> RpcResult<Opened>;

    /// Moves this connection into an open session of the same user.
    ///
    /// Refused while this connection's own session holds handles: they would close unseen.
    #[method(name = "attach")]
    fn attach(
        &self,
        /// The token.
        token: String,
        /// Whether answers on this connection may carry attachments unasked (LSP framing only).
        attachments: Option<bool>,
    ) -> RpcResult<Opened>;

    /// A new session with every handle duplicated under the same number, for `fork()`.
    ///
    /// It closes if nobody attaches within the limit `clone_seconds`.
    #[method(name = "clone")]
    fn clone_session(&self) -> RpcResult<Opened>;

    /// Closes every handle of this session at once; the token is void.
    #[method(name = "close")]
    fn close(&self) -> RpcResult<()>;

    /// What is known of the caller and its session.
    #[method(name = "info")]
    fn info(&self) -> RpcResult<SessionInfo>;

    /// Every limit by name.
    #[method(name = "limits")]
    fn limits(&self) -> RpcResult<BTreeMap<String, LimitInfo>>;
}

/// Calls of other connections of this session.
#[sockbroker_proto_macros::api(namespace = "call")]
pub trait Call {
    /// What became of a call on a connection that was dropped.
    ///
    /// Waits until the broker has seen the end of that connection, at most the limit
    /// `resolve_seconds`. The answer to a connection's latest request is kept until the next request
    /// on it, and after its end until it is resolved or the limits `resolve_kept` and
    /// `resolve_kept_seconds` are reached.
    #[method(name = "resolve")]
    async fn resolve(
        &self,
        /// The connection's number, from `session.open`, `attach` or `info`.
        connection: u64,
        /// The request's id.
        request: RequestId,
    ) -> RpcResult<Resolved>;
}
