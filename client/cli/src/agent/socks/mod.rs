//! `sockbroker agent --socks`: a SOCKS5 proxy for programs that make their sockets in C.
//!
//! A connection of a client becomes a socket of the remote broker, which also looks up names. The data moves in a
//! [`channel`], as that of other clients.

mod message;
mod owner;
mod control;

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sockbroker_sys::process::effective_uid;

use self::control::{CallError, Control};
use self::message::{MESSAGE_BYTES_MAX, METHOD, NO_METHOD, NotSocks5, Parsed, Reply, Request};
use super::channel::{self, Wanted};
use super::ready::Ready;
use super::users::User;

/// The longest time from the accept to the whole request of a client.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long the broker tries to connect, in seconds.
const CONNECT_SECONDS: u32 = 60;

/// The proxy.
#[derive(Debug)]
pub(super) struct Proxy {
    listener: TcpListener,
    port: u16,
    control: Arc<Control>,
}

impl Proxy {
    /// Listens on a port of the loopback address; 0 lets the kernel choose one.
    pub(super) fn listen(port: u16, ready: Arc<Ready>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port, control: Arc::new(Control::new(ready)) })
    }

    /// The address as curl, git and many other programs take it. They leave names to the proxy.
    pub(super) fn url(&self) -> String {
        format!("socks5h://{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Accepts a client, and serves it in a thread of its own if `begin` admits one more.
    pub(super) fn accept(&self, begin: impl FnOnce() -> Option<User>) -> io::Result<()> {
        let Ok((client, peer)) = self.listener.accept() else { return Ok(()) };
        let Some(user) = begin() else { return Ok(()) };
        let control = self.control.clone();
        let serving = move || {
            // The failure of a client is its own.
            drop(serve(&client, peer, &control));
            drop(user);
        };
        thread::Builder::new().spawn(serving).map(drop)
    }
}

/// Serves a client until its connection has ended.
fn serve(client: &TcpStream, peer: SocketAddr, control: &Control) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_nodelay(true)?;
    if !is_own(client, peer)? {
        return Ok(());
    }
    let mut messages =
        Messages { stream: client, buffer: Vec::new(), end: Instant::now() + HANDSHAKE };
    if !messages.next(message::parse_methods)? {
        messages.write(&NO_METHOD)?;
        return client.shutdown(Shutdown::Both);
    }
    messages.write(&METHOD)?;
    let request = messages.next(message::parse_request)?;
    let made = match &request {
        Request::Connect(host, port) => connect(control, host, *port),
        Request::Refused(reply) => Err(*reply),
    };
    let (path, handle) = match made {
        Ok(made) => made,
        Err(reply) => {
            messages.write(&reply.message())?;
            return client.shutdown(Shutdown::Both);
        }
    };
    let remote = control.dial();
    let reply = if remote.is_ok() { Reply::Succeeded } else { Reply::Failure };
    let replied = messages.write(&reply.message()).and_then(|()| client.set_read_timeout(None));
    if let (Ok(remote), Ok(())) = (&remote, &replied) {
        let wanted = Wanted { frames: false, close: true };
        channel::run(&path, wanted, remote, client, &messages.buffer);
    }
    // The frame `close` does not arrive if the peer has reset the connection.
    control.notify("socket.close", &json!([handle]));
    remote.and(replied)
}

/// Connects at the broker. Returns the path of the channel, and the handle.
fn connect(control: &Control, host: &str, port: u16) -> Result<(String, Value), Reply> {
    let params =
        json!({ "address": [host, port], "timeout": CONNECT_SECONDS, "want_channel": true });
    let mut made = match control.call("socket.create_connection", &params) {
        Ok(made) => made,
        Err(CallError::Broker(error)) => return Err(Reply::of_error(&error)),
        Err(CallError::Lost) => return Err(Reply::Failure),
    };
    let path = made["channel"]["path"].as_str().ok_or(Reply::Failure)?.to_owned();
    Ok((path, made["handle"].take()))
}

/// Whether the socket at the other end is of this user.
fn is_own(client: &TcpStream, peer: SocketAddr) -> io::Result<bool> {
    let (SocketAddr::V4(peer), SocketAddr::V4(local)) = (peer, client.local_addr()?) else {
        return Ok(false);
    };
    Ok(owner::of_connection(peer, local)? == Some(effective_uid()))
}

/// The messages of a client before its data.
struct Messages<'a> {
    stream: &'a TcpStream,
    /// What was read after the last message.
    buffer: Vec<u8>,
    end: Instant,
}

impl Messages<'_> {
    fn next<T>(&mut self, parse: impl Fn(&[u8]) -> Result<Parsed<T>, NotSocks5>) -> io::Result<T> {
        let mut chunk = [0; MESSAGE_BYTES_MAX];
        loop {
            let invalid = |NotSocks5| io::Error::from(io::ErrorKind::InvalidData);
            if let Some((message, length)) = parse(&self.buffer).map_err(invalid)? {
                self.buffer.drain(..length);
                return Ok(message);
            }
            let left = self.end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut stream = self.stream;
            let count = stream.read(&mut chunk)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.buffer.extend_from_slice(chunk.get(..count).unwrap_or_default());
        }
    }

    fn write(&self, message: &[u8]) -> io::Result<()> {
        let mut stream = self.stream;
        stream.write_all(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_has_a_time_limit_for_its_request() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let served = listener.accept().unwrap().0;
        client.write_all(&[5, 1]).unwrap();
        let mut late = Messages { stream: &served, buffer: Vec::new(), end: Instant::now() };
        let error = late.next(message::parse_methods).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // Each message may come in parts.
        let end = Instant::now() + HANDSHAKE;
        let mut prompt = Messages { stream: &served, buffer: Vec::new(), end };
        let waiting = thread::spawn(move || client.write_all(&[0]).map(|()| client));
        assert!(prompt.next(message::parse_methods).unwrap());
        drop(waiting.join().unwrap().unwrap());
        let error = prompt.next(message::parse_request).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
