//! Reads standard input on one thread, which serves successive connections.

use std::io::{self, Read as _};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// The size of one read for a stream.
const CHUNK: usize = 256 << 10;
/// The most bytes in a UDP datagram, `udp(7)`.
const DATAGRAM: usize = 65_507;
/// How often a sender checks whether its connection has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The result of reading standard input.
#[derive(Debug)]
pub(super) enum Chunk {
    /// Bytes were read.
    Data(Vec<u8>),
    /// No bytes arrived in time.
    Nothing,
    /// Standard input has ended.
    End,
}

#[derive(Debug)]
pub(super) struct Input {
    chunks: Mutex<Receiver<io::Result<Vec<u8>>>>,
    /// A chunk for the next connection: the connection that read it had ended.
    returned: Mutex<Option<Vec<u8>>>,
}

impl Input {
    /// Starts the reading thread. It reads at most one chunk ahead.
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
                // The receiver is gone when the program ends.
                if give.send(read).is_err() || failed {
                    return;
                }
            }
        });
        Arc::new(Self { chunks: Mutex::new(take), returned: Mutex::default() })
    }

    /// Returns the next chunk. Waits for a short time.
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

    /// Keeps a chunk for the next connection.
    pub(super) fn put_back(&self, chunk: Vec<u8>) {
        *self.returned.lock().unwrap_or_else(PoisonError::into_inner) = Some(chunk);
    }
}
