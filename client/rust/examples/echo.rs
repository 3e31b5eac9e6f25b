//! A TCP echo server and its client, both with sockets of the broker.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "what an example is for")]

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::thread;

use sockbroker_client::blocking::{Broker, Socket};

fn main() -> io::Result<()> {
    // The running broker, or a private one.
    let broker = Broker::connect().or_else(|_| Broker::spawn())?;
    let listener = broker.create_server(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    println!("serving {address} through {broker:?}");

    let server = thread::spawn(move || serve(&listener));
    let mut client = broker.create_connection(address)?;
    client.write_all(b"hello, broker")?;
    client.shutdown(Shutdown::Write)?;
    let mut echo = String::new();
    client.read_to_string(&mut echo)?;
    println!("received {echo}");
    server.join().map_err(|_panic| io::Error::other("the server failed"))?
}

/// Accepts one connection and echoes its data.
fn serve(listener: &Socket) -> io::Result<()> {
    let (stream, peer) = listener.accept()?;
    println!("connected: {peer}");
    io::copy(&mut &stream, &mut &stream)?;
    Ok(())
}
