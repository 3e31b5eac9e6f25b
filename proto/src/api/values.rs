//! Result types that several themes share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::address::AddressValue;
use crate::ancillary::AncillaryItem;
use crate::bytes::Bytes;
use crate::handle::Handle;

/// A socket that was made: its handle, and what Python's attributes say of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Created {
    /// The handle.
    pub handle: Handle,
    /// `socket.family`.
    pub family: i32,
    /// `socket.type`, without `SOCK_NONBLOCK` and `SOCK_CLOEXEC`.
    pub r#type: i32,
    /// `socket.proto`.
    pub proto: i32,
    /// `socket.gettimeout()` in seconds; `null` blocks, 0 never waits.
    pub timeout: Option<f64>,
}

/// A connection that was accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Accepted {
    /// The handle of the new socket.
    pub handle: Handle,
    /// `socket.family`.
    pub family: i32,
    /// `socket.type`, without flags.
    pub r#type: i32,
    /// `socket.proto`.
    pub proto: i32,
    /// The session's default timeout in seconds: the listener's own is not inherited.
    pub timeout: Option<f64>,
    /// The address of the peer.
    pub address: AddressValue,
}

/// `family`, `type` and `proto` of a socket object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Attributes {
    /// `socket.family`.
    pub family: i32,
    /// `socket.type`, without flags.
    pub r#type: i32,
    /// `socket.proto`.
    pub proto: i32,
    /// `socket.gettimeout()` in seconds.
    pub timeout: Option<f64>,
}

/// What `recv` and `recv_into` received.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Received {
    /// The bytes.
    pub data: Bytes,
    /// What `recv(2)` returned; more than the bytes given where `MSG_TRUNC` asked for the true
    /// length of a datagram.
    pub n: u64,
    /// Whether this is the end of the stream. An empty datagram has `n` 0 and `eof` false.
    pub eof: bool,
}

/// What `recvfrom` and `recvfrom_into` received.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReceivedFrom {
    /// The bytes.
    pub data: Bytes,
    /// What `recvfrom(2)` returned.
    pub n: u64,
    /// Whether this is the end of the stream.
    pub eof: bool,
    /// The sender; `null` where the socket reports none.
    pub address: AddressValue,
}

/// What `recvmsg` and `recvmsg_into` received.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReceivedMessage {
    /// The bytes.
    pub data: Bytes,
    /// What `recvmsg(2)` returned.
    pub n: u64,
    /// Whether this is the end of the stream.
    pub eof: bool,
    /// The ancillary data.
    pub ancdata: Vec<AncillaryItem>,
    /// `msg_flags`, such as `MSG_TRUNC` or `MSG_CTRUNC`.
    pub flags: i32,
    /// The sender; `null` where the socket reports none.
    pub address: AddressValue,
}

/// The value of a socket option or of an `ioctl` argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OptionValue {
    /// An integer, as C `int`.
    Int(i64),
    /// A buffer.
    Bytes(Bytes),
}
