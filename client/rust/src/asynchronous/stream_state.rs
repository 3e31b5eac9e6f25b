//! The calls that `AsyncRead` and `AsyncWrite` of a socket have in progress.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, ready};

use super::pending::PendingCall;
use crate::error::Result;
use crate::lock::lock;
use crate::wire::response::OwnedResponse;

/// The most writes in progress before the next one waits.
const WRITES_MAX: usize = 4;

/// The calls in progress.
#[derive(Debug, Default)]
pub(super) struct StreamState {
    reading: Mutex<Option<PendingCall>>,
    writing: Mutex<Writing>,
    shutting_down: Mutex<Option<PendingCall>>,
}

impl StreamState {
    /// Cancels a read that is not polled any more. The socket keeps what it had taken.
    pub(super) fn cancel_read(&self) {
        drop(lock(&self.reading).take());
    }

    /// Waits for the response of the read in progress, or of the one that `begin` starts.
    pub(super) fn poll_read(
        &self,
        context: &mut Context<'_>,
        begin: impl FnOnce() -> Result<PendingCall>,
    ) -> Poll<Result<OwnedResponse>> {
        poll_call(&mut lock(&self.reading), context, begin)
    }

    /// Starts a write of `length` bytes, once it and the writes in progress are at most `bytes_max`
    /// bytes.
    pub(super) fn poll_write(
        &self,
        context: &mut Context<'_>,
        (length, bytes_max): (usize, usize),
        begin: impl FnOnce() -> Result<PendingCall>,
    ) -> Poll<Result<()>> {
        let mut writing = lock(&self.writing);
        ready!(writing.poll(context, bytes_max - length))?;
        writing.calls.push_back((begin()?, length));
        writing.bytes += length;
        Poll::Ready(Ok(()))
    }

    /// Waits until the broker has sent everything.
    pub(super) fn poll_flush(&self, context: &mut Context<'_>) -> Poll<Result<()>> {
        lock(&self.writing).poll(context, 0)
    }

    /// See [`StreamState::poll_flush`].
    pub(super) async fn flush(&self) -> Result<()> {
        std::future::poll_fn(|context| self.poll_flush(context)).await
    }

    /// Waits for the shutdown in progress, or for the one that `begin` starts.
    pub(super) fn poll_shutdown(
        &self,
        context: &mut Context<'_>,
        begin: impl FnOnce() -> Result<PendingCall>,
    ) -> Poll<Result<()>> {
        let mut response = ready!(poll_call(&mut lock(&self.shutting_down), context, begin))?;
        Poll::Ready(response.read(&mut |response| response.value()))
    }
}

/// Waits for the response of the call in progress, or of the one that `begin` starts.
pub(super) fn poll_call(
    pending: &mut Option<PendingCall>,
    context: &mut Context<'_>,
    begin: impl FnOnce() -> Result<PendingCall>,
) -> Poll<Result<OwnedResponse>> {
    let call = match pending {
        Some(call) => call,
        None => pending.insert(begin()?),
    };
    let response = ready!(Pin::new(call).poll(context));
    *pending = None;
    Poll::Ready(response)
}

#[derive(Debug, Default)]
struct Writing {
    /// The calls, and how many bytes each sends.
    calls: VecDeque<(PendingCall, usize)>,
    bytes: usize,
}

impl Writing {
    /// Waits until at most `bytes_max` bytes are in progress, in less than [`WRITES_MAX`] calls.
    fn poll(&mut self, context: &mut Context<'_>, bytes_max: usize) -> Poll<Result<()>> {
        while let Some((call, length)) = self.calls.front_mut() {
            let Poll::Ready(response) = Pin::new(call).poll(context) else {
                let below_limits = self.bytes <= bytes_max && self.calls.len() < WRITES_MAX;
                return if below_limits { Poll::Ready(Ok(())) } else { Poll::Pending };
            };
            self.bytes -= *length;
            self.calls.pop_front();
            response?.read(&mut |response| response.value::<()>())?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Writing {
    /// Written data are sent even if the socket is dropped.
    fn drop(&mut self) {
        self.calls.drain(..).for_each(|(call, _)| call.detach());
    }
}
