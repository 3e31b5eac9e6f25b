//! The echo server and client of the documentation of Python's `socket` module, call by call.

use serde_json::{Value, json};
use sockbroker_proto::bytes::Bytes;

use super::trace::{Trace, handle};
use crate::failure::{Exit, Failure};

/// The port and the text of that documentation.
const PORT: u16 = 50007;
const HELLO: &[u8] = b"Hello, world";

/// Runs both ends of the echo over a loopback address. One thread is enough, because `connect` does not
/// wait for `accept`.
pub(super) fn run(trace: &mut Trace, host: &str) -> Result<(), Failure> {
    let hello = json!(Bytes::Inline(HELLO.to_vec()));
    let found =
        trace.call("socket.getaddrinfo", json!([host, PORT, "AF_UNSPEC", "SOCK_STREAM"]))?;
    let Some([family, kind, proto, _, address]) =
        found.get(0).and_then(Value::as_array).map(Vec::as_slice)
    else {
        return Err(Failure::protocol(format!(
            "cannot resolve {host}: the broker returned no address"
        )));
    };
    let listener = handle(&trace.call("socket.socket", json!([family, kind, proto]))?)?;
    trace.call_untraced("socket.setsockopt", json!([listener, "SOL_SOCKET", "SO_REUSEADDR", 1]))?;
    trace.call("socket.bind", json!([listener, address]))?;
    trace.call("socket.listen", json!([listener, 1]))?;
    let client = handle(&trace.call("socket.socket", json!([family, kind, proto]))?)?;
    trace.call("socket.connect", json!([client, address]))?;
    let server = handle(&trace.call("socket.accept", json!([listener]))?)?;
    trace.call("socket.sendall", json!([client, hello]))?;
    let captured = trace.call("socket.recv", json!([server, 1024]))?;
    trace.call("socket.sendall", json!([server, captured.get("data")]))?;
    let echoed = trace.call("socket.recv", json!([client, 1024]))?;
    for socket in [client, server, listener] {
        trace.call_untraced("socket.close", json!([socket]))?;
    }
    if echoed.get("data") != Some(&hello) {
        return Err(Failure::new(
            Exit::Failed,
            format!("the echo differs from what was sent: {echoed}"),
        ));
    }
    trace.outcome("the server echoed \"Hello, world\"")
}
