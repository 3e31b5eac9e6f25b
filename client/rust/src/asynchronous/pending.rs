//! A call in pending: the future of its answer, which cancels the call when it is dropped.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::connection::Connection;
use super::dropped::{Kept, Orphan};
use crate::error::Result;
use crate::wire::response::OwnedResponse;

/// What is to become of the answer if the future is dropped.
#[derive(Debug, Clone)]
pub(crate) enum Heir {
    /// Nothing.
    Nobody,
    /// Its sockets are closed.
    Closing,
    /// It is kept.
    Socket(Arc<Kept>),
}

impl Heir {
    fn orphan(&self) -> Orphan {
        match self {
            Self::Nobody => Orphan::Nothing,
            Self::Closing => Orphan::Close,
            Self::Socket(kept) => kept.expect(),
        }
    }
}

/// A call that waits for its answer.
#[derive(Debug)]
pub(crate) struct PendingCall {
    link: Arc<Connection>,
    id: u64,
    answer: oneshot::Receiver<OwnedResponse>,
    heir: Heir,
    done: bool,
}

impl PendingCall {
    pub(crate) fn new(
        link: &Arc<Connection>,
        (id, answer): (u64, oneshot::Receiver<OwnedResponse>),
        heir: Heir,
    ) -> Self {
        Self { link: Arc::clone(link), id, answer, heir, done: false }
    }

    /// Asks the broker to cancel the call; its answer is still waited for.
    pub(crate) fn cancel(&self) {
        self.link.cancel(self.id);
    }

    /// Lets the call run to its end without anybody.
    pub(crate) fn let_go(mut self) {
        self.done = true;
        self.link.forget(self.id);
    }
}

impl Future for PendingCall {
    type Output = Result<OwnedResponse>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = std::task::ready!(Pin::new(&mut self.answer).poll(context));
        self.done = true;
        Poll::Ready(answer.map_err(|_gone| self.link.end_reason()))
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let orphan = self.heir.orphan();
        match self.link.leave(self.id, orphan, &mut self.answer) {
            None => self.link.cancel(self.id),
            Some((orphan, Some(answer))) => orphan.comes(&self.link, answer),
            Some((orphan, None)) => orphan.never_comes(),
        }
    }
}
