//! A call from its first poll to its end.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt;
use futures_util::future::{Abortable, BoxFuture, CatchUnwind};
use jsonrpsee_types::Id;
use serde_json::value::RawValue;

use crate::config::limits::{Limits, size};
use crate::error::LimitExceeded;
use crate::quota::{Reservation, Share, User};
use crate::rpc::batch::Slot;
use crate::rpc::call::{Call, RequestParts};
use crate::rpc::methods::{Begun, Method, Outcome};

/// A handler's future. A panic in it ends one call only.
pub(super) type Guarded = CatchUnwind<AssertUnwindSafe<BoxFuture<'static, Outcome>>>;

/// The state of a call after its first poll.
pub(super) enum First {
    /// The call has ended. `Err` after a panic.
    Ended(Result<Outcome, ()>),
    /// The call waits, and must be polled again.
    Waits(Guarded),
}

/// Runs a call until it first waits. A panic ends this call only.
pub(super) fn first_poll(method: &Method, call: &Call, params: Option<&RawValue>) -> First {
    let begun = catch_unwind(AssertUnwindSafe(|| method.begin(call, params)));
    match begun {
        Err(_panic) => First::Ended(Err(())),
        Ok(Begun::Ended(outcome)) => First::Ended(Ok(outcome)),
        Ok(Begun::Async(future)) => {
            let mut future = AssertUnwindSafe(future).catch_unwind();
            match future.poll_unpin(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(outcome) => First::Ended(outcome.map_err(drop)),
                Poll::Pending => First::Waits(future),
            }
        }
    }
}

/// The most memory in bytes that a decoded item of a list takes in addition to its text: a polled handle has a
/// permit and a watch in the kernel.
const ITEM: usize = 256;

/// The memory in bytes and the descriptors that requests hold while their calls wait.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Held {
    pub(super) bytes: usize,
    pub(super) descriptors: usize,
}

impl Held {
    /// What one request holds. `items` is the number of items in its lists.
    pub(super) fn of(text: &str, parts: &RequestParts, items: usize) -> Self {
        let attached = parts.attachments.iter().map(bytes::Bytes::len).sum::<usize>();
        let bytes = text.len() + attached + items * ITEM;
        Self { bytes, descriptors: parts.descriptors.len() }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            descriptors: self.descriptors.saturating_add(other.descriptors),
        }
    }

    /// Subtracts `other`, which was added before.
    pub(super) fn minus(self, other: Self) -> Self {
        Self { bytes: self.bytes - other.bytes, descriptors: self.descriptors - other.descriptors }
    }
}

/// Checks the limits for one more waiting call on a connection. `waiting` is the number of calls that wait
/// already, and `sum` is what all of them hold, with the new one.
pub(super) fn check_connection(
    limits: &Limits,
    waiting: usize,
    sum: Held,
) -> Result<(), LimitExceeded> {
    let exceeded = |name, value| Err(LimitExceeded { name, value });
    if waiting >= size(limits.calls_in_flight) {
        exceeded("calls_in_flight", limits.calls_in_flight)
    } else if sum.bytes > size(limits.buffered_bytes) {
        exceeded("buffered_bytes", limits.buffered_bytes)
    } else if sum.descriptors > size(limits.buffered_descriptors) {
        exceeded("buffered_descriptors", limits.buffered_descriptors)
    } else {
        Ok(())
    }
}

/// What a waiting call takes from the shares of its user.
#[derive(Debug)]
pub(super) struct Shares {
    _call: Reservation,
    _bytes: Reservation,
    _descriptors: Reservation,
}

impl Shares {
    /// Takes the shares, within the limits of the user.
    pub(super) fn take(user: &Arc<User>, held: Held) -> Result<Self, LimitExceeded> {
        Ok(Self {
            _call: user.take(Share::Calls, 1)?,
            _bytes: user.take(Share::Bytes, held.bytes as u64)?,
            _descriptors: user.take(Share::Descriptors, held.descriptors as u64)?,
        })
    }
}

/// A call that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// `None` for a notification.
    pub(super) id: Option<Id<'static>>,
    pub(super) method: Arc<Method>,
    pub(super) call: Call,
    /// Where the answer goes.
    pub(super) slot: Slot,
    /// What the request holds while it waits.
    pub(super) held: Held,
    /// The same, as reservations of its user.
    pub(super) shares: Option<Shares>,
    /// `Err` after a panic, `None` if the call was cancelled.
    pub(super) outcome: Option<Result<Outcome, ()>>,
}

/// A call in the set of those that wait.
pub(super) struct Waiting {
    future: Abortable<Guarded>,
    ended: Option<Ended>,
}

impl Waiting {
    /// A call that has been polled once. The set polls it again at once, which registers its waker.
    pub(super) fn new(future: Abortable<Guarded>, ended: Ended) -> Self {
        Self { future, ended: Some(ended) }
    }
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Waiting({:?})", self.ended.as_ref().map(|ended| ended.method.name))
    }
}

impl Future for Waiting {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended> {
        let Poll::Ready(outcome) = self.future.poll_unpin(context) else {
            return Poll::Pending;
        };
        match self.ended.take() {
            Some(ended) => {
                let outcome = outcome.ok().map(|outcome| outcome.map_err(drop));
                Poll::Ready(Ended { outcome, ..ended })
            }
            // The set does not poll a future again that was ready.
            None => Poll::Pending,
        }
    }
}
