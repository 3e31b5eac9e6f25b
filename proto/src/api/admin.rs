//! What is open: for the owner of a session, and for whoever administers the broker.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::Generation;
use crate::address::AddressValue;
use crate::handle::Handle;

/// An open handle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HandleInfo {
    /// The handle.
    pub handle: Handle,
    /// The number of the session that it is of use in.
    pub session: u64,
    /// `socket.family`.
    pub family: i32,
    /// `socket.type`, without flags.
    pub r#type: i32,
    /// `socket.proto`.
    pub proto: i32,
    /// `socket.gettimeout()` in seconds; `null` blocks, 0 never waits.
    pub timeout: Option<f64>,
    /// `socket.getsockname()`; `null` where the kernel tells none.
    pub local: AddressValue,
    /// `socket.getpeername()`; `null` without a peer.
    pub peer: AddressValue,
    /// Whether it accepts connections.
    pub listening: bool,
    /// Seconds since the broker got the socket.
    pub age: f64,
}

/// A session of the broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SessionSummary {
    /// The session's number, as in logs.
    pub session: u64,
    /// The user it belongs to.
    pub uid: u32,
    /// How many connections are attached.
    pub connections: u64,
    /// How many handles are open.
    pub handles: u64,
    /// Whether it was opened (a token exists) or is implicit.
    pub opened: bool,
    /// Seconds that handles outlive the last connection.
    pub linger: f64,
    /// Seconds since it began.
    pub age: f64,
}

/// The caller's own handles.
#[sockbroker_proto_macros::api(namespace = "session")]
pub trait Handles {
    /// The open handles of the caller's session, lowest first; or of all sessions of its user, the oldest
    /// session first.
    #[method(name = "handles")]
    fn handles(
        &self,
        /// Whether those of all sessions of the user are listed. A session that gave rights up is refused.
        all_sessions: Option<bool>,
    ) -> RpcResult<Vec<HandleInfo>>;
}

/// The sessions of everybody, for those who administer the broker.
#[sockbroker_proto_macros::api(namespace = "admin")]
pub trait Admin {
    /// Every session of the broker, oldest first; that of the caller is among them.
    #[method(name = "sessions")]
    fn sessions(&self) -> RpcResult<Vec<SessionSummary>>;

    /// The open handles of any session, lowest first. The numbers are of use in that session alone.
    #[method(name = "handles")]
    fn session_handles(
        &self,
        /// The session's number, from `admin.sessions`.
        session: u64,
    ) -> RpcResult<Vec<HandleInfo>>;

    /// Reads the policy's files again and puts them in force, whole; on any mistake the policy stays as
    /// it is and the error `policy` tells where the mistake is.
    #[method(name = "reload")]
    async fn reload(&self) -> RpcResult<Generation>;
}
