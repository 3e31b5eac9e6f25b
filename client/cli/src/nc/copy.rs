//! Copies standard input to the socket and the socket to standard output, concurrently.

use std::io::{self, StdoutLock, Write as _};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use sockbroker_client::Error;
use sockbroker_client::blocking::Socket;

use super::input::{Chunk, Input};
use super::open::Opened;
use crate::connection::failure;
use crate::failure::{Exit, Failure};

/// The size of the receive buffer; larger than any datagram.
const CHUNK: usize = 256 << 10;

/// Counts the bytes that were sent and received.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    fn add(counter: &AtomicU64, bytes: usize) {
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// The failure of the sending thread, if it failed.
type SharedFailure = Arc<Mutex<Option<Failure>>>;

/// Copies until the peer closes the connection, or until no data was sent or received for `wait`.
pub(crate) fn copy_both_ways(
    opened: Opened,
    wait: Option<Duration>,
    traffic: &Arc<Traffic>,
    input: &Arc<Input>,
) -> Result<(), Failure> {
    let Opened { socket, is_stream } = opened;
    socket.set_timeout(wait).map_err(|error| failure("settimeout", &error))?;
    let socket = Arc::new(socket);
    let shared_failure = SharedFailure::default();
    let ended = Arc::new(AtomicBool::new(false));
    let sender = Sender {
        socket: Arc::clone(&socket),
        is_stream,
        traffic: Arc::clone(traffic),
        shared_failure: Arc::clone(&shared_failure),
        input: Arc::clone(input),
        ended: Arc::clone(&ended),
    };
    // The thread can still wait for standard input when the connection has ended, so nothing joins it.
    thread::spawn(move || sender.run());
    let received = receive(&socket, is_stream, traffic);
    ended.store(true, Ordering::Relaxed);
    let taken = shared_failure.lock().unwrap_or_else(PoisonError::into_inner).take();
    // Both threads notice a closed connection. The error of the sending thread is more precise.
    taken.map_or(received, Err)
}

fn receive(socket: &Socket, is_stream: bool, traffic: &Traffic) -> Result<(), Failure> {
    let mut buffer = vec![0; CHUNK];
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
        write(&mut output, data)?;
    }
}

/// Writes the datagrams of all senders to standard output, until none arrives for `wait`.
pub(crate) fn receive_datagrams(socket: &Socket, wait: Option<Duration>) -> Result<(), Failure> {
    socket.set_timeout(wait).map_err(|error| failure("settimeout", &error))?;
    let mut buffer = vec![0; CHUNK];
    let mut output = io::stdout().lock();
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => write(&mut output, buffer.get(..length).unwrap_or_default())?,
            Err(Error::Timeout { .. }) => return Ok(()),
            Err(error) => return Err(failure("recv", &error)),
        }
    }
}

fn write(output: &mut StdoutLock<'_>, data: &[u8]) -> Result<(), Failure> {
    match output.write_all(data).and_then(|()| output.flush()) {
        // The reader has closed standard output.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Stream, ""))
        }
        result => result.map_err(|error| Failure::stream("standard output", &error)),
    }
}

/// Copies standard input to the socket, on its own thread.
struct Sender {
    socket: Arc<Socket>,
    is_stream: bool,
    traffic: Arc<Traffic>,
    shared_failure: SharedFailure,
    input: Arc<Input>,
    /// Whether the connection has ended.
    ended: Arc<AtomicBool>,
}

impl Sender {
    fn run(self) {
        if let Err(failed) = self.send_all() {
            *self.shared_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failed);
            // Wakes the receiving thread. An error means that the connection has ended already.
            drop(self.socket.shutdown(Shutdown::Both));
        }
    }

    fn send_all(&self) -> Result<(), Failure> {
        loop {
            let chunk = self.input.next();
            if self.ended.load(Ordering::Relaxed) {
                if let Ok(Chunk::Data(data)) = chunk {
                    self.input.put_back(data);
                }
                return Ok(());
            }
            let data = match chunk {
                Ok(Chunk::Data(data)) => data,
                Ok(Chunk::Nothing) => continue,
                Ok(Chunk::End) => break,
                Err(error) => return Err(Failure::stream("standard input", &error)),
            };
            let sent = if self.is_stream {
                self.socket.send_all(&data)
            } else {
                self.socket.send(&data).map(drop)
            };
            sent.map_err(|error| failure("send", &error))?;
            Traffic::add(&self.traffic.sent, data.len());
        }
        if !self.is_stream {
            return Ok(());
        }
        // The peer reads the end of the stream and can still answer. ENOTCONN: the peer has closed already.
        match self.socket.shutdown(Shutdown::Write) {
            Err(error) if error.errno() != Some(libc::ENOTCONN) => Err(failure("shutdown", &error)),
            _ => Ok(()),
        }
    }
}
