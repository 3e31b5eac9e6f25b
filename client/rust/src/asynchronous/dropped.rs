//! Answers that come when nobody waits for them any more.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use serde_json::Value;

use super::connection::{Connection, lock};
use crate::wire::response::OwnedResponse;

/// What becomes of the answer to a call whose future was dropped.
#[derive(Debug)]
pub(crate) enum Orphan {
    /// It is dropped.
    Nothing,
    /// The sockets that it tells of are closed.
    Close,
    /// It is kept for the next call of its kind.
    Keep(Arc<Kept>),
}

impl Orphan {
    /// The answer has come after all.
    pub(crate) fn comes(self, link: &Connection, mut answer: OwnedResponse) {
        match self {
            Self::Nothing => {}
            Self::Close => {
                // An error tells of no socket.
                let made =
                    answer.read(&mut |response| response.value::<Value>()).unwrap_or_default();
                let handles = made.get("handle").into_iter();
                let several =
                    made.as_array().into_iter().flatten().filter_map(|one| one.get("handle"));
                for handle in handles.chain(several) {
                    link.notify("socket.close", &(handle,));
                }
            }
            Self::Keep(kept) => kept.settle(Some(answer)),
        }
    }

    /// The connection has ended before it.
    pub(crate) fn never_comes(self) {
        match self {
            Self::Nothing | Self::Close => {}
            Self::Keep(kept) => kept.settle(None),
        }
    }
}

/// What calls had taken that were given up, in order.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Calls that were given up and are not answered yet.
    open: usize,
    answers: VecDeque<OwnedResponse>,
    /// Who waits until all of them are.
    waiting: Vec<Waker>,
}

impl Kept {
    /// A call was given up.
    pub(crate) fn expect(self: &Arc<Self>) -> Orphan {
        lock(&self.0).open += 1;
        Orphan::Keep(Arc::clone(self))
    }

    fn settle(&self, answer: Option<OwnedResponse>) {
        let mut state = lock(&self.0);
        state.open = state.open.saturating_sub(1);
        // An error, such as that the call was cancelled, is nothing to keep.
        let result = answer.filter(|answer| answer.error().is_none());
        state.answers.extend(result);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// The oldest answer that is kept, after all calls that were given up have been answered.
    pub(crate) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<OwnedResponse>> {
        let mut state = lock(&self.0);
        if state.open == 0 {
            return Poll::Ready(state.answers.pop_front());
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            state.waiting.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// See [`Kept::poll_next`].
    pub(crate) async fn next(&self) -> Option<OwnedResponse> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// Puts back what was only partly used.
    pub(crate) fn put_back(&self, answer: OwnedResponse) {
        lock(&self.0).answers.push_front(answer);
    }
}
