//! A method's first poll: inline, in the order of arrival, with a panic costing one call.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, Waker};

use futures_util::future::FutureExt;
use jsonrpsee::core::server::MethodCallback;
use jsonrpsee::types::{Id, Params};
use jsonrpsee::{ConnectionId, Extensions, MethodResponse};
use serde_json::value::RawValue;

use crate::rpc::call::Call;
use crate::rpc::waiting::Guarded;

/// What became of a method at its first poll.
pub(super) enum First {
    /// It came to its end; `Err` after a panic.
    Ended(Result<MethodResponse, ()>),
    /// It waits, and is to be polled again.
    Waits(Guarded),
}

/// Runs a method to its first wait. Its answer has at most `most` bytes.
pub(super) fn first_poll(
    callback: &MethodCallback,
    call: &Call,
    id: Id<'_>,
    params: Option<&RawValue>,
    most: usize,
) -> First {
    let mut extensions = Extensions::new();
    extensions.insert(call.clone());
    let params = Params::new(params.map(RawValue::get));
    match callback {
        MethodCallback::Sync(run) => {
            let run = AssertUnwindSafe(|| run(id, params, most, extensions));
            First::Ended(catch_unwind(run).map_err(drop))
        }
        MethodCallback::Async(run) => {
            let (id, params) = (id.into_owned(), params.into_owned());
            let begin = || run(id, params, ConnectionId(0), most, extensions);
            let Ok(future) = catch_unwind(AssertUnwindSafe(begin)) else {
                return First::Ended(Err(()));
            };
            let mut future = AssertUnwindSafe(future).catch_unwind();
            match future.poll_unpin(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(response) => First::Ended(response.map_err(drop)),
                Poll::Pending => First::Waits(future),
            }
        }
        // The contract has none.
        MethodCallback::Subscription(_) | MethodCallback::Unsubscription(_) => {
            First::Ended(Err(()))
        }
    }
}
