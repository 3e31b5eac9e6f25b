//! Standard input, read by one thread for all connections that follow each other.

use std::io::{self, Read as _};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Bytes that are taken at a time from a stream.
const CHUNK: usize = 256 << 10;
/// The most that one UDP datagram carries, `udp(7)`.
const DATAGRAM: usize = 65_507;
/// How often a sender looks whether its connection ended.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// What standard input gave.
#[derive(Debug)]
pub(super) enum Chunk {
    /// Bytes.
    Data(Vec<u8>),
    /// Nothing yet.
    Nothing,
    /// Its end.
    End,
}

/// Standard input.
#[derive(Debug)]
pub(super) struct Input {
    chunks: Mutex<Receiver<io::Result<Vec<u8>>>>,
    /// A piece that was taken for a connection which had ended.
    returned: Mutex<Option<Vec<u8>>>,
}

impl Input {
    /// Reads from now on, one piece ahead.
    pub(super) fn begin(is_stream: bool) -> Arc<Self> {
        let (give, take) = mpsc::sync_channel(1);
        thread::spawn(move || {
            let mut buffer = vec![0; if is_stream { CHUNK } else { DATAGRAM }];
            loop {
                let read = match io::stdin().lock().read(&mut buffer) {
                    Ok(0) => return,
                    Ok(length) => Ok(buffer.get(..length).unwrap_or_default().to_vec()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let failed = read.is_err();
                // Nobody takes it when the program ends.
                if give.send(read).is_err() || failed {
                    return;
                }
            }
        });
        Arc::new(Self { chunks: Mutex::new(take), returned: Mutex::default() })
    }

    /// The next piece, after a short wait.
    pub(super) fn next(&self) -> io::Result<Chunk> {
        let chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(chunk) = self.returned.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Ok(Chunk::Data(chunk));
        }
        match chunks.recv_timeout(POLL_INTERVAL) {
            Ok(chunk) => chunk.map(Chunk::Data),
            Err(RecvTimeoutError::Timeout) => Ok(Chunk::Nothing),
            Err(RecvTimeoutError::Disconnected) => Ok(Chunk::End),
        }
    }

    /// Leaves a piece to the next connection.
    pub(super) fn put_back(&self, chunk: Vec<u8>) {
        *self.returned.lock().unwrap_or_else(PoisonError::into_inner) = Some(chunk);
    }
}
