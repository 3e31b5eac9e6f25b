//! Calls in a session that outlives its process: each is sent until it has a result, or an error that says why not.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sockbroker_proto::handle::Handle;

use super::attach::{Attached, Attaching, ends_connection};
use super::cancellation::CancellationToken;
use super::connection::Connection;
use super::first_call::call_within;
use super::pool::Pool;
use super::recovery::{LostCall, Verdict, settle_before, settle_repeated};
use crate::error::{Error, Result};
use crate::lock::lock;
use crate::operation::Operation;
use crate::recovery::{Backoff, CallFacts, CallKind, Observed, Settling, Streams};
use crate::request::Request;
use crate::wire::connect::CONNECT_TIMEOUT;
use crate::wire::response::{OwnedResponse, Response};

/// How many handles of dropped sockets are closed once more by the next process, because their requests may be lost.
const DROPPED_MAX: usize = 1024;

/// What repeats the calls of a session.
#[derive(Debug, Default)]
pub(super) struct Persistent {
    streams: Mutex<Streams>,
    state: Mutex<State>,
    /// Notified when a thread has ended its attempt to connect again.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// How often the anchor was replaced.
    generation: u64,
    epoch: u64,
    is_reconnecting: bool,
    /// A connection that the broker has not answered yet.
    attaching: Option<Attaching>,
    /// Since when the session has no connection.
    down_since: Option<Instant>,
    /// Why the session has ended.
    ended: Option<Error>,
    /// Handles of dropped sockets, oldest first.
    dropped: VecDeque<Handle>,
}

/// How an attempt of a call ended.
enum Attempted<T> {
    Ended(Result<T>),
    /// The broker did not receive the whole request.
    Unsent,
    /// The connection ended before the response to the call of this id.
    Lost(u64),
    /// The broker is about to end, and has cancelled the call, which had sent this many bytes.
    Stopped(u64),
}

/// A call, from its first attempt to its result.
struct Running<'a> {
    persistent: &'a Persistent,
    pool: &'a Pool,
    facts: CallFacts,
    token: Option<CancellationToken>,
    call_deadline: Option<Instant>,
    /// When the timeout of the socket ends. The broker observes it in the first attempt.
    deadline: Option<Instant>,
    is_repeated: bool,
    /// How many bytes earlier attempts have sent, and how many of those that the result counts are recorded.
    skipped: u64,
    counted: u64,
    observed: Observed,
}

impl Persistent {
    /// Runs an operation.
    pub(super) fn run<O: Operation>(
        &self,
        pool: &Pool,
        limit: Option<Duration>,
        mut operation: O,
    ) -> Result<O::Output> {
        let now = Instant::now();
        let facts = CallFacts::of(operation.request());
        let deadline = {
            let mut streams = lock(&self.streams);
            streams.begin(&facts);
            streams.timeout(&facts).map(|timeout| now + timeout)
        };
        let mut running = Running {
            persistent: self,
            pool,
            facts,
            token: CancellationToken::current(),
            call_deadline: limit.map(|limit| now + limit),
            deadline,
            is_repeated: false,
            skipped: 0,
            counted: 0,
            observed: Observed::default(),
        };
        let mut result = running.run(&mut operation);
        if running.is_repeated {
            let done = |response: &mut OwnedResponse| {
                response.read(&mut |response| operation.read(response))
            };
            result = settle_repeated(&running.facts, result, done);
        }
        let Running { facts, skipped, counted, observed, .. } = running;
        let mut streams = lock(&self.streams);
        streams.end(&facts, (skipped, counted), &observed, result.as_ref().err());
        if facts.kind != CallKind::Receive
            && matches!(result, Err(Error::Timeout { sent: None, .. } | Error::Disconnected { .. }))
        {
            // Nobody has said what the call did. Of a receive, the next process finds out.
            streams.forget(facts.handle);
        }
        result
    }

