//! A broker: connecting, running operations, the time limit of calls.

use std::fmt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use sockbroker_proto::handle::Handle;

use super::cancellation::CancellationToken;
use super::connection::Connection;
use super::persistent::Persistent;
use super::pool::{Carrier, Pool};
use crate::call_timeout::CallTimeout;
use crate::config::Config;
use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::lock::lock;
use crate::operation::{self, Operation};
use crate::request::PayloadEncoding;
use crate::wire::child;
use crate::wire::framing::Framing;

/// A broker, and a session with it.
///
/// Clones share the session, and threads may share a clone. The session ends, and the broker closes its
/// sockets, when the last clone and the last [`Socket`](super::Socket) are dropped.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Pool,
    /// What repeats calls, if the session outlives its process.
    persistent: Option<Persistent>,
    endpoint: Endpoint,
    payload_encoding: PayloadEncoding,
    call_timeout: CallTimeout,
    /// Handles of dropped sockets that could not be closed at once.
    dropped: Mutex<Vec<Handle>>,
    has_dropped: AtomicBool,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Broker({})", self.inner.endpoint)
    }
}

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
    /// [`Error::Connect`] if nothing serves the endpoint or ssh fails, [`Error::Timeout`] if the peer does not answer
    /// within ten seconds, [`Error::Protocol`] if the peer is not a broker. Logging in with ssh may take 45 seconds, and
    /// 150 at a terminal.
    pub fn connect_to(endpoint: &Endpoint) -> Result<Self> {
        if let Endpoint::Stdio(words) = endpoint {
            return Self::start(child::command_of(words), endpoint.is_relayed());
        }
        Self::connect_with(endpoint, Config::new())
    }

    /// Connects to a broker with options: with [`Config::persist`], sockets outlive the processes of the broker.
    ///
    /// # Errors
    ///
    /// Those of [`Broker::connect_to`]; [`Error::Denied`] if the policy does not grant `persist`,
    /// [`Error::Endpoint`] if the endpoint cannot be connected to again.
    pub fn connect_with(endpoint: &Endpoint, config: Config) -> Result<Self> {
        if matches!(endpoint, Endpoint::Stdio(_)) && !config.is_persistent() {
            return Self::connect_to(endpoint);
        }
        Ok(Self::new(Pool::connect(endpoint, None, config)?, endpoint.clone()))
    }

    /// Connects to a broker, in the session that a token names. The session has its own restrictions, and
    /// lives on when this value is dropped.
    ///
    /// # Errors
    ///
    /// Those of [`Broker::connect_to`]; [`Error::Session`] if there is no such session.
    pub fn attach_to(endpoint: &Endpoint, token: &str) -> Result<Self> {
        Ok(Self::new(Pool::connect(endpoint, Some(token), Config::new())?, endpoint.clone()))
    }

    /// Starts a private broker, as an editor starts a language server: `$SOCKBROKERD`, else `sockbrokerd`
    /// in the folder of this program, else `sockbrokerd` in `PATH`, with `--stdio`. It has the privileges
    /// of this process and ends with the session.
    ///
    /// All threads share one connection. A thread that waits in a call does not delay another, but a
    /// `send` that waits for space delays later sends and options of the same socket.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] if it cannot be started.
    pub fn spawn() -> Result<Self> {
        Self::spawn_command(child::default_command())
    }

    /// Starts a private broker by a command that serves its standard input and output. This function sets
    /// both. See [`Broker::spawn`].
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] if it cannot be started.
    pub fn spawn_command(command: Command) -> Result<Self> {
        Self::start(command, false)
    }

    fn start(command: Command, is_relayed: bool) -> Result<Self> {
        let endpoint = child::endpoint_of(&command);
        let (stream, child) = child::spawn(command)?;
        let anchor = Connection::over(stream, Framing::Lsp);
        Ok(Self::new(Pool::single(anchor, Carrier::Child(child), is_relayed)?, endpoint))
    }

    fn new(pool: Pool, endpoint: Endpoint) -> Self {
        let inner = Inner {
            persistent: pool.link().map(|_| Persistent::default()),
            pool,
            payload_encoding: PayloadEncoding::of(&endpoint),
            endpoint,
            call_timeout: CallTimeout::default(),
            dropped: Mutex::default(),
            has_dropped: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The endpoint of the broker.
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// Limits how long a call may take, from its start to its response. The default `None` sets no limit.
    /// It applies to all clones.
    ///
    /// It guards the caller against a broker that does not answer. The timeout of a socket
    /// ([`Socket::set_timeout`](super::Socket::set_timeout)) is independent of it and runs in the broker.
    ///
    /// When the limit expires the client asks the broker to cancel the call. A result that the broker
    /// sends within one second is still returned, so that no data are lost. Otherwise the call fails with
    /// [`Error::Timeout`].
    pub fn set_call_timeout(&self, limit: Option<Duration>) {
        self.inner.call_timeout.set(limit);
    }

    /// The limit that [`Broker::set_call_timeout`] has set.
    pub fn call_timeout(&self) -> Option<Duration> {
        self.inner.call_timeout.get()
    }

    /// Calls any method by its wire name, such as `socket.getservbyname`.
    ///
    /// `params` serializes as an object (parameters by name), as an array or tuple (by position), or is
    /// `()` for none. Bytes in the result are base64. Descriptors of the response are closed.
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
    /// The error of the call.
    pub fn call(&self, method: &str, params: impl Serialize) -> Result<Value> {
        self.run(operation::named(method, params))
    }

    pub(super) fn payload_encoding(&self) -> PayloadEncoding {
        self.inner.payload_encoding
    }

    /// Runs an operation: sends its request, waits for the response and reads the result.
    pub(super) fn run<O: Operation>(&self, mut operation: O) -> Result<O::Output> {
        if let Some(persistent) = &self.inner.persistent {
            return persistent.run(&self.inner.pool, self.call_timeout(), operation);
        }
        let connection = self.inner.pool.acquire()?;
        let closed = if self.inner.has_dropped.load(Ordering::Relaxed) {
            self.close_dropped(&connection)
        } else {
            Ok(())
        };
        let result = closed.and_then(|()| self.run_on(&connection, &mut operation));
        self.inner.pool.release(connection);
        result
    }

    fn run_on<O: Operation>(
        &self,
        connection: &Arc<Connection>,
        operation: &mut O,
    ) -> Result<O::Output> {
        let deadline = self.call_timeout().map(|limit| Instant::now() + limit);
        let token = CancellationToken::current();
        let token = token.as_ref();
        if let Some(token) = token {
            token.check(operation.request().method)?;
        }
        let id = connection.next_id();
        let registered = token.map(|token| token.register(connection, id));
        connection.begin(id, operation.request(), deadline)?;
        let finished = match &registered {
            None => connection.finish(id, deadline, &mut |response| operation.read(response)),
            Some(call) => call.finish(deadline, &mut |response| operation.read(response)),
        };
        let result = finished.unwrap_or_else(|| {
            let call = operation.request().method.to_owned();
            connection.cancel_and_finish(id, &call, &mut |response| operation.read(response))
        });
        match result {
            Err(Error::Timeout { call, sent })
                if token.is_some_and(CancellationToken::is_cancelled) =>
            {
                Err(Error::Cancelled { call, sent })
            }
            result => result,
        }
    }

    /// Closes a handle at once if that is possible without waiting, otherwise with the next call.
    pub(super) fn close_without_waiting(&self, handle: Handle) {
        if let Some(persistent) = &self.inner.persistent {
            persistent.close_without_waiting(&self.inner.pool, handle);
            return;
        }
        if !self.inner.pool.try_notify("socket.close", &(handle,)) {
            lock(&self.inner.dropped).push(handle);
            self.inner.has_dropped.store(true, Ordering::Relaxed);
        }
    }

    /// Closes handles that could not be closed at once, before a call begins.
    fn close_dropped(&self, connection: &Connection) -> Result<()> {
        self.inner.has_dropped.store(false, Ordering::Relaxed);
        let handles = std::mem::take(&mut *lock(&self.inner.dropped));
        let deadline = self.call_timeout().map(|limit| Instant::now() + limit);
        handles
            .into_iter()
            .try_for_each(|handle| connection.notify("socket.close", &(handle,), deadline))
    }
}
