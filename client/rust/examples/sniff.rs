//! Captures ten packets of an interface without privileges. The broker needs `CAP_NET_RAW`.
//!
//! `cargo run -p sockbroker-client --example sniff -- lo`

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "what an example is for")]

use sockbroker_client::blocking::{Broker, Socket};
use sockbroker_client::{Address, Domain, Error, Flags, Protocol, Type};

/// `ETH_P_ALL`: packets of all protocols.
const ETH_P_ALL: u16 = 3;

fn main() -> Result<(), Error> {
    let interface = std::env::args().nth(1).unwrap_or_else(|| "lo".to_owned());
    let broker = Broker::connect().or_else(|_| Broker::spawn())?;
    // `DGRAM` removes the Ethernet header: a packet begins with the IP header.
    let protocol = Protocol::ethernet(ETH_P_ALL);
    let socket = Socket::new(&broker, Domain::PACKET, Type::DGRAM, protocol)?;
    socket.bind(Address::packet(&interface, ETH_P_ALL))?;
    let mut packet = [0; 64];
    for _ in 0..10 {
        // The buffer gets the beginning of the packet; with `TRUNC` the length is that of the packet.
        let (length, from) = socket.recv_from_with_flags(&mut packet, Flags::TRUNC)?;
        if let Some(from) = from.to_packet() {
            println!("{length:5} bytes of {:#06x} on {}", from.protocol, from.interface);
        }
    }
    Ok(())
}
