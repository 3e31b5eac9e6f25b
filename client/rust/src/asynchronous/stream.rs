//! A socket as a stream of tokio: payload as attachments, in its own buffers.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Socket;
use super::connection::lock;
use super::pending::{Heir, PendingCall};
use crate::constant::Flags;
use crate::error::Result;
use crate::operation::{self, MAX_TRANSFER};
use crate::request::Call;
use crate::wire::response::OwnedResponse;

/// How many writes may be on their way before the next one waits.
const WRITES: usize = 4;
/// How many bytes may be.
const WRITTEN: usize = MAX_TRANSFER;

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct StreamState {
    reading: Mutex<Option<PendingCall>>,
    writing: Mutex<Writing>,
    shutting: Mutex<Option<PendingCall>>,
}

#[derive(Debug, Default)]
struct Writing {
    calls: VecDeque<(PendingCall, usize)>,
    bytes: usize,
}

impl StreamState {
    /// Gives up a read that nobody polls; what it had taken is kept.
    pub(super) fn leave_reading(&self) {
        drop(lock(&self.reading).take());
    }

    /// Waits until the broker has passed everything on.
    pub(super) async fn finish_writing(&self) -> Result<()> {
        std::future::poll_fn(|context| lock(&self.writing).poll(context, 0)).await
    }
}

impl Writing {
    /// Waits until no more than so many bytes are on their way.
    fn poll(&mut self, context: &mut Context<'_>, bytes: usize) -> Poll<Result<()>> {
        while let Some((pending, length)) = self.calls.front_mut() {
            let Poll::Ready(answer) = Pin::new(pending).poll(context) else {
                let few = self.bytes <= bytes && self.calls.len() < WRITES;
                return if few { Poll::Ready(Ok(())) } else { Poll::Pending };
            };
            self.bytes -= *length;
            self.calls.pop_front();
            answer?.read(&mut |response| response.value::<()>())?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Writing {
    /// What was written is sent, also when the socket is dropped.
    fn drop(&mut self) {
        self.calls.drain(..).for_each(|(pending, _)| pending.let_go());
    }
}

impl Socket {
    fn poll_receive(&self, context: &mut Context<'_>, room: usize) -> Poll<Result<OwnedResponse>> {
        let mut reading = lock(&self.streaming.reading);
        if reading.is_none() {
            let params = (self.handle(), room.min(MAX_TRANSFER), Flags::NONE);
            let call = Call::new("socket.recv", params, |_| Ok(()));
            *reading = Some(self.broker().begin(&call, Heir::Socket(Arc::clone(&self.kept)))?);
        }
        let Some(pending) = reading.as_mut() else { return Poll::Pending };
        let answer = ready!(Pin::new(pending).poll(context));
        *reading = None;
        Poll::Ready(answer)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut answer = match ready!(self.kept.poll_next(context)) {
            Some(answer) => answer,
            None => ready!(self.poll_receive(context, buffer.remaining()))?,
        };
        let mut take = |data: &[u8]| {
            let (now, later) = data.split_at(data.len().min(buffer.remaining()));
            buffer.put_slice(now);
            (!later.is_empty()).then(|| OwnedResponse::of_data(later))
        };
        match answer.read(&mut |response| operation::data(response, &mut take))? {
            Some(later) => self.kept.put_back(later),
            None => self.broker().recycle(answer),
        }
        Poll::Ready(Ok(()))
    }
}

/// A write is on its way when it returns, up to a MiB of them at a time. An error comes with the next
/// write, or with `flush`, which waits until the broker has passed everything on.
impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let piece = data.get(..MAX_TRANSFER / 2).unwrap_or(data);
        let mut writing = lock(&self.streaming.writing);
        ready!(writing.poll(context, WRITTEN - piece.len()))?;
        let call = operation::send_all(self.payload_encoding(), self.handle(), piece);
        let pending = self.broker().begin(&call, Heir::Nobody)?;
        writing.calls.push_back((pending, piece.len()));
        writing.bytes += piece.len();
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.streaming.writing).poll(context, 0).map_err(io::Error::from)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(context))?;
        let mut shutting = lock(&self.streaming.shutting);
        if shutting.is_none() {
            let call =
                operation::shutdown(self.handle(), operation::how(std::net::Shutdown::Write));
            *shutting = Some(self.broker().begin(&call, Heir::Nobody)?);
        }
        let Some(pending) = shutting.as_mut() else { return Poll::Pending };
        let answer = ready!(Pin::new(pending).poll(context));
        *shutting = None;
        answer?.read(&mut |response| response.value::<()>())?;
        Poll::Ready(Ok(()))
    }
}
