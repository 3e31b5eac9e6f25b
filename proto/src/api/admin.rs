//! Open handles and sessions: for the owner of a session, and for administrators of the broker.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::Generation;
use super::session::{Persistence, RequestId};
use crate::address::AddressValue;
use crate::handle::Handle;

/// An open handle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HandleInfo {
    /// The handle.
    pub handle: Handle,
    /// The number of the session in which the handle is usable.
    pub session: u64,
    /// `socket.family`.
    pub family: i32,
    /// `socket.type`, without flags.
    pub r#type: i32,
    /// `socket.proto`.
    pub proto: i32,
    /// `socket.gettimeout()` in seconds; `null` blocks, 0 never waits.
    pub timeout: Option<f64>,
    /// `socket.getsockname()`; `null` if the kernel reports none.
    pub local: AddressValue,
    /// `socket.getpeername()`; `null` without a peer.
    pub peer: AddressValue,
    /// Whether the socket listens.
    pub listening: bool,
    /// Seconds since the broker received or created the socket; after the end of the process that served the session,
    /// since its recovery.
    pub age: f64,
    /// The request that made the handle; absent for a handle of `session.clone`. After the loss of a connection, it
    /// identifies the result of a request whose response was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maker: Option<Maker>,
    /// Why a channel of the socket has ended; absent while it has none that ended so, or a further one was opened since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_ended: Option<ChannelEnded>,
}

/// Why a channel has ended, if its own end cannot report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChannelEnded {
    /// The process that served the session has ended. Data on their way between the channel and the socket are lost.
    Interrupted,
}

/// The request that made a handle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Maker {
    /// The connection, as `call.resolve` names it.
    pub connection: u64,
    /// The request's id.
    pub request: RequestId,
}

/// A session of the broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SessionSummary {
    /// The session's number, which appears in logs.
    pub session: u64,
    /// The user that the session belongs to; the number of a remote principal, which no user has.
    pub uid: u32,
    /// The name of a remote principal: its certificate or its token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// The number of attached connections.
    pub connections: u64,
    /// The number of open handles.
    pub handles: u64,
    /// Whether it was opened (a token exists) or is implicit.
    pub opened: bool,
    /// The number of seconds that handles outlive the last connection.
    pub linger: f64,
    /// Seconds since the session began; of one that waits, since it was opened with `persist`.
    pub age: f64,
    /// What it outlives; absent if it was not opened with `persist`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persist: Option<Persistence>,
    /// Whether a process serves it.
    #[serde(default)]
    pub state: ServingState,
    /// Of one that waits: seconds since its process ended, or since its last connection if that was earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<f64>,
    /// Of one that waits: seconds until its handles close, unless a client attaches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<f64>,
}

/// Whether a process serves a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServingState {
    /// A process serves it.
    #[default]
    Served,
    /// It was opened with `persist`, and its process has ended: the next connection of its principal starts another.
    Waiting,
}

/// The caller's own handles.
#[sockbroker_proto_macros::api(namespace = "session")]
pub trait Handles {
    /// The open handles of the caller's session, lowest first; or of all sessions of its user, the oldest
    /// session first.
    #[method(name = "handles")]
    fn handles(
        &self,
        /// Whether to list all sessions of the user. Refused for a session that has dropped rights.
        all_sessions: Option<bool>,
    ) -> RpcResult<Vec<HandleInfo>>;
}

/// The sessions of all users, for administrators of the broker.
#[sockbroker_proto_macros::api(namespace = "admin")]
pub trait Admin {
    /// Every session of the broker, including the caller's; those that wait for a client without a process are the last.
    #[method(name = "sessions")]
    async fn sessions(&self) -> RpcResult<Vec<SessionSummary>>;

    /// The open handles of any session, lowest first. The numbers are valid only in that session.
    #[method(name = "handles")]
    async fn session_handles(
        &self,
        /// The session's number, from `admin.sessions`.
        session: u64,
    ) -> RpcResult<Vec<HandleInfo>>;

    /// Reloads the policy. If it has an error, the old policy stays in force, and the error `policy` names
    /// the position.
    #[method(name = "reload")]
    async fn reload(&self) -> RpcResult<Generation>;
}
