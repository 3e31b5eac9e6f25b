//! Ending calls from another thread.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::calls::lock;
use super::connection::Connection;
use crate::error::{Error, Result};
use crate::wire::response::Response;

thread_local! {
    /// What can cancel the calls of this thread.
    static CURRENT: RefCell<Option<Cancel>> = const { RefCell::new(None) };
}

/// How often a call in a scope looks whether it was cancelled, and how long a broker that was asked
/// may take to answer.
const GRACE: Duration = Duration::from_secs(1);

/// Ends the calls of whoever runs in its scope.
///
/// ```
/// use std::thread;
/// use sockbroker_client::blocking::{Broker, Cancel};
/// use sockbroker_client::Error;
///
/// let broker = Broker::spawn()?;
/// let listener = broker.create_server(("127.0.0.1", 0))?;
/// let cancel = Cancel::new();
/// let waiting = thread::spawn({
///     let cancel = cancel.clone();
///     move || cancel.run(|| listener.accept().map(drop))
/// });
/// cancel.cancel();
/// assert!(matches!(waiting.join(), Ok(Err(Error::Cancelled { .. }))));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Cancel(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    cancelled: bool,
    /// The calls that are in progress in this scope.
    calls: Vec<(Arc<Connection>, u64)>,
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cancel({})", if self.is_cancelled() { "cancelled" } else { "not cancelled" })
    }
}

impl Cancel {
    /// One that has cancelled nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs something whose calls on this thread end with [`Error::Cancelled`] as soon as
    /// [`Cancel::cancel`] is called, or at once if it has been. Data that the broker had received by
    /// then is not lost: it is the result of the call. Scopes may be nested; the innermost counts.
    pub fn run<T>(&self, body: impl FnOnce() -> T) -> T {
        let outer = CURRENT.replace(Some(self.clone()));
        let _restore = Restore(outer);
        body()
    }

    /// Cancels the calls in its scopes, those in progress and all that follow. It asks the broker
    /// and does not wait for the answer.
    pub fn cancel(&self) {
        let calls = {
            let mut state = lock(&self.0);
            state.cancelled = true;
            state.calls.clone()
        };
        for (connection, id) in calls {
            connection.cancel(id);
        }
    }

    /// Whether it has been cancelled.
    pub fn is_cancelled(&self) -> bool {
        lock(&self.0).cancelled
    }

    /// What can cancel the calls of this thread now.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Fails if it has been cancelled.
    pub(crate) fn check(&self, call: &str) -> Result<()> {
        let cancelled = || Error::Cancelled { call: call.to_owned(), sent: None };
        if self.is_cancelled() { Err(cancelled()) } else { Ok(()) }
    }

    /// Minds a call that is about to be sent, until the value that comes back is dropped.
    pub(crate) fn register<'a>(
        &'a self,
        connection: &Arc<Connection>,
        id: u64,
    ) -> RegisteredCall<'a> {
        let mut state = lock(&self.0);
        state.calls.push((Arc::clone(connection), id));
        RegisteredCall { cancel: self, connection: Arc::clone(connection), id }
    }
}

/// A call that can be cancelled.
pub(crate) struct RegisteredCall<'a> {
    cancel: &'a Cancel,
    connection: Arc<Connection>,
    id: u64,
}

impl RegisteredCall<'_> {
    /// Waits as [`Connection::finish`] does, but no longer than [`GRACE`] for a broker that does not
    /// answer to being asked to cancel.
    pub(crate) fn finish<T>(
        &self,
        deadline: Option<Instant>,
        read: &mut dyn FnMut(&mut Response<'_>) -> Result<T>,
    ) -> Option<Result<T>> {
        // It may have been cancelled before its request was sent, which the broker did not understand.
        let mut patient = !self.cancel.is_cancelled();
        if !patient {
            self.connection.cancel(self.id);
        }
        loop {
            let look = Instant::now() + GRACE;
            let until = deadline.map_or(look, |deadline| deadline.min(look));
            if let Some(result) = self.connection.finish(self.id, Some(until), read) {
                return Some(result);
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) || !patient {
                return None;
            }
            patient = !self.cancel.is_cancelled();
        }
    }
}

impl Drop for RegisteredCall<'_> {
    fn drop(&mut self) {
        let own = |(connection, id): &(_, u64)| {
            *id == self.id && Arc::ptr_eq(connection, &self.connection)
        };
        lock(&self.cancel.0).calls.retain(|call| !own(call));
    }
}

/// Puts the outer scope back, also when its body panics.
struct Restore(Option<Cancel>);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}
