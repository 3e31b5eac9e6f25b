//! An ICMP echo request through a raw socket.

use std::time::Instant;

use serde_json::{Value, json};
use sockbroker_proto::bytes::Bytes;

use super::trace::{Trace, handle};
use crate::failure::{Exit, Failure};
use crate::ping::packet::{self, Message, Version};

/// Bytes of data in a request, the default of ping(8).
const SIZE: usize = 56;
/// The most messages to read until the reply arrives. On the loopback interface the request arrives too.
const MAX_MESSAGES: usize = 8;

/// Sends a request and waits for its reply.
pub(super) fn run(trace: &mut Trace) -> Result<(), Failure> {
    let made = trace.call("socket.socket", json!(["AF_INET", "SOCK_RAW", "IPPROTO_ICMP"]))?;
    let socket = handle(&made)?;
    trace.call_untraced("socket.settimeout", json!([socket, 5]))?;
    let request = Bytes::Inline(packet::request(Version::V4, 1, 1, SIZE));
    let start = Instant::now();
    trace.call("socket.sendto", json!([socket, request, 0, ["127.0.0.1", 0]]))?;
    for _ in 0..MAX_MESSAGES {
        let received = trace.call("socket.recvfrom", json!([socket, 1500]))?;
        if let Some(length) = reply(&received) {
            let time = start.elapsed().as_micros();
            trace.call_untraced("socket.close", json!([socket]))?;
            return trace.outcome(&format!("{length} bytes from 127.0.0.1 after {time} \u{b5}s"));
        }
    }
    Err(Failure::new(Exit::Failed, "cannot ping 127.0.0.1: no reply arrived"))
}

/// Returns the length of the reply, if `received` is the reply to our request.
fn reply(received: &Value) -> Option<usize> {
    let data = serde_json::from_value(received.get("data")?.clone()).ok()?;
    let Bytes::Inline(data) = data else { return None };
    match packet::read(Version::V4, &data) {
        Message::Reply { id: 1, sequence: 1, length } => Some(length),
        _ => None,
    }
}
