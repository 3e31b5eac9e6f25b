//! Result types that several themes share.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Visitor};
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
#[serde(untagged, expecting = "an integer or bytes")]
pub enum OptionValue {
    /// An integer, as C `int`.
    Int(i64),
    /// A buffer.
    Bytes(Bytes),
}

/// A timeout that must be given: seconds, or `null`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Seconds(pub Option<f64>);

impl<'de> Deserialize<'de> for Seconds {
    /// By hand, since a derived one would take an absent field for `null`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecondsVisitor)
    }
}

struct SecondsVisitor;

impl Visitor<'_> for SecondsVisitor {
    type Value = Seconds;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("seconds or null")
    }

    fn visit_unit<E: Error>(self) -> Result<Seconds, E> {
        Ok(Seconds(None))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Seconds, E> {
        Ok(Seconds(Some(value)))
    }

    #[expect(clippy::cast_precision_loss, reason = "as precise as any JSON number")]
    fn visit_u64<E: Error>(self, value: u64) -> Result<Seconds, E> {
        Ok(Seconds(Some(value as f64)))
    }

    #[expect(clippy::cast_precision_loss, reason = "as precise as any JSON number")]
    fn visit_i64<E: Error>(self, value: i64) -> Result<Seconds, E> {
        Ok(Seconds(Some(value as f64)))
    }
}

impl JsonSchema for Seconds {
    fn schema_name() -> Cow<'static, str> {
        "Seconds".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": "Seconds, or null", "type": ["number", "null"] })
    }
}
