//! Descriptors for streams whose connection is being made: `agent.connect`.
//!
//! As with a native socket, the descriptor is not writable before the connection is made or has failed. A pair of sockets
//! is always writable while it has room. So the agent fills the direction from the client with bytes of its own, and takes
//! them out when the broker reports the end of the attempt.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use sockbroker_sys::poll;

use crate::agent::attempts::Attempt;
use crate::agent::framed::Frame;
use crate::agent::own_calls::OwnCalls;

/// The method, which the agent serves itself. Its parameter is the handle of a stream for which `connect` has returned
/// `EINPROGRESS`.
pub(super) const METHOD: &str = "agent.connect";
/// The bytes of one write into the pair.
const PIECE: usize = 16 << 10;

/// The ends of a pair of sockets that takes no data of the client yet.
#[derive(Debug)]
pub(super) struct FilledPair {
    pub(super) own: UnixStream,
    pub(super) clients: UnixStream,
    /// The number of bytes in it.
    filled: usize,
}

impl FilledPair {
    pub(super) fn new() -> io::Result<Self> {
        let (own, mut clients) = UnixStream::pair()?;
        clients.set_nonblocking(true)?;
        let mut filled = 0;
        loop {
            match clients.write(&[0; PIECE]) {
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        clients.set_nonblocking(false)?;
        Ok(Self { own, clients, filled })
    }
}

/// The agent's end of a filled pair, and the attempt that decides about it.
#[derive(Debug)]
pub(super) struct Connecting {
    own: UnixStream,
    filled: usize,
    attempt: Attempt,
}

impl Connecting {
    /// Returns this and the client's end.
    pub(super) fn new(pair: FilledPair, attempt: Attempt) -> (Self, UnixStream) {
        (Self { own: pair.own, filled: pair.filled, attempt }, pair.clients)
    }

    /// Waits until the connection is made. Returns the agent's end and the path of the channel; `None` if the connection has
    /// failed, or if the client has closed its end. `send` passes a request to the broker.
    pub(super) fn run(
        self,
        calls: &OwnCalls,
        mut send: impl FnMut(&Frame) -> io::Result<()>,
    ) -> io::Result<Option<(UnixStream, String)>> {
        let handle = self.attempt.handle();
        let params = json!({ "fds": [[handle, libc::POLLOUT]], "timeout": null });
        let (request, call) = calls.begin("socket.poll", &params)?;
        send(&request)?;
        let ready =
            poll::poll_for(&[(call.answered(), libc::POLLIN), (self.own.as_fd(), 0)], None)?;
        if ready.first() == Some(&0) {
            send(&calls.cancel(&call))?;
            self.close(&mut send)?;
            return Ok(None);
        }
        let is_connected = call.result().as_ref().is_some_and(is_connected);
        self.take_out()?;
        if !is_connected {
            self.fail(&mut send)?;
            return Ok(None);
        }
        let params = json!({ "handle": handle, "close": true });
        let (request, call) = calls.begin("channel.open", &params)?;
        send(&request)?;
        let opened = call.result().unwrap_or_default();
        let Some(path) = opened.get("path").and_then(Value::as_str) else {
            self.close(&mut send)?;
            return Ok(None);
        };
        Ok(Some((self.own, path.to_owned())))
    }

    /// Takes the bytes out with which the pair was filled. The client's own follow.
    fn take_out(&self) -> io::Result<()> {
        let (mut left, mut buffer) = (self.filled, [0; PIECE]);
        while left > 0 {
            let most = left.min(buffer.len());
            let count = (&self.own).read(buffer.get_mut(..most).unwrap_or_default())?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            left -= count;
        }
        Ok(())
    }

    /// Reports the end of the attempt to the client, and waits until it has closed its end. What it sends is lost.
    fn fail(&self, send: &mut impl FnMut(&Frame) -> io::Result<()>) -> io::Result<()> {
        self.own.shutdown(Shutdown::Write)?;
        drop(io::copy(&mut &self.own, &mut io::sink()));
        self.close(send)
    }

    /// Closes the socket with its last descriptor, unless the client has got another one.
    fn close(&self, send: &mut impl FnMut(&Frame) -> io::Result<()>) -> io::Result<()> {
        if self.attempt.is_newest() { send(&close(self.attempt.handle())) } else { Ok(()) }
    }
}

/// Whether the result of `socket.poll` is that of a connection.
fn is_connected(result: &Value) -> bool {
    let failed = i64::from(libc::POLLERR | libc::POLLHUP | libc::POLLNVAL);
    result.pointer("/0/1").and_then(Value::as_i64).is_some_and(|events| events & failed == 0)
}

/// A notification, which has no answer.
fn close(handle: u64) -> Frame {
    let request = json!({ "jsonrpc": "2.0", "method": "socket.close", "params": [handle] });
    Frame::of(request.to_string().into_bytes(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::attempts::Attempts;

    #[test]
    fn filled_pair_takes_no_data_until_it_is_emptied() {
        let pair = FilledPair::new().unwrap();
        let (connecting, mut clients) = Connecting::new(pair, Attempts::default().begin((1, 7)));
        clients.set_nonblocking(true).unwrap();
        let events = || poll::poll_now(&[(clients.as_fd(), libc::POLLOUT)]).unwrap()[0];
        assert_eq!(events(), 0);
        assert_eq!((&clients).write(b"x").unwrap_err().kind(), ErrorKind::WouldBlock);
        connecting.take_out().unwrap();
        assert_eq!(events(), libc::POLLOUT);
        clients.write_all(b"own").unwrap();
        let mut own = [0; 9];
        assert_eq!((&connecting.own).read(&mut own).unwrap(), 3);
        assert_eq!(own.get(..3), Some(b"own".as_slice()));
    }

    #[test]
    fn results_of_a_failed_attempt_are_recognised() {
        for (events, expected) in [(4, true), (12, false), (20, false), (0x20, false)] {
            assert_eq!(is_connected(&json!([[7, events]])), expected);
        }
        assert!(!is_connected(&json!(null)));
    }
}
