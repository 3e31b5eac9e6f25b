//! The connections of one session: one that keeps it alive, and one for each call in progress.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use sockbroker_proto::api::session::Opened;

use super::calls::lock;
use super::connection::Connection;
use crate::endpoint::Endpoint;
use crate::error::{Attempt, Error, Result};
use crate::request::{Attachments, Call};
use crate::wire::child::ChildBroker;
use crate::wire::connect::{LONGEST_WAIT, connect};
use crate::wire::framing::Framing;

/// How many seconds a session over HTTP outlives its last connection: the broker closes idle ones.
const LINGER: u32 = 60;
/// The most connections beside the anchor. More calls at a time share the anchor.
const CONNECTIONS: usize = 64;

/// The connections of a session.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Keeps the session alive; carries calls only where no further connection can be had.
    anchor: Arc<Connection>,
    /// How to get further connections.
    more: Option<More>,
    idle: Mutex<Vec<Arc<Connection>>>,
    /// How many there are beside the anchor, idle or not.
    count: AtomicUsize,
    /// Dropped last, when the connections are closed.
    _launched: Option<ChildBroker>,
}

#[derive(Debug)]
struct More {
    endpoint: Endpoint,
    token: String,
}

impl Pool {
    /// Connects to an endpoint that others may connect to as well.
    pub(crate) fn shared(endpoint: &Endpoint) -> Result<Self> {
        let anchor = open(endpoint)?;
        // Without a grant for sessions there is one connection, which all threads share.
        let linger = matches!(endpoint, Endpoint::Http(_)).then_some(LINGER);
        let more = match first_call(&anchor, "session.open", (linger,)) {
            Ok(Opened { token, .. }) => Some(More { endpoint: endpoint.clone(), token }),
            Err(Error::Denied { .. }) => None,
            Err(error) => return Err(unusable(endpoint, error)),
        };
        Ok(Self::new(anchor, more, None))
    }

    /// Uses the one connection to a broker of one's own.
    pub(crate) fn private(anchor: Connection, child: ChildBroker) -> Result<Self> {
        first_call::<serde_json::Value>(&anchor, "session.info", ())?;
        Ok(Self::new(anchor, None, Some(child)))
    }

    fn new(anchor: Connection, more: Option<More>, child: Option<ChildBroker>) -> Self {
        Self {
            anchor: Arc::new(anchor),
            more,
            idle: Mutex::default(),
            count: AtomicUsize::new(0),
            _launched: child,
        }
    }

    /// A connection for one call.
    pub(crate) fn take(&self) -> Result<Arc<Connection>> {
        while let Some(idle) = lock(&self.idle).pop() {
            if !idle.is_ended() && !idle.is_stale() {
                return Ok(idle);
            }
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        let Some(more) = &self.more else { return Ok(Arc::clone(&self.anchor)) };
        if self.count.load(Ordering::Relaxed) >= CONNECTIONS {
            return Ok(Arc::clone(&self.anchor));
        }
        let connection = open(&more.endpoint)?;
        match first_call::<Opened>(&connection, "session.attach", (&more.token,)) {
            Ok(_) => {
                self.count.fetch_add(1, Ordering::Relaxed);
                Ok(Arc::new(connection))
            }
            Err(Error::Session { .. }) => {
                Err(Error::disconnected("its session is over; it was started anew, perhaps"))
            }
            Err(error) => Err(error),
        }
    }

    /// Takes a connection back.
    pub(crate) fn give(&self, connection: Arc<Connection>) {
        if Arc::ptr_eq(&connection, &self.anchor) {
            return;
        }
        if connection.is_ended() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        } else {
            lock(&self.idle).push(connection);
        }
    }

    /// Sends a notification on the connection that was used last, if that needs no waiting.
    pub(crate) fn notify(&self, method: &str, params: &impl serde::Serialize) -> bool {
        let last = lock(&self.idle).last().cloned();
        last.unwrap_or_else(|| Arc::clone(&self.anchor)).notify(method, params)
    }
}

fn open(endpoint: &Endpoint) -> Result<Connection> {
    Ok(Connection::over(connect(endpoint)?, Framing::of(endpoint)))
}

/// A call before anything else, with a deadline of its own: there may be no broker behind it.
fn first_call<T: serde::de::DeserializeOwned>(
    connection: &Connection,
    method: &str,
    params: impl serde::Serialize,
) -> Result<T> {
    let deadline = Some(Instant::now() + LONGEST_WAIT);
    let call = Call::new(method, params, |response| response.value::<T>())
        .with_attachments(Attachments::Refused);
    let id = connection.number();
    connection.begin(id, &call, deadline)?;
    let mut read = call.read;
    let silent = || Err(Error::Timeout { call: method.to_owned(), sent: None });
    connection.finish(id, deadline, &mut read).unwrap_or_else(silent)
}

/// Something listens there, but does not speak as a broker does.
fn unusable(endpoint: &Endpoint, error: Error) -> Error {
    match error {
        Error::Disconnected { message } => Error::Connect {
            attempts: vec![Attempt {
                endpoint: endpoint.clone(),
                reason: format!("it ended the connection: {message}"),
                errno: None,
            }],
        },
        other => other,
    }
}