    /// Closes the handle of a dropped socket.
    pub(super) fn close_without_waiting(&self, pool: &Pool, handle: Handle) {
        lock(&self.streams).forget(Some(handle));
        let sent = pool.try_notify("socket.close", &(handle,));
        let mut state = lock(&self.state);
        state.note_dropped(handle);
        if !sent {
            drop(state);
            // The next process closes it, and this one if it can be asked without waiting for other threads.
            let anchor = pool.anchor();
            drop(anchor.notify("socket.close", &(handle,), Some(Instant::now())));
        }
    }

    fn generation(&self) -> u64 {
        lock(&self.state).generation
    }

    /// Connects again, unless another thread has since `generation`, or the anchor is alive.
    fn reconnect(
        &self,
        pool: &Pool,
        generation: u64,
        deadline: Option<Instant>,
        is_anchor_suspect: bool,
        is_abandoned: &dyn Fn() -> bool,
    ) -> Result<()> {
        let mut state = lock(&self.state);
        loop {
            if let Some(error) = &state.ended {
                return Err(error.clone());
            }
            if state.generation != generation {
                return Ok(());
            }
            if !state.is_reconnecting {
                break;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            state = match left {
                Some(left) if left.is_zero() => {
                    return Err(Error::Timeout { call: String::new(), sent: None });
                }
                Some(left) => {
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        if !is_anchor_suspect && pool.anchor().is_alive() {
            return Ok(());
        }
        let Some(link) = pool.link() else { return Ok(()) };
        state.is_reconnecting = true;
        let mut attaching = state.attaching.take();
        let give_up = *state.down_since.get_or_insert_with(Instant::now) + link.reconnect;
        drop(state);
        let attached = link.attach_again(&mut attaching, deadline, give_up, is_abandoned);
        if let Ok(attached) = &attached {
            self.close_dropped(attached);
        }
        let mut state = lock(&self.state);
        state.is_reconnecting = false;
        state.attaching = attaching;
        let result = match attached {
            Ok(attached) => {
                pool.replace_anchor(attached);
                state.generation += 1;
                state.down_since = None;
                Ok(())
            }
            Err(error) => {
                match &error {
                    Error::Session { .. } => state.ended = Some(error.clone()),
                    // The next call waits as long again.
                    Error::Disconnected { .. } => state.down_since = None,
                    _ => {}
                }
                Err(error)
            }
        };
        self.changed.notify_all();
        result
    }

    /// Closes the handles of dropped sockets in the next process before it serves a call on any connection: a dropped socket
    /// holds no port. Those that are closed already are ignored. What this connection does not close, the next one does.
    fn close_dropped(&self, attached: &Attached) {
        if lock(&self.state).epoch == attached.epoch {
            return;
        }
        loop {
            let oldest = lock(&self.state).dropped.front().copied();
            let Some(handle) = oldest else { break };
            let closed: Result<()> =
                call_within(CONNECT_TIMEOUT, &attached.connection, "socket.close", (handle,));
            match closed {
                Err(error) if ends_connection(&error) => return,
                Err(Error::Timeout { .. }) => return,
                Ok(()) | Err(_) => lock(&self.state).dropped.retain(|dropped| *dropped != handle),
            }
        }
        lock(&self.state).epoch = attached.epoch;
    }
}

impl State {
    /// Records the handle of a dropped socket. The oldest beyond [`DROPPED_MAX`] are forgotten.
    fn note_dropped(&mut self, handle: Handle) {
        if self.dropped.len() == DROPPED_MAX {
            self.dropped.pop_front();
        }
        self.dropped.push_back(handle);
    }
}

impl Running<'_> {
    /// Attempts until there is a result.
    fn run<O: Operation>(&mut self, operation: &mut O) -> Result<O::Output> {
        let mut backoff = Backoff::default();
        loop {
            let generation = self.persistent.generation();
            let connection = match self.pool.acquire() {
                Ok(connection) => connection,
                Err(error) if ends_connection(&error) => {
                    self.reconnect(generation, true)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if !self.prepare(&connection, generation)? {
                pause(&mut backoff);
                continue;
            }
            let attempted = self.attempt_counted(&connection, operation);
            if matches!(attempted, Attempted::Stopped(_)) {
                connection.end(Error::disconnected("the broker is about to end"));
            }
            self.pool.release(Arc::clone(&connection));
            let (id, stopped) = match attempted {
                Attempted::Ended(result) => return result,
                Attempted::Unsent => {
                    self.reconnect(generation, false)?;
                    pause(&mut backoff);
                    continue;
                }
                Attempted::Lost(id) => (id, None),
                Attempted::Stopped(sent) => (0, Some(sent)),
            };
            let verdict = match stopped {
                Some(sent) => {
                    let verdict =
                        self.lost(&connection, id).stopped(sent, &self.persistent.streams);
                    self.reconnect(generation, true)?;
                    verdict
                }
                None => self.resolve(&connection, id, generation)?,
            };
            self.is_repeated = true;
            match verdict {
                Verdict::Repeat => {}
                Verdict::Continue(sent) => self.skipped += sent,
                Verdict::Answered(mut response, counted) => {
                    self.counted = counted;
                    return response.read(&mut |response| self.read(operation, response));
                }
            }
            pause(&mut backoff);
        }
    }

    /// Prepares an attempt on a connection. `false` if there has to be another one: then the connection is released.
    fn prepare(&self, connection: &Arc<Connection>, generation: u64) -> Result<bool> {
        let settled = settle_before(&self.facts, connection, &self.persistent.streams);
        if matches!(settled, Ok(Settling::Done)) {
            return Ok(true);
        }
        let has_ended = matches!(&settled, Err(error) if ends_connection(error));
        if has_ended {
            connection.end(Error::disconnected("the connection failed"));
        }
        self.pool.release(Arc::clone(connection));
        match settled {
            Err(_) if has_ended => self.reconnect(generation, false)?,
            Err(error) => return Err(error),
            Ok(_) => {
                if let Some(token) = &self.token {
                    token.check(&self.facts.method)?;
                }
            }
        }
        Ok(false)
    }

    /// An attempt, counted if it receives. It is not sent if the process that this connection leads to has ended meanwhile.
    fn attempt_counted<O: Operation>(
        &mut self,
        connection: &Arc<Connection>,
        operation: &mut O,
    ) -> Attempted<O::Output> {
        let reader = self.facts.handle.filter(|_| self.facts.kind == CallKind::Receive);
        let Some(handle) = reader else { return self.attempt(connection, operation) };
        let epoch = connection.identity().1;
        if !lock(&self.persistent.streams).readers.begin_attempt(handle, epoch) {
            return Attempted::Unsent;
        }
        let attempted = self.attempt(connection, operation);
        let mut streams = lock(&self.persistent.streams);
        if !self.facts.peeks {
            streams.readers.add(handle, self.observed.take_count());
        }
        streams.readers.end_attempt(handle);
        attempted
    }

    fn read<O: Operation>(
        &mut self,
        operation: &mut O,
        response: &mut Response<'_>,
    ) -> Result<O::Output> {
        self.observed = Observed::of(&self.facts, response.result);
        operation.read(response)
    }

    /// The end of the wait for a connection.
    fn until(&self) -> Option<Instant> {
        [self.deadline, self.call_deadline].into_iter().flatten().min()
    }

    fn reconnect(&self, generation: u64, is_anchor_suspect: bool) -> Result<()> {
        let method = &self.facts.method;
        if let Some(token) = &self.token {
            token.check(method)?;
        }
        let is_cancelled = || self.token.as_ref().is_some_and(CancellationToken::is_cancelled);
        let until = self.until();
        let result = self.persistent.reconnect(
            self.pool,
            generation,
            until,
            is_anchor_suspect,
            &is_cancelled,
        );
        result.map_err(|error| match error {
            Error::Timeout { sent, .. } => Error::Timeout { call: self.facts.call(), sent },
            Error::Cancelled { sent, .. } => Error::Cancelled { call: self.facts.call(), sent },
            other => other,
        })
    }

    fn lost<'a>(&'a self, connection: &Connection, id: u64) -> LostCall<'a> {
        let (number, epoch) = connection.identity();
        let (facts, skipped) = (&self.facts, self.skipped);
        LostCall { facts, connection: number, id, epoch, skipped, is_ordered: false }
    }

    /// Finds out what became of a call of a connection that has ended.
    fn resolve(&self, ended: &Connection, id: u64, mut generation: u64) -> Result<Verdict> {
        let mut backoff = Backoff::default();
        loop {
            self.reconnect(generation, false)?;
            generation = self.persistent.generation();
            let connection = match self.pool.acquire() {
                Ok(connection) => connection,
                Err(error) if ends_connection(&error) => {
                    self.reconnect(generation, true)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let epoch = connection.identity().1;
            let verdict =
                self.lost(ended, id).resolve(&connection, epoch, &self.persistent.streams);
            if matches!(&verdict, Err(error) if ends_connection(error)) {
                connection.end(Error::disconnected("the connection failed"));
            }
            self.pool.release(connection);
            match verdict {
                Err(error) if ends_connection(&error) => pause(&mut backoff),
                verdict => return verdict,
            }
        }
    }

    /// Sends the request once and waits for the response.
    fn attempt<O: Operation>(
        &mut self,
        connection: &Arc<Connection>,
        operation: &mut O,
    ) -> Attempted<O::Output> {
        let token = self.token.clone();
        if let Some(Err(error)) = token.as_ref().map(|token| token.check(&self.facts.method)) {
            return Attempted::Ended(Err(error));
        }
        let deadline = if self.is_repeated { self.until() } else { self.call_deadline };
        let id = connection.next_id();
        let registered = token.as_ref().map(|token| token.register(connection, id));
        let begun = match self.skipped {
            0 => connection.begin(id, operation.request(), deadline),
            skipped => {
                begin_rest(connection, id, operation.request(), &self.facts, skipped, deadline)
            }
        };
        match begun {
            Ok(()) => {}
            Err(error) if ends_connection(&error) => return Attempted::Unsent,
            Err(error) => return Attempted::Ended(Err(error)),
        }
        let mut read = |response: &mut Response<'_>| self.read(operation, response);
        let finished = match &registered {
            None => connection.finish(id, deadline, &mut read),
            Some(call) => call.finish(deadline, &mut read),
        };
        let is_cancelled = || token.as_ref().is_some_and(CancellationToken::is_cancelled);
        let is_expired = finished.is_none();
        let result = if let Some(result) = finished {
            result
        } else {
            let call = self.facts.call();
            let mut read = |response: &mut Response<'_>| self.read(operation, response);
            connection.cancel_and_finish(id, &call, &mut read)
        };
        match result {
            Err(Error::Timeout { call, sent }) if is_cancelled() => {
                Attempted::Ended(Err(Error::Cancelled { call, sent }))
            }
            Err(Error::Cancelled { sent, .. }) if !is_cancelled() && !is_expired => {
                Attempted::Stopped(sent.unwrap_or_default())
            }
            Err(Error::Disconnected { .. }) => Attempted::Lost(id),
            result => Attempted::Ended(result),
        }
    }
}

/// Pauses before the next attempt: a process ends with its connections one after the other.
fn pause(backoff: &mut Backoff) {
    thread::park_timeout(backoff.next());
}

/// Sends what is left of a `sendall`.
fn begin_rest<P: serde::Serialize>(
    connection: &Connection,
    id: u64,
    request: &Request<'_, P>,
    facts: &CallFacts,
    skipped: u64,
    deadline: Option<Instant>,
) -> Result<()> {
    let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
    let data = request.attachments().first().and_then(|data| data.get(skipped..));
    let data = data.unwrap_or_default();
    connection.begin(id, &Request::of_rest(facts.handle, data), deadline)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_dropped_handles_are_forgotten_beyond_the_limit() {
        let mut state = State::default();
        let handles = (0..=DROPPED_MAX as u64).filter_map(Handle::new);
        handles.for_each(|handle| state.note_dropped(handle));
        assert_eq!(state.dropped.len(), DROPPED_MAX);
        assert_eq!(state.dropped.front().map(|handle| handle.number()), Some(1));
    }
}
