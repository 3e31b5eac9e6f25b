//! Channels: the data of a socket without calls.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::handle::Handle;

/// How the data of a channel is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChannelFraming {
    /// As frames, with the end of each direction, errors, datagrams with addresses, and out-of-band data.
    Frames,
    /// As the bytes of a stream.
    Raw,
}

/// Which data a channel carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChannelDirection {
    /// Received and sent data.
    Both,
    /// Received data.
    Receive,
    /// Data to be sent.
    Send,
}

/// A channel: either a descriptor is attached to the response, or there is a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChannelOpened {
    /// Whether a descriptor is attached to the response: the client's end of a pair of connected `AF_UNIX` stream
    /// sockets.
    pub fd: bool,
    /// `socket.type` of the socket, without `SOCK_NONBLOCK` and `SOCK_CLOEXEC`: what is not a stream needs frames.
    pub r#type: i32,
    /// The token: it is valid once, and only for the same user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The path of an HTTP request that begins the channel: `/channel/` and the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How long the token is valid, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// Channels.
#[sockbroker_proto_macros::api(namespace = "channel")]
pub trait Channel {
    /// Opens a channel: the broker moves the data of a socket to a descriptor of the client, or to another connection.
    ///
    /// Python has no such call. While a channel receives, other receiving calls on the socket fail with `EBUSY`, as does
    /// a second channel for the same direction. The policy judges what the channel receives and sends like calls. A
    /// channel of a socket that is not connected yet waits for the connection.
    #[method(name = "open")]
    fn open(
        &self,
        handle: Handle,
        /// Whether to attach a descriptor to the response; otherwise the response has a token for
        /// `GET /channel/TOKEN` with `Upgrade: sockbroker-channel` (frames) or `Upgrade: sockbroker-raw`.
        want_fd: Option<bool>,
        /// For a descriptor: `raw` if absent and the socket is a stream, otherwise `frames`. `raw` is for streams.
        framing: Option<ChannelFraming>,
        /// `both` if absent.
        direction: Option<ChannelDirection>,
        /// Whether the handle is closed when the client has closed its end; `false` if absent.
        close: Option<bool>,
    ) -> RpcResult<ChannelOpened>;
}
