//! Cancelling calls from another thread.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::connection::Connection;
use crate::error::{Error, Result};
use crate::lock::lock;
use crate::wire::response::ResultReader;

thread_local! {
    /// The token whose scope this thread runs in.
    static CURRENT: RefCell<Option<CancellationToken>> = const { RefCell::new(None) };
}

/// How often a call checks whether its token was cancelled before its request was sent, and how long the
/// broker may take to answer a request to cancel a call.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);

/// Cancels the calls that run in its scope.
///
/// ```
/// use std::thread;
/// use sockbroker_client::blocking::{Broker, CancellationToken};
/// use sockbroker_client::Error;
///
/// let broker = Broker::spawn()?;
/// let listener = broker.create_server(("127.0.0.1", 0))?;
/// let token = CancellationToken::new();
/// let waiting = thread::spawn({
///     let token = token.clone();
///     move || token.run(|| listener.accept().map(drop))
/// });
/// token.cancel();
/// assert!(matches!(waiting.join(), Ok(Err(Error::Cancelled { .. }))));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Default)]
pub struct CancellationToken(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    cancelled: bool,
    /// The calls in progress in this scope.
    calls: Vec<(Arc<Connection>, u64)>,
}

impl fmt::Debug for CancellationToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_cancelled() { "cancelled" } else { "not cancelled" };
        write!(f, "CancellationToken({state})")
    }
}

impl CancellationToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `body` in the scope of the token. Its calls on this thread fail with [`Error::Cancelled`] as
    /// soon as [`CancellationToken::cancel`] is called, or at once if it was called before. Data that the
    /// broker had received by then are not lost: they are the result of the call. Scopes can be nested;
    /// the innermost applies.
    pub fn run<T>(&self, body: impl FnOnce() -> T) -> T {
        let outer = CURRENT.replace(Some(self.clone()));
        let _restore = RestoreOnDrop(outer);
        body()
    }

    /// Cancels the calls in progress in the scope, and all later ones. Asks the broker and does not wait
    /// for its response.
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

    /// Whether [`CancellationToken::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        lock(&self.0).cancelled
    }

    /// The token whose scope this thread runs in.
    pub(super) fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Fails if the token is cancelled.
    pub(super) fn check(&self, call: &str) -> Result<()> {
        let cancelled = || Error::Cancelled { call: call.to_owned(), sent: None };
        if self.is_cancelled() { Err(cancelled()) } else { Ok(()) }
    }

    /// Registers a call before its request is sent. Dropping the returned value removes it.
    pub(super) fn register<'a>(
        &'a self,
        connection: &Arc<Connection>,
        id: u64,
    ) -> RegisteredCall<'a> {
        let mut state = lock(&self.0);
        state.calls.push((Arc::clone(connection), id));
        RegisteredCall { token: self, connection: Arc::clone(connection), id }
    }
}

/// A call that its token can cancel.
pub(super) struct RegisteredCall<'a> {
    token: &'a CancellationToken,
    connection: Arc<Connection>,
    id: u64,
}

impl RegisteredCall<'_> {
    /// Waits as [`Connection::finish`] does. Once the token is cancelled it waits for at most
    /// [`CANCEL_TIMEOUT`].
    pub(super) fn finish<T>(
        &self,
        deadline: Option<Instant>,
        read: ResultReader<'_, T>,
    ) -> Option<Result<T>> {
        // The token may have been cancelled before the request was sent. The broker did not know the
        // call yet and ignored the notification, so it is sent again.
        let mut cancelled = self.token.is_cancelled();
        if cancelled {
            self.connection.cancel(self.id);
        }
        loop {
            let next_check = Instant::now() + CANCEL_TIMEOUT;
            let until = deadline.map_or(next_check, |deadline| deadline.min(next_check));
            if let Some(result) = self.connection.finish(self.id, Some(until), read) {
                return Some(result);
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) || cancelled {
                return None;
            }
            cancelled = self.token.is_cancelled();
        }
    }
}

impl Drop for RegisteredCall<'_> {
    fn drop(&mut self) {
        let is_this = |(connection, id): &(_, u64)| {
            *id == self.id && Arc::ptr_eq(connection, &self.connection)
        };
        lock(&self.token.0).calls.retain(|call| !is_this(call));
    }
}

/// Restores the outer scope, even if the body panics.
struct RestoreOnDrop(Option<CancellationToken>);

impl Drop for RestoreOnDrop {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}
