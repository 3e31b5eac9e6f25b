//! The programs at both ends of the link of suite `remote`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use crate::error::Result;
use crate::measure::{FILLING, in_turn, number};
use crate::remote_lab::TlsClient;

/// The addresses of both ends.
pub(crate) const ADDRESSES: [&str; 2] = ["10.99.0.1", "10.99.0.2"];
/// The bytes of one round of a stream.
const STREAM: usize = 24 << 20;
const ROUNDS: usize = 5;
/// The body of the HTTP response.
const BODY: usize = 300_000;

/// The role `LinkServer`: prints two ports. The first serves streams without end, the second HTTP.
#[expect(clippy::print_stdout, reason = "the ports are its result")]
pub(crate) fn serve() -> Result<()> {
    let [source, http] = [0, 0].map(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)));
    let (source, http) = (source?, http?);
    println!("{}\n{}", source.local_addr()?.port(), http.local_addr()?.port());
    thread::spawn(move || {
        for stream in http.incoming().flatten() {
            // A client can leave early.
            thread::spawn(move || respond(stream).ok());
        }
    });
    for mut stream in source.incoming().flatten() {
        // Until the client closes.
        let block = vec![FILLING; 65_536];
        thread::spawn(move || while stream.write_all(&block).is_ok() {});
    }
    Ok(())
}

fn respond(mut stream: TcpStream) -> Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let mut response =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\nConnection: close\r\n\r\n")
            .into_bytes();
    response.resize(response.len() + BODY, FILLING);
    Ok(stream.write_all(&response)?)
}

/// The role `LinkClient`: prints the speeds of a channel, and of a connection without a broker.
#[expect(clippy::print_stdout, reason = "the speeds are its result")]
pub(crate) fn client(broker: u16, source: u16) -> Result<()> {
    let host: Ipv4Addr = ADDRESSES[1].parse()?;
    let folder = Path::new(".");
    let mut control = TlsClient::connect(folder, (host, broker).into())?;
    let params = json!({ "address": ["127.0.0.1", source], "want_channel": true });
    let (made, _) = control.call("socket.create_connection", &params)?;
    let path = made.pointer("/channel/path").and_then(Value::as_str).ok_or("no channel")?;
    let mut channel = TlsClient::connect(folder, (host, broker).into())?;
    channel.upgrade(path)?;
    let mut direct = TcpStream::connect((host, source))?;
    let ours = || flow(|buffer| channel.read(buffer));
    let rounds = in_turn(ROUNDS, ours, || flow(|buffer| Ok(direct.read(buffer)?)))?;
    println!("{}", serde_json::to_string(&rounds)?);
    Ok(())
}

/// Reads a stream. Returns bytes per second.
fn flow(mut read: impl FnMut(&mut [u8]) -> Result<usize>) -> Result<f64> {
    let mut buffer = vec![0; 256 << 10];
    // What waited while the other one was measured.
    let mut bytes = 0;
    while bytes < STREAM / 4 {
        bytes += more(read(&mut buffer)?)?;
    }
    let (start, mut bytes) = (Instant::now(), 0);
    while bytes < STREAM {
        bytes += more(read(&mut buffer)?)?;
    }
    Ok(number(bytes) / start.elapsed().as_secs_f64())
}

fn more(read: usize) -> Result<usize> {
    if read == 0 { Err("a stream has ended".into()) } else { Ok(read) }
}
