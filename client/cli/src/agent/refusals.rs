//! The errors of the agent itself.

use serde_json::{Value, json};
use sockbroker_proto::error::ErrorKind;

use crate::agent::framed::Frame;
use crate::agent::watches::WATCHES;

/// The error of a call that would pass descriptors to or from the remote broker.
const NO_DESCRIPTORS: &str = "descriptors cannot reach a broker of another machine: channel.open, want_channel, fileno and detach return one for a stream";
/// The most channels of one connection whose request the broker has not answered; a further one is refused.
pub(super) const CHANNELS_WAITING: usize = 256;
/// The most connections that are being made for the descriptors of one connection; a further one is refused.
pub(super) const CONNECTING: usize = 256;

pub(super) fn refusal(id: &Value) -> Frame {
    failed(id, NO_DESCRIPTORS)
}

/// The answer of the broker to the same request.
pub(super) fn no_boundaries(id: &Value) -> Frame {
    let text = "a raw channel is for streams: it has no boundaries";
    error(id, ErrorKind::Argument, text, json!({ "exception": "ValueError" }))
}

pub(super) fn failed(id: &Value, message: &str) -> Frame {
    error(id, ErrorKind::Descriptor, message, json!({ "errno": libc::EBADF, "name": "EBADF" }))
}

pub(super) fn too_many(id: &Value) -> Frame {
    let message =
        format!("the agent opens at most {CHANNELS_WAITING} channels of one connection at once");
    let data =
        json!({ "errno": libc::ENOBUFS, "name": "ENOBUFS", "limit": "agent_channels_waiting" });
    error(id, ErrorKind::Limit, &message, data)
}

pub(super) fn too_many_watches(id: &Value) -> Frame {
    let message = format!("the agent watches at most {WATCHES} sockets of one connection at once");
    let data = json!({ "errno": libc::ENOBUFS, "name": "ENOBUFS", "limit": "agent_watches" });
    error(id, ErrorKind::Limit, &message, data)
}

pub(super) fn too_many_connecting(id: &Value) -> Frame {
    let message =
        format!("the agent makes at most {CONNECTING} connections of one connection at once");
    let data = json!({ "errno": libc::ENOBUFS, "name": "ENOBUFS", "limit": "agent_connecting" });
    error(id, ErrorKind::Limit, &message, data)
}

fn error(id: &Value, kind: ErrorKind, message: &str, mut data: Value) -> Frame {
    data["kind"] = json!(kind.entry().name);
    let error = json!({ "code": kind.code(), "message": message, "data": data });
    let answer = json!({ "jsonrpc": "2.0", "id": id, "error": error });
    Frame::of(answer.to_string().into_bytes(), 0)
}
