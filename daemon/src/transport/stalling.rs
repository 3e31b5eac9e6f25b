//! What `hyper` does not detect: a peer that does not read its answers, and one that has closed.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use sockbroker_sys::socket;
use sockbroker_sys::stream::{is_hung_up, send_stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::descriptor::Descriptor;
use crate::quota::Share;
use crate::transport::control_socket::ConnectionIo;
use crate::transport::stream::receive;

/// How often a peer is checked while its call waits.
const HANG_UP_CHECK: Duration = Duration::from_secs(1);

/// The largest size of a read.
const READ_MAX: usize = 64 << 10;

/// A stream that fails if the peer reads nothing for too long. It closes descriptors that come with the bytes, apart
/// from the event loop: a plain `read(2)` would close them itself.
#[derive(Debug)]
pub(super) struct Stalling {
    io: ConnectionIo,
    input: BytesMut,
    longest: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether the next bytes are the answer after which a channel begins.
    begins_channel: Arc<AtomicBool>,
}

impl Stalling {
    /// A stream whose peer has to read something within `longest`.
    pub(super) fn new(io: ConnectionIo, longest: Duration) -> Self {
        let begins_channel = Arc::default();
        Self { io, input: BytesMut::new(), longest, timer: None, begins_channel }
    }

    /// Set before the answer after which a channel begins. A client that has closed does not get it, and what it has sent
    /// for the channel is still served. For `hyper`, a failed write would end everything.
    pub(super) fn begins_channel(&self) -> Arc<AtomicBool> {
        self.begins_channel.clone()
    }

    pub(super) fn into_inner(self) -> ConnectionIo {
        self.io
    }

    fn send(
        &self,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.io.poll_write_ready(context))?;
            match send_stream(self.io.get_ref().as_fd(), slices, &[]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(_) if self.begins_channel.load(Ordering::Relaxed) => {
                    return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
                }
                result => return Poll::Ready(result),
            }
        }
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
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { io, input, .. } = self.get_mut();
        let size = buffer.remaining().min(READ_MAX);
        loop {
            if io.get_ref().user().exceeds(Share::Descriptors) {
                return Poll::Ready(Err(io::Error::other("buffered_descriptors_per_user")));
            }
            let mut guard = ready!(io.poll_read_ready(context))?;
            match receive(io.get_ref(), input, size, &mut VecDeque::new()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) => return Poll::Ready(Err(error)),
                Ok(_) => {
                    buffer.put_slice(input);
                    input.clear();
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for Stalling {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(socket::shutdown(self.io.get_ref().as_fd(), libc::SHUT_WR))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.send(context, slices);
        this.time(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

/// The peer of a connection, observed on a duplicate of its descriptor.
#[derive(Debug)]
pub(super) struct Peer(Descriptor);

impl Peer {
    pub(super) fn of(io: &Descriptor) -> io::Result<Self> {
        let copy = socket::duplicate(io.as_fd())?;
        Ok(Self(Descriptor::of_client(copy, io.user())))
    }

    /// Waits until the peer has closed both directions.
    pub(super) async fn gone(&self) {
        while !is_hung_up(self.0.as_fd()).unwrap_or(true) {
            sleep(HANG_UP_CHECK).await;
        }
    }
}
