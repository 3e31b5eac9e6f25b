//! The network sniffer of the documentation of Python's `socket` module, and packets for it to capture.

use serde_json::{Value, json};
use sockbroker_proto::bytes::Bytes;

use super::trace::{Trace, handle};
use crate::failure::{Exit, Failure};
use crate::sniff::decode::{self, View};

/// IPv4, `linux/if_ether.h`.
const ETH_P_IP: u16 = 0x0800;
/// The packets of one TCP connection and one datagram.
const EXPECTED: usize = 5;

/// Captures some traffic with `SIO_RCVALL` and prints each packet.
pub(super) fn run(trace: &mut Trace) -> Result<(), Failure> {
    let made = trace.call("socket.socket", json!(["AF_INET", "SOCK_RAW", "IPPROTO_IP"]))?;
    let sniffer = handle(&made)?;
    trace.call("socket.bind", json!([sniffer, ["127.0.0.1", 0]]))?;
    trace.call("socket.setsockopt", json!([sniffer, "IPPROTO_IP", "IP_HDRINCL", 1]))?;
    trace.call("socket.ioctl", json!([sniffer, "SIO_RCVALL", "RCVALL_ON"]))?;
    trace.call_untraced("socket.settimeout", json!([sniffer, 5]))?;
    traffic(trace)?;
    let mut captured = Vec::new();
    for _ in 0..EXPECTED {
        let received = trace.call("socket.recvfrom", json!([sniffer, 65565]))?;
        captured.push(decoded(&received)?);
    }
    trace.call("socket.ioctl", json!([sniffer, "SIO_RCVALL", "RCVALL_OFF"]))?;
    trace.call_untraced("socket.close", json!([sniffer]))?;
    captured.iter().try_for_each(|line| trace.line(line))?;
    for kind in ["TCP [S]", "UDP length 5"] {
        if !captured.iter().any(|line| line.contains(kind)) {
            return Err(Failure::new(
                Exit::Failed,
                format!("the sniffer captured no packet with {kind}"),
            ));
        }
    }
    trace.outcome("the sniffer captured a TCP handshake and a datagram")
}

/// Opens and closes a TCP connection and sends a datagram.
fn traffic(trace: &mut Trace) -> Result<(), Failure> {
    let listener =
        handle(&trace.call_untraced("socket.create_server", json!([["127.0.0.1", 0]]))?)?;
    let address = trace.call_untraced("socket.getsockname", json!([listener]))?;
    let client = handle(&trace.call_untraced("socket.create_connection", json!([address]))?)?;
    let datagrams =
        handle(&trace.call_untraced("socket.socket", json!(["AF_INET", "SOCK_DGRAM"]))?)?;
    let hello = Bytes::Inline(b"hello".to_vec());
    trace.call_untraced("socket.sendto", json!([datagrams, hello, 0, address]))?;
    for socket in [client, listener, datagrams] {
        trace.call_untraced("socket.close", json!([socket]))?;
    }
    Ok(())
}

fn decoded(received: &Value) -> Result<String, Failure> {
    let data = received.get("data").cloned().unwrap_or_default();
    match serde_json::from_value(data) {
        Ok(Bytes::Inline(data)) => Ok(decode::payload(ETH_P_IP, &data, View::default())),
        _ => Err(Failure::protocol(
            "socket.recvfrom: cannot read the broker's answer: it has no bytes",
        )),
    }
}
