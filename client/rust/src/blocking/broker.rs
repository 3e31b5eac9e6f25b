//! A broker, and everything that is asked of it rather than of one of its sockets.

use std::fmt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use sockbroker_proto::handle::Handle;

use super::calls::lock;
use super::connection::Connection;
use super::pool::Pool;
use super::{Cancel, Socket};
use crate::address::Address;
use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::face::broker_methods;
use crate::message::{AddressHints, AddressInfo, Host};
use crate::operation::{self, NewSocket};
use crate::request::{Attachments, Call, PayloadEncoding};
use crate::wire::child;
use crate::wire::framing::Framing;
use crate::wire::response::Response;

/// How long the broker may take to answer once it was asked to cancel a call.
const GRACE: Duration = Duration::from_secs(1);
/// No time limit for calls.
const UNLIMITED: u64 = u64::MAX;

/// A broker and a session of its own with it. Clones are the same session; any thread may use them
/// at the same time. The session, and with it every socket that is left, ends with the last clone
/// and the last [`Socket`].
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Pool,
    endpoint: Endpoint,
    payload_encoding: PayloadEncoding,
    /// Nanoseconds, or [`UNLIMITED`].
    call_timeout: AtomicU64,
    /// Handles of dropped sockets that could not be closed at once.
    dropped: Mutex<Vec<Handle>>,
    has_dropped: AtomicBool,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Broker({})", self.inner.endpoint)
    }
}

broker_methods!(blocking Broker);

impl Broker {
    /// Connects to the broker that [`Endpoint::find`] finds.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] with every socket that was tried and how to start a broker.
    pub fn connect() -> Result<Self> {
        Self::connect_to(&Endpoint::find()?)
    }

    /// Connects to a broker.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] if nobody serves the endpoint, [`Error::Timeout`] if somebody does but
    /// does not answer within ten seconds, [`Error::Protocol`] if that is no broker.
    pub fn connect_to(endpoint: &Endpoint) -> Result<Self> {
        if let Endpoint::Stdio(words) = endpoint {
            let mut words = words.iter();
            let mut command = Command::new(words.next().cloned().unwrap_or_default());
            command.args(words);
            return Self::spawn_command(command);
        }
        Ok(Self::new(Pool::shared(endpoint)?, endpoint.clone()))
    }

    /// Starts a broker of one's own, as an editor starts a language server: `$SOCKBROKERD`, else
    /// `sockbrokerd` beside this program, else the one that `PATH` has, with `--stdio`. It has this
    /// process' privileges and ends with the session.
    ///
    /// All threads share one connection: a thread that waits in a call does not delay another, but
    /// a `send` that waits for room delays later sends and options of the same socket.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] if it cannot be started.
    pub fn spawn() -> Result<Self> {
        Self::spawn_command(child::usual_command())
    }

    /// Starts a broker of one's own by a command that serves its standard input and output; they
    /// are set by this function. See [`Broker::spawn`].
    ///
    /// # Errors
    ///
    /// As for [`Broker::spawn`].
    pub fn spawn_command(command: Command) -> Result<Self> {
        let words = [command.get_program()].into_iter().chain(command.get_args());
        let endpoint = Endpoint::Stdio(words.map(Into::into).collect());
        let (stream, child) = child::spawn(command)?;
        Ok(Self::new(Pool::private(Connection::over(stream, Framing::Lsp), child)?, endpoint))
    }

