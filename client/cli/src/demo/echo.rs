//! The echo server and client of Python's documentation, call by call.

use serde_json::{Value, json};
use sockbroker_proto::bytes::Bytes;

use super::handle;
use super::wire::Wire;
use crate::failure::{Exit, Failure};

/// The documentation's port and its words.
const PORT: u16 = 50007;
const HELLO: &[u8] = b"Hello, world";

/// Both ends of the echo over a loopback address. Connecting does not wait for `accept`, so one
/// thread is enough.
pub(super) fn run(wire: &mut Wire, host: &str) -> Result<(), Failure> {
    let hello = json!(Bytes::Inline(HELLO.to_vec()));
    let found = wire.call("socket.getaddrinfo", json!([host, PORT, "AF_UNSPEC", "SOCK_STREAM"]))?;
    let Some([family, kind, proto, _, address]) =
        found.get(0).and_then(Value::as_array).map(Vec::as_slice)
    else {
        return Err(Failure::protocol(format!("{host} has no address")));
    };
    let listener = handle(&wire.call("socket.socket", json!([family, kind, proto]))?)?;
    wire.quietly("socket.setsockopt", json!([listener, "SOL_SOCKET", "SO_REUSEADDR", 1]))?;
    wire.call("socket.bind", json!([listener, address]))?;
    wire.call("socket.listen", json!([listener, 1]))?;
    let client = handle(&wire.call("socket.socket", json!([family, kind, proto]))?)?;
    wire.call("socket.connect", json!([client, address]))?;
    let server = handle(&wire.call("socket.accept", json!([listener]))?)?;
    wire.call("socket.sendall", json!([client, hello]))?;
    let heard = wire.call("socket.recv", json!([server, 1024]))?;
    wire.call("socket.sendall", json!([server, heard.get("data")]))?;
    let echoed = wire.call("socket.recv", json!([client, 1024]))?;
    for socket in [client, server, listener] {
        wire.quietly("socket.close", json!([socket]))?;
    }
    if echoed.get("data") != Some(&hello) {
        return Err(Failure::new(Exit::Failed, format!("the echo is another: {echoed}")));
    }
    wire.outcome("\"Hello, world\" went there and came back")
}
