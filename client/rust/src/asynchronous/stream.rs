//! A socket as a stream of tokio.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::dropped::DroppedCall;
use super::socket::Socket;
use crate::operation::{self, Operation as _, TRANSFER_BYTES_MAX};
use crate::wire::response::OwnedResponse;

/// The most bytes of the writes in progress before the next one waits.
const WRITTEN_BYTES_MAX: usize = TRANSFER_BYTES_MAX;
/// The most bytes of one write.
const WRITE_BYTES_MAX: usize = WRITTEN_BYTES_MAX / 2;

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let space = buffer.remaining();
        if space == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut response = match ready!(self.unclaimed().poll_next(context)) {
            Some(response) => response,
            None => ready!(self.stream_state().poll_read(context, || {
                let recv = operation::recv_vec(self.handle(), space);
                self.broker().begin(recv.request(), self.keep())
            }))?,
        };
        let mut take = |data: &[u8]| {
            let (now, later) = data.split_at(data.len().min(space));
            buffer.put_slice(now);
            (!later.is_empty()).then(|| OwnedResponse::of_data(later))
        };
        match response.read(&mut |response| operation::received_data(response, &mut take))? {
            Some(later) => self.unclaimed().put_back(later),
            None => self.broker().recycle(response),
        }
        Poll::Ready(Ok(()))
    }
}

/// A write returns when its request is sent; up to 1 MiB of writes are in progress at a time. The next
/// write or `flush` returns the error of an earlier write. `flush` waits until the broker has sent
/// everything.
impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let data = data.get(..WRITE_BYTES_MAX).unwrap_or(data);
        let limits = (data.len(), WRITTEN_BYTES_MAX);
        ready!(self.stream_state().poll_write(context, limits, || {
            let send = operation::send_all(self.payload_encoding(), self.handle(), data);
            self.broker().begin(send.request(), DroppedCall::Discard)
        }))?;
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream_state().poll_flush(context).map_err(io::Error::from)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(context))?;
        let shutdown = self.stream_state().poll_shutdown(context, || {
            let shutdown = operation::shutdown(self.handle(), Shutdown::Write);
            self.broker().begin(shutdown.request(), DroppedCall::Discard)
        });
        shutdown.map_err(io::Error::from)
    }
}
