//! What `hyper` does not detect: a peer that does not read its answers, and one that has closed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use sockbroker_sys::stream::is_hung_up;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::{Sleep, sleep};

/// How often a peer is checked while its call waits.
const HANG_UP_CHECK: Duration = Duration::from_secs(1);

/// A stream that fails if the peer reads nothing for too long.
#[derive(Debug)]
pub(super) struct Stalling {
    io: UnixStream,
    longest: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stalling {
    /// A stream whose peer has to read something within `longest`.
    pub(super) fn new(io: UnixStream, longest: Duration) -> Self {
        Self { io, longest, timer: None }
    }

    pub(super) fn into_inner(self) -> UnixStream {
        self.io
    }

    /// Times a write: a wait starts the timer, progress stops it.
    fn time<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.timer = None;
            return written;
        }
        let longest = self.longest;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(longest)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "stall_seconds")))
    }
}

impl AsyncRead for Stalling {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stalling {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        self.time(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.time(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// The peer of a connection, observed on a duplicate of its descriptor.
#[derive(Debug)]
pub(super) struct Peer(Arc<OwnedFd>);

impl Peer {
    pub(super) fn of(io: &UnixStream) -> io::Result<Self> {
        io.as_fd().try_clone_to_owned().map(|copy| Self(Arc::new(copy)))
    }

    /// The socket.
    pub(super) fn stream(&self) -> Weak<OwnedFd> {
        Arc::downgrade(&self.0)
    }

    /// Waits until the peer has closed both directions.
    pub(super) async fn gone(&self) {
        while !is_hung_up(self.0.as_fd()).unwrap_or(true) {
            sleep(HANG_UP_CHECK).await;
        }
    }
}
