//! Result types that several namespaces share.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};

use crate::address::AddressValue;
use crate::ancillary::AncillaryItem;
use crate::api::channel::ChannelOpened;
use crate::bytes::Bytes;
use crate::handle::Handle;

/// A socket that was created: its handle, and the values of Python's attributes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Created {
    /// The handle of the new socket.
    pub handle: Handle,
    /// `socket.family`.
    pub family: i32,
    /// `socket.type`, without `SOCK_NONBLOCK` and `SOCK_CLOEXEC`.
    pub r#type: i32,
    /// `socket.proto`.
    pub proto: i32,
    /// `socket.gettimeout()` in seconds; `null` blocks, 0 never waits.
    pub timeout: Option<f64>,
    /// The channel, if the call asked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelOpened>,
}

/// A network namespace other than the broker's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "a network namespace: \"caller\", a name of `ip netns list`, or {\"descriptor\": n}"
)]
pub enum Netns {
    /// `caller`, or a name of `ip netns list`.
    Named(String),
    /// One whose descriptor is attached to the frame.
    Passed(PassedNetns),
}

/// `{"descriptor": n}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PassedNetns {
    /// The index, from 0, of a descriptor of the frame, such as one of `/proc/PID/ns/net`.
    pub descriptor: u32,
}

/// An accepted connection.
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
    /// The session's default timeout in seconds; the listener's own timeout is not inherited.
    pub timeout: Option<f64>,
    /// The address of the peer.
    pub address: AddressValue,
    /// The channel, if the call asked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelOpened>,
}

/// The bytes that a TCP connection has sent and received.
///
/// The kernel counts the `SYN` of the connecting side and each `FIN` as one byte: only the difference of two results is a
/// number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Position {
    /// The bytes that were passed to the kernel for sending.
    pub sent: u64,
    /// The bytes that were taken from the kernel. What arrived and was not received does not count.
    pub received: u64,
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
    /// The result of `recv(2)`; with `MSG_TRUNC` the length of a datagram, which can exceed the
    /// number of bytes in `data`.
    pub n: u64,
    /// Whether this is the end of the stream. An empty datagram has `n` 0 and `eof` false.
    pub eof: bool,
}

/// What `recvfrom` and `recvfrom_into` received.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReceivedFrom {
    /// The bytes.
    pub data: Bytes,
    /// The result of `recvfrom(2)`, as `n` of `recv`.
    pub n: u64,
    /// Whether this is the end of the stream.
    pub eof: bool,
    /// The sender; `null` if the socket reports none.
    pub address: AddressValue,
}

/// What `recvmsg` and `recvmsg_into` received.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReceivedMessage {
    /// The bytes.
    pub data: Bytes,
    /// The result of `recvmsg(2)`, as `n` of `recv`.
    pub n: u64,
    /// Whether this is the end of the stream.
    pub eof: bool,
    /// The ancillary data.
    pub ancdata: Vec<AncillaryItem>,
    /// `msg_flags`, such as `MSG_TRUNC` or `MSG_CTRUNC`.
    pub flags: i32,
    /// The sender; `null` if the socket reports none.
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

/// A timeout that must be present: seconds, or `null`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Seconds(pub Option<f64>);

impl<'de> Deserialize<'de> for Seconds {
    /// Not derived, because a derived implementation reads an absent field as `null`.
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
