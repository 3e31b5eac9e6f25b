//! Several messages in one call: `recvmmsg(2)` and `sendmmsg(2)`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::ReceivedMessage;
use crate::address::AddressValue;
use crate::ancillary::AncillaryItem;
use crate::bytes::Bytes;
use crate::constant::Constant;
use crate::error::ErrorData;
use crate::handle::Handle;

/// A message of `sendmmsg`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutgoingMessage {
    /// The data, gathered from these buffers.
    pub buffers: Vec<Bytes>,
    /// Ancillary data.
    #[serde(default)]
    pub ancdata: Vec<AncillaryItem>,
    /// The destination.
    #[serde(default)]
    pub address: Option<AddressValue>,
}

/// The outcome of one message of `sendmmsg`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SentMessage {
    /// The message was sent.
    Sent {
        /// The number of bytes sent.
        n: u64,
    },
    /// The message was not sent, and the call sent no later message.
    Failed {
        /// The error of this message.
        error: Box<ErrorData>,
    },
}

/// Several messages in one call.
#[sockbroker_proto_macros::api(namespace = "socket")]
pub trait Batch {
    /// `recvmmsg(2)`: waits for one message, then takes the others that have arrived.
    #[method(name = "recvmmsg")]
    async fn recvmmsg(
        &self,
        handle: Handle,
        /// At most this many messages; 1 to 1024.
        vlen: i64,
        /// At most this many bytes of each.
        bufsize: i64,
        /// Room for ancillary data of each, in bytes.
        ancbufsize: Option<i64>,
        /// `MSG_*`.
        flags: Option<Constant>,
    ) -> RpcResult<Vec<ReceivedMessage>>;

    /// `sendmmsg(2)`: sends the messages in order, with a result for each attempt.
    ///
    /// The list ends at the first failure. A failure of the first message is an error of the
    /// call, as in `sendmmsg(2)`.
    #[method(name = "sendmmsg")]
    async fn sendmmsg(
        &self,
        handle: Handle,
        /// At most 1024 messages.
        messages: Vec<OutgoingMessage>,
        /// `MSG_*`.
        flags: Option<Constant>,
    ) -> RpcResult<Vec<SentMessage>>;
}
