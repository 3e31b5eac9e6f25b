//! Ten packets of an interface, from a program without privileges. The broker needs `CAP_NET_RAW`.
//!
//! `cargo run -p sockbroker-client --example sniff -- lo`

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "what an example is for")]

use sockbroker_client::blocking::{Broker, Socket};
use sockbroker_client::{Address, Domain, Error, Flags, Protocol, Type};

/// `ETH_P_ALL`: packets of every protocol.
const EVERYTHING: u16 = 3;

fn main() -> Result<(), Error> {
    let interface = std::env::args().nth(1).unwrap_or_else(|| "lo".to_owned());
    let broker = Broker::connect().or_else(|_| Broker::spawn())?;
    // Without the Ethernet header: packets begin with that of IP.
    let protocol = Protocol::ethernet(EVERYTHING);
    let socket = Socket::new(&broker, Domain::PACKET, Type::DGRAM, protocol)?;
    socket.bind(Address::packet(&interface, EVERYTHING))?;
    let mut packet = [0; 64];
    for _ in 0..10 {
        // The buffer holds the beginning; `TRUNC` asks for the true length.
        let (length, from) = socket.recv_from_with_flags(&mut packet, Flags::TRUNC)?;
        if let Some(from) = from.to_packet() {
            println!("{length:5} bytes of {:#06x} on {}", from.protocol, from.interface);
        }
    }
    Ok(())
}
