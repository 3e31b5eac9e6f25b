//! The sniffer of Python's documentation, and something for it to hear.

use serde_json::{Value, json};
use sockbroker_proto::bytes::Bytes;

use super::handle;
use super::wire::Wire;
use crate::failure::{Exit, Failure};
use crate::sniff::decode;

/// IPv4, `linux/if_ether.h`.
const ETH_P_IP: u16 = 0x0800;
/// What is to be heard: a handshake and its end, and a datagram.
const EXPECTED: usize = 5;

/// Listens, makes some traffic, and tells what was heard.
pub(super) fn run(wire: &mut Wire) -> Result<(), Failure> {
    let made = wire.call("socket.socket", json!(["AF_INET", "SOCK_RAW", "IPPROTO_IP"]))?;
    let sniffer = handle(&made)?;
    wire.call("socket.bind", json!([sniffer, ["127.0.0.1", 0]]))?;
    wire.call("socket.setsockopt", json!([sniffer, "IPPROTO_IP", "IP_HDRINCL", 1]))?;
    wire.call("socket.ioctl", json!([sniffer, "SIO_RCVALL", "RCVALL_ON"]))?;
    wire.quietly("socket.settimeout", json!([sniffer, 5]))?;
    traffic(wire)?;
    let mut heard = Vec::new();
    for _ in 0..EXPECTED {
        let received = wire.call("socket.recvfrom", json!([sniffer, 65565]))?;
        heard.push(decoded(&received)?);
    }
    wire.call("socket.ioctl", json!([sniffer, "SIO_RCVALL", "RCVALL_OFF"]))?;
    wire.quietly("socket.close", json!([sniffer]))?;
    heard.iter().try_for_each(|line| wire.line(line))?;
    for kind in ["TCP [S]", "UDP length 5"] {
        if !heard.iter().any(|line| line.contains(kind)) {
            return Err(Failure::new(Exit::Failed, format!("the sniffer did not hear {kind}")));
        }
    }
    wire.outcome("the sniffer heard a TCP handshake and a datagram")
}

/// A connection that is made and a datagram.
fn traffic(wire: &mut Wire) -> Result<(), Failure> {
    let listener = handle(&wire.quietly("socket.create_server", json!([["127.0.0.1", 0]]))?)?;
    let address = wire.quietly("socket.getsockname", json!([listener]))?;
    let client = handle(&wire.quietly("socket.create_connection", json!([address]))?)?;
    let datagrams = handle(&wire.quietly("socket.socket", json!(["AF_INET", "SOCK_DGRAM"]))?)?;
    let hello = Bytes::Inline(b"hello".to_vec());
    wire.quietly("socket.sendto", json!([datagrams, hello, 0, address]))?;
    for socket in [client, listener, datagrams] {
        wire.quietly("socket.close", json!([socket]))?;
    }
    Ok(())
}

fn decoded(received: &Value) -> Result<String, Failure> {
    let data = received.get("data").cloned().unwrap_or_default();
    match serde_json::from_value(data) {
        Ok(Bytes::Inline(data)) => Ok(decode::payload(ETH_P_IP, &data)),
        _ => Err(Failure::protocol("the sniffer received no bytes")),
    }
}
