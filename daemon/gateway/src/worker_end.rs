//! The end of a pair that leads to a worker.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The end of a pair. The event loop waits for its input alone, unless it has once had no room for output: the kernel
/// reports room each time that the worker has read (`unix_write_space()` in `net/unix/af_unix.c`), which would wake this
/// process a second time for each call.
#[derive(Debug)]
pub(crate) struct WorkerEnd {
    input: AsyncFd<UnixStream>,
    output: OnceLock<AsyncFd<UnixStream>>,
}

impl WorkerEnd {
    pub(crate) fn new(end: OwnedFd) -> io::Result<Self> {
        let end = UnixStream::from(end);
        end.set_nonblocking(true)?;
        let input = register(end, Interest::READABLE)?;
        Ok(Self { input, output: OnceLock::new() })
    }

    /// Reads what has arrived; 0 at the end. Dropping it loses nothing.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.input.readable().await?;
            let Ok(read) = ready.try_io(|end| end.get_ref().read(buffer)) else { continue };
            // There was no more: what comes later is another event.
            if read.as_ref().is_ok_and(|count| *count > 0 && *count < buffer.len()) {
                ready.clear_ready();
            }
            return read;
        }
    }

    /// Writes everything.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = match self.input.get_ref().write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.write_when_possible(bytes).await?
                }
                written => written?,
            };
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    async fn write_when_possible(&self, bytes: &[u8]) -> io::Result<usize> {
        if self.output.get().is_none() {
            let copy = self.input.get_ref().try_clone()?;
            // Only one task writes.
            drop(self.output.set(register(copy, Interest::WRITABLE)?));
        }
        let output = self.output.get().ok_or(io::ErrorKind::NotFound)?;
        loop {
            let mut ready = output.writable().await?;
            if let Ok(written) = ready.try_io(|end| end.get_ref().write(bytes)) {
                return written;
            }
        }
    }

    /// Ends what the worker reads.
    pub(crate) fn end_output(&self) -> io::Result<()> {
        self.input.get_ref().shutdown(Shutdown::Write)
    }
}

/// Registers a socket, which is open as long as the result lives.
#[expect(
    deprecated,
    reason = "the replacement is an unsafe fn; this crate has no unsafe code, and a UnixStream owns its descriptor"
)]
fn register(end: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    AsyncFd::with_interest(end, interest)
}

impl AsFd for WorkerEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.input.get_ref().as_fd()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn everything_passes_in_both_directions_and_each_ends_alone() {
        let (own, other) = UnixStream::pair().unwrap();
        let end = WorkerEnd::new(own.into()).unwrap();
        other.set_nonblocking(true).unwrap();
        let mut worker = tokio::net::UnixStream::from_std(other).unwrap();
        let data: Vec<u8> = (0..2_000_000_u32).map(|place| (place % 251) as u8).collect();
        let writing = async {
            end.write_all(b"first").await.unwrap();
            // More than a socket has room for.
            end.write_all(&data).await.unwrap();
            end.end_output().unwrap();
        };
        let echoing = async {
            let mut first = [0; 5];
            worker.read_exact(&mut first).await.unwrap();
            assert_eq!(&first, b"first");
            let mut received = Vec::new();
            worker.read_to_end(&mut received).await.unwrap();
            worker.write_all(&received).await.unwrap();
            worker.shutdown().await.unwrap();
        };
        let reading = async {
            let (mut received, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
            loop {
                match end.read(&mut buffer).await.unwrap() {
                    0 => return received,
                    count => received.extend_from_slice(&buffer[..count]),
                }
            }
        };
        let (received, (), ()) = tokio::join!(reading, writing, echoing);
        assert!(received == data);
    }

    #[tokio::test]
    async fn room_for_output_wakes_nobody() {
        let (own, mut other) = UnixStream::pair().unwrap();
        let end = WorkerEnd::new(own.into()).unwrap();
        end.write_all(b"call").await.unwrap();
        // The worker reads, which makes room.
        other.read_exact(&mut [0; 4]).unwrap();
        assert!(end.output.get().is_none());
        other.write_all(b"answer").unwrap();
        let mut buffer = [0; 9];
        assert_eq!(end.read(&mut buffer).await.unwrap(), 6);
        drop(other);
        assert_eq!(end.read(&mut buffer).await.unwrap(), 0);
        assert!(end.write_all(b"late").await.is_err());
    }
}