    fn new(pool: Pool, endpoint: Endpoint) -> Self {
        let inner = Inner {
            pool,
            payload_encoding: PayloadEncoding::of(&endpoint),
            endpoint,
            call_timeout: AtomicU64::new(UNLIMITED),
            dropped: Mutex::default(),
            has_dropped: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Where the broker is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// Limits the time that any call may take, from its start to its answer; `None`, the default,
    /// waits for ever. It holds for all clones.
    ///
    /// A socket has a timeout of its own besides ([`Socket::set_timeout`]), which runs in the
    /// broker. This one is the caller's guard against a broker that does not answer. When it has
    /// run out the call is cancelled; what the broker answers to that within a second still counts,
    /// so that no data is lost. Then the call fails with [`Error::Timeout`].
    pub fn set_call_timeout(&self, limit: Option<Duration>) {
        let nanoseconds = limit.map(|limit| u64::try_from(limit.as_nanos()).unwrap_or(UNLIMITED));
        self.inner.call_timeout.store(nanoseconds.unwrap_or(UNLIMITED), Ordering::Relaxed);
    }

    /// What [`Broker::set_call_timeout`] set.
    pub fn call_timeout(&self) -> Option<Duration> {
        match self.inner.call_timeout.load(Ordering::Relaxed) {
            UNLIMITED => None,
            nanoseconds => Some(Duration::from_nanos(nanoseconds)),
        }
    }

    /// Calls any method by its wire name, such as `socket.getservbyname`. Parameters are whatever
    /// serialises as an object (by name), as an array or tuple (by position), or `()` for none.
    /// Bytes in the result are base64; descriptors beside it are closed.
    ///
    /// ```
    /// # use sockbroker_client::blocking::Broker;
    /// let broker = Broker::spawn()?;
    /// assert_eq!(broker.call("socket.htons", (80,))?, 20480);
    /// # Ok::<(), sockbroker_client::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Whatever the call fails with.
    pub fn call(&self, method: &str, params: impl Serialize) -> Result<Value> {
        let call = Call::new(method, params, |response: &mut Response<'_>| response.value());
        self.run(call.with_attachments(Attachments::Refused))
    }

    pub(crate) fn make<P: Serialize, F: FnMut(&mut Response<'_>) -> Result<NewSocket>>(
        &self,
        call: Call<'_, P, F>,
    ) -> Result<Socket> {
        Ok(Socket::from_new(self, self.run(call)?))
    }

    /// So that methods of both faces find the broker in the same way.
    fn broker(&self) -> &Self {
        self
    }

    pub(crate) fn payload_encoding(&self) -> PayloadEncoding {
        self.inner.payload_encoding
    }

    /// Carries out a call: sends it, waits, reads its result.
    pub(crate) fn run<P, F, T>(&self, call: Call<'_, P, F>) -> Result<T>
    where
        P: Serialize,
        F: FnMut(&mut Response<'_>) -> Result<T>,
    {
        let connection = self.inner.pool.take()?;
        let ready = if self.inner.has_dropped.load(Ordering::Relaxed) {
            self.close_dropped(&connection)
        } else {
            Ok(())
        };
        let result = ready.and_then(|()| self.run_on(&connection, call));
        self.inner.pool.give(connection);
        result
    }

    fn run_on<P, F, T>(&self, connection: &Arc<Connection>, mut call: Call<'_, P, F>) -> Result<T>
    where
        P: Serialize,
        F: FnMut(&mut Response<'_>) -> Result<T>,
    {
        let deadline = self.call_timeout().map(|limit| Instant::now() + limit);
        let cancel = Cancel::current();
        let cancel = cancel.as_ref();
        if let Some(cancel) = cancel {
            cancel.check(call.method)?;
        }
        let id = connection.number();
        let registered = cancel.map(|cancel| cancel.register(connection, id));
        connection.begin(id, &call, deadline)?;
        let finished = match &registered {
            None => connection.finish(id, deadline, &mut call.read),
            Some(registered) => registered.finish(deadline, &mut call.read),
        };
        let result = finished.unwrap_or_else(|| Self::withdraw(connection, id, call));
        match result {
            Err(Error::Timeout { call, sent }) if cancel.is_some_and(Cancel::is_cancelled) => {
                Err(Error::Cancelled { call, sent })
            }
            result => result,
        }
    }

    /// Cancels a call that takes too long. What the broker answers to that still counts.
    fn withdraw<P, F, T>(connection: &Connection, id: u64, mut call: Call<'_, P, F>) -> Result<T>
    where
        F: FnMut(&mut Response<'_>) -> Result<T>,
    {
        connection.cancel(id);
        match connection.finish(id, Some(Instant::now() + GRACE), &mut call.read) {
            Some(Err(Error::Cancelled { sent, .. })) => {
                Err(Error::Timeout { call: call.method.to_owned(), sent })
            }
            Some(result) => result,
            None => {
                connection.give_up(id);
                Err(Error::Timeout { call: call.method.to_owned(), sent: None })
            }
        }
    }

    /// Closes a handle without waiting: now if that is possible, else with the next call.
    pub(crate) fn close_without_waiting(&self, handle: Handle) {
        if !self.inner.pool.notify("socket.close", &(handle,)) {
            lock(&self.inner.dropped).push(handle);
            self.inner.has_dropped.store(true, Ordering::Relaxed);
        }
    }

    /// Closes what could not be closed at once, ahead of the call that is about to begin.
    fn close_dropped(&self, connection: &Connection) -> Result<()> {
        self.inner.has_dropped.store(false, Ordering::Relaxed);
        let handles = std::mem::take(&mut *lock(&self.inner.dropped));
        let deadline = self.call_timeout().map(|limit| Instant::now() + limit);
        handles
            .into_iter()
            .try_for_each(|handle| connection.notify_waiting("socket.close", &(handle,), deadline))
    }
}
