//! Sends an ICMP echo request from a program that is not allowed to create an ICMP socket.
//!
//! `cargo run -p sockbroker-client --example ping -- 127.0.0.1`

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "what an example is for")]

use std::time::{Duration, Instant};

use sockbroker_client::blocking::{Broker, Socket};
use sockbroker_client::{Domain, Error, Protocol, Type};

/// Type 8, code 0, a checksum and an identifier that the kernel fills in, sequence number 1.
const REQUEST: [u8; 8] = [8, 0, 0, 0, 0, 0, 0, 1];

fn main() -> Result<(), Error> {
    let host = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1".to_owned());
    let broker = Broker::connect().or_else(|_| Broker::spawn())?;
    // An ICMP datagram socket receives only the replies to its own requests.
    let socket = Socket::new(&broker, Domain::IPV4, Type::DGRAM, Protocol::ICMPV4)?;
    socket.set_timeout(Some(Duration::from_secs(2)))?;
    let start = Instant::now();
    socket.send_to(&REQUEST, (host.as_str(), 0))?;
    let mut reply = [0; 64];
    let (length, from) = socket.recv_from(&mut reply)?;
    println!("{length} bytes from {from} after {:?}", start.elapsed());
    Ok(())
}
