//! The connections of a session: one that keeps the session open, and one for each call in progress.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sockbroker_proto::api::session::Opened;

use super::connection::Connection;
use crate::endpoint::Endpoint;
use crate::error::{Attempt, Error, Result};
use crate::lock::lock;
use crate::operation::{self, Operation as _};
use crate::wire::child::ChildBroker;
use crate::wire::connect::{CONNECT_TIMEOUT, connect};
use crate::wire::framing::Framing;

/// How long a session over HTTP outlives its last connection, in seconds. The broker closes idle HTTP
/// connections.
const LINGER_SECONDS: u32 = 60;
/// The most connections in addition to the anchor. Further concurrent calls share the anchor.
const CONNECTIONS_MAX: usize = 64;

/// The connections of a session.
#[derive(Debug)]
pub(super) struct Pool {
    /// Keeps the session open. It carries calls only if no other connection is available.
    anchor: Arc<Connection>,
    /// How to add connections; `None` if the session has only one.
    attach: Option<Attach>,
    idle: Mutex<Vec<Arc<Connection>>>,
    /// How many connections there are in addition to the anchor, idle or not.
    count: AtomicUsize,
    /// Must be dropped after the connections.
    _child: Option<ChildBroker>,
}

#[derive(Debug)]
struct Attach {
    endpoint: Endpoint,
    token: String,
}

impl Pool {
    /// Connects to an endpoint, and opens a session that further connections can attach to.
    pub(super) fn connect(endpoint: &Endpoint) -> Result<Self> {
        let anchor = new_connection(endpoint)?;
        let linger = matches!(endpoint, Endpoint::Http(_)).then_some(LINGER_SECONDS);
        let attach = match first_call(&anchor, "session.open", (linger,)) {
            Ok(Opened { token, .. }) => Some(Attach { endpoint: endpoint.clone(), token }),
            // Without the grant for sessions, all threads share one connection.
            Err(Error::Denied { .. }) => None,
            Err(error) => return Err(connect_error(endpoint, error)),
        };
        Ok(Self::new(anchor, attach, None))
    }

    /// Connects to an endpoint, in an existing session.
    pub(super) fn attach(endpoint: &Endpoint, token: &str) -> Result<Self> {
        let anchor = new_connection(endpoint)?;
        match first_call::<Opened>(&anchor, "session.attach", (token,)) {
            Ok(_) => {
                let attach = Attach { endpoint: endpoint.clone(), token: token.to_owned() };
                Ok(Self::new(anchor, Some(attach), None))
            }
            Err(error) => Err(connect_error(endpoint, error)),
        }
    }

    /// Uses the only connection to a private broker.
    pub(super) fn private(anchor: Connection, child: ChildBroker) -> Result<Self> {
        first_call::<serde_json::Value>(&anchor, "session.info", ())?;
        Ok(Self::new(anchor, None, Some(child)))
    }

    fn new(anchor: Connection, attach: Option<Attach>, child: Option<ChildBroker>) -> Self {
        Self {
            anchor: Arc::new(anchor),
            attach,
            idle: Mutex::default(),
            count: AtomicUsize::new(0),
            _child: child,
        }
    }

    /// Takes a connection for one call. [`Pool::release`] must follow.
    pub(super) fn acquire(&self) -> Result<Arc<Connection>> {
        while let Some(idle) = lock(&self.idle).pop() {
            if !idle.is_ended() && !idle.is_stale() {
                return Ok(idle);
            }
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        let Some(attach) = &self.attach else { return Ok(Arc::clone(&self.anchor)) };
        if self.count.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            return Ok(Arc::clone(&self.anchor));
        }
        let connection = new_connection(&attach.endpoint)?;
        match first_call::<Opened>(&connection, "session.attach", (&attach.token,)) {
            Ok(_) => {
                self.count.fetch_add(1, Ordering::Relaxed);
                Ok(Arc::new(connection))
            }
            Err(Error::Session { .. }) => Err(Error::disconnected(
                "the session has ended, probably because the broker was restarted",
            )),
            Err(error) => Err(error),
        }
    }

    /// Returns a connection.
    pub(super) fn release(&self, connection: Arc<Connection>) {
        if Arc::ptr_eq(&connection, &self.anchor) {
            return;
        }
        if connection.is_ended() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        } else {
            lock(&self.idle).push(connection);
        }
    }

    /// Sends a notification on the most recently used connection if that is possible without waiting;
    /// whether it is.
    pub(super) fn try_notify(&self, method: &str, params: &impl Serialize) -> bool {
        let last = lock(&self.idle).last().cloned();
        last.unwrap_or_else(|| Arc::clone(&self.anchor)).try_notify(method, params)
    }
}

fn new_connection(endpoint: &Endpoint) -> Result<Connection> {
    Ok(Connection::over(connect(endpoint)?, Framing::of(endpoint)))
}

/// The first call of a connection. It has a time limit, because the peer may not be a broker.
fn first_call<T: DeserializeOwned>(
    connection: &Connection,
    method: &str,
    params: impl Serialize,
) -> Result<T> {
    let deadline = Some(Instant::now() + CONNECT_TIMEOUT);
    let mut operation = operation::named(method, params);
    let id = connection.next_id();
    connection.begin(id, operation.request(), deadline)?;
    let result = connection.finish(id, deadline, &mut |response| operation.read(response));
    result.unwrap_or_else(|| Err(Error::Timeout { call: method.to_owned(), sent: None }))
}

/// Makes a failure of the first call an error of connecting: the peer is probably not a broker.
fn connect_error(endpoint: &Endpoint, error: Error) -> Error {
    match error {
        Error::Disconnected { message } => Error::Connect {
            attempts: vec![Attempt {
                endpoint: endpoint.clone(),
                reason: format!("the connection ended during the first call: {message}"),
                errno: None,
            }],
        },
        other => other,
    }
}
