//! Standard input to the socket, and the socket to standard output, at the same time.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use sockbroker_client::Error;
use sockbroker_client::blocking::Socket;

use super::open::Opened;
use crate::failure::{Exit, Failure};
use crate::link::failure;

/// Bytes that are taken at a time; more than a datagram can have.
const PIECE: usize = 256 << 10;
/// The most that one UDP datagram carries, `udp(7)`.
const DATAGRAM: usize = 65_507;

/// Bytes that went each way.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    /// Bytes sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes received.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    fn add(counter: &AtomicU64, bytes: usize) {
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Why sending ended early.
type Trouble = Arc<Mutex<Option<Failure>>>;

/// Copies until the peer ends, or until nothing came or went for `wait`.
pub(crate) fn both_ways(
    opened: Opened,
    wait: Option<Duration>,
    traffic: &Arc<Traffic>,
) -> Result<(), Failure> {
    let Opened { socket, is_stream } = opened;
    socket.set_timeout(wait).map_err(|error| failure("settimeout", &error))?;
    let socket = Arc::new(socket);
    let trouble = Trouble::default();
    let sender = Sender {
        socket: Arc::clone(&socket),
        is_stream,
        traffic: Arc::clone(traffic),
        trouble: Arc::clone(&trouble),
    };
    // It may still wait for standard input when all is over; then it ends with the process.
    thread::spawn(move || sender.run());
    let received = receive(&socket, is_stream, traffic);
    let taken = trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
    // A peer that is gone is noticed on both sides; the sending one knows better why.
    taken.map_or(received, Err)
}

fn receive(socket: &Socket, is_stream: bool, traffic: &Traffic) -> Result<(), Failure> {
    let mut buffer = vec![0; PIECE];
    let mut output = io::stdout().lock();
    let mut sent_before = traffic.sent();
    loop {
        let length = match socket.recv(&mut buffer) {
            Ok(0) if is_stream => return Ok(()),
            Ok(length) => length,
            Err(Error::Timeout { .. }) if traffic.sent() == sent_before => return Ok(()),
            Err(Error::Timeout { .. }) => 0,
            Err(error) => return Err(failure("recv", &error)),
        };
        sent_before = traffic.sent();
        Traffic::add(&traffic.received, length);
        let data = buffer.get(..length).unwrap_or_default();
        match output.write_all(data).and_then(|()| output.flush()) {
            Ok(()) => {}
            // Whoever read has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Err(Failure::new(Exit::Stream, ""));
            }
            Err(error) => return Err(Failure::stream("standard output", &error)),
        }
    }
}

/// The way out.
struct Sender {
    socket: Arc<Socket>,
    is_stream: bool,
    traffic: Arc<Traffic>,
    trouble: Trouble,
}

impl Sender {
    fn run(self) {
        if let Err(failed) = self.send_all() {
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(failed);
            // Wakes the other side; a socket that is gone needs no waking.
            drop(self.socket.shutdown(Shutdown::Both));
        }
    }

    fn send_all(&self) -> Result<(), Failure> {
        let mut buffer = vec![0; if self.is_stream { PIECE } else { DATAGRAM }];
        let mut input = io::stdin().lock();
        loop {
            let length = match input.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::stream("standard input", &error)),
            };
            let data = buffer.get(..length).unwrap_or_default();
            let sent = if self.is_stream {
                self.socket.send_all(data)
            } else {
                self.socket.send(data).map(drop)
            };
            sent.map_err(|error| failure("send", &error))?;
            Traffic::add(&self.traffic.sent, length);
        }
        if !self.is_stream {
            return Ok(());
        }
        // The peer sees the end of the stream and can still answer, unless it is gone.
        match self.socket.shutdown(Shutdown::Write) {
            Err(error) if error.errno() != Some(libc::ENOTCONN) => Err(failure("shutdown", &error)),
            _ => Ok(()),
        }
    }
}
