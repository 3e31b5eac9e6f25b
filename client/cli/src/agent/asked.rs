//! The requests for channels that the broker has not answered, and what follows its answers.

use serde_json::{Value, json};

use crate::agent::channel::Wanted;
use crate::agent::framed::Frame;
use crate::agent::refusals::{no_boundaries, refusal};

/// The parameters of `channel.open` in their order.
const OPEN: [&str; 5] = ["handle", "want_fd", "framing", "direction", "close"];

/// How a client asked for a channel.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Asked {
    /// By `channel.open`. The frame `close` of the channel closes the handle after all data.
    Open {
        /// Whether the client moves frames; `None` if the kind of the socket decides.
        frames: Option<bool>,
        close: bool,
    },
    /// By `channel.open` for plain bytes: the broker first answers `socket.attributes`. The parameters are those of a
    /// request for a token.
    Raw { params: Value, close: bool },
    /// By `want_channel` of a call that returns a new socket.
    WithSocket,
    /// By `socket.fileno` and `socket.detach`: the broker first answers `socket.attributes`.
    Attributes(Detached),
    /// The same, when the socket is a stream.
    Stream(Detached),
}

/// A handle whose descriptor a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Detached {
    handle: u64,
    /// Whether the handle is closed with the descriptor.
    close: bool,
}

/// A channel that the broker has granted.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) wanted: Wanted,
    pub(super) path: String,
    /// The request at its end.
    pub(super) last: Option<Frame>,
}

/// What follows an answer of the broker.
#[derive(Debug)]
pub(super) enum Next {
    /// The answer grants a channel. In it, a descriptor takes the place of the token.
    Channel(Granted),
    /// A further request, whose answer decides.
    Request(Asked, Frame),
    /// The client is refused.
    Refusal(Frame),
    /// The answer is for the client as it is.
    Nothing,
}

impl Asked {
    /// Takes the answer of the broker.
    pub(super) fn answered(self, message: &mut Value) -> Next {
        let kind = message.get("result").and_then(|result| result.get("type"));
        let is_stream = kind == Some(&json!(libc::SOCK_STREAM));
        let id = message.get("id").cloned().unwrap_or_default();
        match self {
            Self::Attributes(_) | Self::Raw { .. } if kind.is_none() => Next::Nothing,
            Self::Attributes(detached) if is_stream => {
                let Detached { handle, close } = detached;
                let params = json!({ "handle": handle, "close": close });
                Next::Request(Self::Stream(detached), open(&id, &params))
            }
            Self::Attributes(_) => Next::Refusal(refusal(&id)),
            Self::Raw { params, close } if is_stream => {
                Next::Request(Self::Open { frames: Some(false), close }, open(&id, &params))
            }
            Self::Raw { .. } => Next::Refusal(no_boundaries(&id)),
            asked => asked.granted(message, is_stream).map_or(Next::Nothing, Next::Channel),
        }
    }

    fn granted(self, message: &mut Value, is_stream: bool) -> Option<Granted> {
        let result = message.get_mut("result")?;
        let is_number = matches!(self, Self::Stream(_));
        let (wanted, channel, last) = match self {
            Self::Attributes(_) | Self::Raw { .. } => return None,
            Self::Open { frames, close } => {
                (Wanted { frames: frames.unwrap_or(!is_stream), close }, result, None)
            }
            Self::WithSocket => {
                // The frame `close` does not arrive if the peer has reset the connection.
                let last = close(result.get("handle")?);
                let wanted = Wanted { frames: !is_stream, close: true };
                (wanted, result.get_mut("channel")?, Some(last))
            }
            Self::Stream(Detached { close, .. }) => (Wanted { frames: false, close }, result, None),
        };
        let path = channel.get("path")?.as_str()?.to_owned();
        let kind = channel.get("type").cloned();
        *channel = if is_number { json!(1) } else { json!({ "fd": true }) };
        if let Some(kind) = kind.filter(|_| !is_number) {
            channel["type"] = kind;
        }
        Some(Granted { wanted, path, last })
    }
}

