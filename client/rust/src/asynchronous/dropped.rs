//! Calls whose future was dropped, and what collects their results.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use serde_json::Value;

use crate::lock::lock;
use crate::wire::response::OwnedResponse;

/// What happens to the response of a call whose future was dropped.
#[derive(Debug)]
pub(super) enum DroppedCall {
    /// It is discarded.
    Discard,
    /// The sockets that the call created are closed.
    CloseSockets,
    /// It is kept for the next call of the same kind on the socket.
    Keep(Arc<Unclaimed>),
}

impl DroppedCall {
    /// Records that the future was dropped. [`DroppedCall::settle`] or [`DroppedCall::abandon`] must
    /// follow.
    pub(super) fn begin(&self) {
        match self {
            Self::Discard | Self::CloseSockets => {}
            Self::Keep(unclaimed) => lock(&unclaimed.0).outstanding += 1,
        }
    }

    /// Takes the response. Returns the handles of sockets that the caller has to close.
    pub(super) fn settle(self, mut response: OwnedResponse) -> Vec<Value> {
        match self {
            Self::Discard => Vec::new(),
            Self::CloseSockets => {
                // The result of a failed call has no handle.
                let created =
                    response.read(&mut |response| response.value::<Value>()).unwrap_or_default();
                let one = created.get("handle").into_iter();
                let pair = created.as_array().into_iter().flatten();
                one.chain(pair.filter_map(|socket| socket.get("handle"))).cloned().collect()
            }
            Self::Keep(unclaimed) => {
                unclaimed.settle(Some(response));
                Vec::new()
            }
        }
    }

    /// The connection ended before the response.
    pub(super) fn abandon(self) {
        match self {
            Self::Discard | Self::CloseSockets => {}
            Self::Keep(unclaimed) => unclaimed.settle(None),
        }
    }
}

/// The results that dropped calls of one socket had taken, in the order of the responses.
#[derive(Debug, Default)]
pub(super) struct Unclaimed(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How many dropped calls have no response yet.
    outstanding: usize,
    responses: VecDeque<OwnedResponse>,
    /// Woken when no dropped call is outstanding.
    waiting: Vec<Waker>,
}

impl Unclaimed {
    fn settle(&self, response: Option<OwnedResponse>) {
        let mut state = lock(&self.0);
        state.outstanding = state.outstanding.saturating_sub(1);
        // A call that failed, usually because it was cancelled, has taken nothing.
        let result = response.filter(|response| response.error().is_none());
        state.responses.extend(result);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Waits until no dropped call is outstanding, then takes the oldest result, if there is one.
    pub(super) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<OwnedResponse>> {
        let mut state = lock(&self.0);
        if state.outstanding == 0 {
            return Poll::Ready(state.responses.pop_front());
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            state.waiting.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// See [`Unclaimed::poll_next`].
    pub(super) async fn next(&self) -> Option<OwnedResponse> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// Puts a result back, or the rest of one.
    pub(super) fn put_back(&self, response: OwnedResponse) {
        lock(&self.0).responses.push_front(response);
    }
}
