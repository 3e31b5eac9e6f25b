//! The first program of the project's README: requests a page from a web server through the broker.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "what an example is for")]

use std::io::{Read, Write};

use sockbroker_client::blocking::Broker;

fn main() -> std::io::Result<()> {
    let broker = Broker::connect()?;
    let mut stream = broker.create_connection(("example.org", 80))?;
    stream.write_all(b"HEAD / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    println!("{answer}");
    Ok(())
}