/// Makes the parameters of `channel.open` those of a request for a token; `None` if they are already.
pub(super) fn without_descriptor(params: &mut Value) -> Option<Asked> {
    if let Value::Array(values) = params {
        let values = std::mem::take(values);
        let named = OPEN.iter().zip(values).map(|(name, value)| ((*name).to_owned(), value));
        *params = named.collect();
    }
    let fields = params.as_object_mut()?;
    if fields.get("want_fd") != Some(&Value::Bool(true)) {
        return None;
    }
    let close = fields.get("close") == Some(&Value::Bool(true));
    let frames = match fields.get("framing").map(Value::as_str) {
        None => None,
        Some(Some("frames")) => Some(true),
        Some(Some("raw")) => Some(false),
        // The broker refuses it.
        Some(_) => return None,
    };
    fields.remove("want_fd");
    fields.remove("framing");
    if frames == Some(false) {
        let attributes = json!({ "handle": fields.get("handle") });
        let params = std::mem::replace(params, attributes);
        return Some(Asked::Raw { params, close });
    }
    Some(Asked::Open { frames, close })
}

/// Whether the named parameters of another call ask for a channel.
pub(super) fn with_socket(params: &Value) -> Option<Asked> {
    (params.get("want_channel")? == true).then_some(Asked::WithSocket)
}

/// The handle in the parameters of `socket.fileno` or `socket.detach`, which are those of `socket.attributes` too.
pub(super) fn attributes_of(params: &Value, close: bool) -> Option<Asked> {
    let handle = params.get("handle").or_else(|| params.get(0))?.as_u64()?;
    Some(Asked::Attributes(Detached { handle, close }))
}

fn open(id: &Value, params: &Value) -> Frame {
    let request = json!({ "jsonrpc": "2.0", "id": id, "method": "channel.open", "params": params });
    Frame::of(request.to_string().into_bytes(), 0)
}

/// A notification, which has no answer.
fn close(handle: &Value) -> Frame {
    let request = json!({ "jsonrpc": "2.0", "method": "socket.close", "params": [handle] });
    Frame::of(request.to_string().into_bytes(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_for_descriptors_become_requests_for_tokens() {
        let mut params = json!([7, true, "frames"]);
        let asked = Asked::Open { frames: Some(true), close: false };
        assert_eq!(without_descriptor(&mut params), Some(asked));
        assert_eq!(params, json!({ "handle": 7 }));
        let mut params = json!({ "handle": 7, "want_fd": true, "close": true });
        let asked = Asked::Open { frames: None, close: true };
        assert_eq!(without_descriptor(&mut params), Some(asked));
        assert_eq!(params, json!({ "handle": 7, "close": true }));
        let mut params = json!([7, true, "raw", "send"]);
        let wanted = json!({ "handle": 7, "direction": "send" });
        let asked = Asked::Raw { params: wanted, close: false };
        assert_eq!(without_descriptor(&mut params), Some(asked));
        assert_eq!(params, json!({ "handle": 7 }));
        assert_eq!(without_descriptor(&mut json!([7, true, "lines"])), None);
        assert_eq!(without_descriptor(&mut json!([7])), None);
        assert_eq!(with_socket(&json!({ "want_channel": true })), Some(Asked::WithSocket));
        assert_eq!(with_socket(&json!({ "want_channel": false })), None);
        let detached = Some(Asked::Attributes(Detached { handle: 7, close: true }));
        assert_eq!(attributes_of(&json!([7]), true), detached);
        assert_eq!(attributes_of(&json!({ "handle": 7 }), true), detached);
    }

    #[test]
    fn answers_get_a_descriptor_in_place_of_the_token() {
        let channel = |kind: i32| json!({ "fd": false, "type": kind, "token": "x", "path": "/channel/x", "seconds": 30 });
        let mut answer =
            json!({ "id": 1, "result": { "handle": 9, "type": 2, "channel": channel(2) } });
        let Granted { wanted, path, last } = Asked::WithSocket.granted(&mut answer, false).unwrap();
        assert_eq!((wanted, &*path), (Wanted { frames: true, close: true }, "/channel/x"));
        let last: Value = serde_json::from_slice(last.unwrap().json()).unwrap();
        assert_eq!(last["params"], json!([9]));
        let given = json!({ "fd": true, "type": 2 });
        let expected = json!({ "id": 1, "result": { "handle": 9, "type": 2, "channel": given } });
        assert_eq!(answer, expected);
        assert!(Asked::WithSocket.granted(&mut json!({ "id": 1, "error": {} }), false).is_none());
        // Without a framing, the kind of the socket decides, as at the broker.
        for (kind, frames) in [(libc::SOCK_STREAM, false), (libc::SOCK_DGRAM, true)] {
            let asked = Asked::Open { frames: None, close: false };
            let next = asked.answered(&mut json!({ "id": 1, "result": channel(kind) }));
            assert!(matches!(next, Next::Channel(granted) if granted.wanted.frames == frames));
        }
    }
}
