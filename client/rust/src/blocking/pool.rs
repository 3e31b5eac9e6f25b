//! The connections of a session: one that keeps the session open, and one for each call in progress.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use serde::Serialize;
use serde_json::{Map, Value, json};
use sockbroker_proto::api::session::Opened;

use super::attach::{Attached, Link};
use super::connection::Connection;
use super::first_call::{call_within, first_call, new_connection};
use crate::config::Config;
use crate::endpoint::Endpoint;
use crate::error::{Attempt, Error, Result};
use crate::lock::lock;
use crate::wire::child::ChildBroker;
use crate::wire::connect::CONNECT_TIMEOUT;
use crate::wire::framing::Framing;
use crate::wire::ssh;

/// How long a session over HTTP outlives its last connection, in seconds. The broker closes idle HTTP
/// connections.
const LINGER_SECONDS: u32 = 60;
/// The most connections in addition to the anchor. Further concurrent calls share the anchor.
const CONNECTIONS_MAX: usize = 64;

/// The connections of a session.
#[derive(Debug)]
pub(super) struct Pool {
    /// Keeps the session open. It carries calls only if no other connection is available.
    anchor: Mutex<Arc<Connection>>,
    /// How to add connections; `None` if the session has only one.
    attach: Option<Attach>,
    idle: Mutex<Vec<Arc<Connection>>>,
    /// How many connections there are in addition to the anchor, idle or not.
    count: AtomicUsize,
    /// How to return to the session after the end of its process, if it outlives that.
    link: Option<Link>,
    /// Must be dropped after the connections.
    carrier: Carrier,
}

/// A process that the connections need.
#[derive(Debug)]
pub(super) enum Carrier {
    None,
    /// The broker, or a program that leads to it.
    Child(#[expect(dead_code, reason = "its end ends the process")] ChildBroker),
    Forward(ssh::Forward),
    Program(ssh::Program),
}

#[derive(Debug)]
struct Attach {
    endpoint: Endpoint,
    token: String,
    /// Whether descriptors are lost on the way.
    is_relayed: bool,
}

impl Pool {
    /// Connects to an endpoint, and opens a session that further connections can attach to. `token` names an
    /// existing session instead.
    pub(super) fn connect(
        endpoint: &Endpoint,
        token: Option<&str>,
        config: Config,
    ) -> Result<Self> {
        if config.is_persistent() {
            Link::check(endpoint)?;
        }
        let open = |local: &Endpoint, carrier| match token {
            Some(token) => Self::attach(endpoint, local, token, carrier),
            None => Self::open(endpoint, local, carrier, config),
        };
        let Endpoint::Ssh(target) = endpoint else {
            return open(endpoint, Carrier::None);
        };
        match ssh::connect(target)? {
            ssh::Connected::Forward(forward) => {
                open(&Endpoint::Unix(forward.socket()), Carrier::Forward(forward))
            }
            ssh::Connected::Program(_, _) if config.is_persistent() => Err(Error::Endpoint {
                message: format!(
                    "`persist` requires that sshd forwards sockets, which {endpoint} does not"
                ),
            }),
            ssh::Connected::Program(stream, program) => {
                let anchor = Connection::over(stream, Framing::of(endpoint));
                let is_relayed = endpoint.is_relayed();
                let pool = Self::single(anchor, Carrier::Program(program), is_relayed)?;
                if let Some(token) = token {
                    let descriptors = is_relayed.then_some(false);
                    let params = (token, None::<bool>, descriptors);
                    first_call::<Opened>(&pool.anchor(), "session.attach", params)?;
                }
                Ok(pool)
            }
        }
    }

    /// Attaches to a session at `endpoint`, whose connections are those to `local`.
    fn attach(
        endpoint: &Endpoint,
        local: &Endpoint,
        token: &str,
        carrier: Carrier,
    ) -> Result<Self> {
        let anchor = new_connection(local)?;
        let is_relayed = endpoint.is_relayed();
        let params = (token, None::<bool>, is_relayed.then_some(false));
        first_call::<Opened>(&anchor, "session.attach", params)
            .map_err(|error| connect_error(endpoint, error))?;
        let attach = Attach { endpoint: local.clone(), token: token.to_owned(), is_relayed };
        Ok(Self::new(anchor, Some(attach), None, carrier))
    }

    /// Opens a session at `endpoint`, whose connections are those to `local`.
    fn open(
        endpoint: &Endpoint,
        local: &Endpoint,
        carrier: Carrier,
        config: Config,
    ) -> Result<Self> {
        let anchor = new_connection(local)?;
        let mut params = Map::new();
        if matches!(endpoint, Endpoint::Http(_)) {
            params.insert("linger".to_owned(), json!(LINGER_SECONDS));
        }
        let is_relayed = endpoint.is_relayed();
        if is_relayed {
            params.insert("descriptors".to_owned(), json!(false));
        }
        if config.is_persistent() {
            params.insert("persist".to_owned(), json!(true));
            params.insert("exactly_once".to_owned(), json!(true));
        }
        let mut link = None;
        let attach = match first_call(&anchor, "session.open", params) {
            Ok(Opened { token, connection, epoch, .. }) => {
                anchor.identify(connection, epoch);
                link = config.is_persistent().then(|| Link {
                    endpoint: endpoint.clone(),
                    local: local.clone(),
                    is_relayed,
                    token: OnceLock::from(token.clone()),
                    reconnect: config.reconnect(),
                });
                Some(Attach { endpoint: local.clone(), token, is_relayed })
            }
            Err(error) if config.is_persistent() => return Err(connect_error(endpoint, error)),
            // Without the grant for sessions, all threads share one connection.
            Err(Error::Denied { .. }) => None,
            Err(error) => return Err(connect_error(endpoint, error)),
        };
        Ok(Self::new(anchor, attach, link, carrier))
    }

    /// Uses the only connection to a broker.
    pub(super) fn single(anchor: Connection, carrier: Carrier, is_relayed: bool) -> Result<Self> {
        let result = if is_relayed {
            anchor.expect_preamble();
            let timeout = match carrier {
                Carrier::Program(_) => ssh::Program::first_call_timeout(),
                Carrier::None | Carrier::Child(_) | Carrier::Forward(_) => CONNECT_TIMEOUT,
            };
            let refusal = json!({ "descriptors": false });
            match call_within::<Value>(timeout, &anchor, "session.open", refusal) {
                // Without the grant for sessions it takes effect too.
                Err(Error::Denied { .. }) => Ok(Value::Null),
                result => result,
            }
        } else {
            first_call(&anchor, "session.info", ())
        };
        match (result, &carrier) {
            (Err(error), Carrier::Program(program)) => Err(program.explain(error)),
            (Err(error), _) => Err(error),
            (Ok(_), _) => Ok(Self::new(anchor, None, None, carrier)),
        }
    }

    fn new(
        anchor: Connection,
        attach: Option<Attach>,
        link: Option<Link>,
        carrier: Carrier,
    ) -> Self {
        Self {
            anchor: Mutex::new(Arc::new(anchor)),
            attach,
            idle: Mutex::default(),
            count: AtomicUsize::new(0),
            link,
            carrier,
        }
    }

    /// The connection that keeps the session open.
    pub(super) fn anchor(&self) -> Arc<Connection> {
        Arc::clone(&lock(&self.anchor))
    }

    /// Keeps the session open by another connection.
    pub(super) fn replace_anchor(&self, attached: Attached) {
        attached.connection.identify(attached.number, attached.epoch);
        *lock(&self.anchor) = Arc::new(attached.connection);
    }

    pub(super) fn link(&self) -> Option<&Link> {
        self.link.as_ref()
    }

    /// Takes a connection for one call. [`Pool::release`] must follow.
    pub(super) fn acquire(&self) -> Result<Arc<Connection>> {
        while let Some(idle) = lock(&self.idle).pop() {
            if !idle.is_ended() && !idle.is_stale() && !self.is_outlived(&idle) {
                return Ok(idle);
            }
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        let Some(attach) = &self.attach else { return Ok(self.anchor()) };
        if self.count.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            return Ok(self.anchor());
        }
        if self.link.is_some() && !self.anchor().is_alive() {
            // The next process serves the anchor first (`Persistent::reconnect`).
            return Err(Error::disconnected("the broker closed the connection"));
        }
        match self.add(attach) {
            // The broker serves the session, and is only slow to serve a further connection.
            Err(Error::Timeout { .. }) => Ok(self.anchor()),
            result => result,
        }
    }

    /// Opens a further connection.
    fn add(&self, attach: &Attach) -> Result<Arc<Connection>> {
        let connection = new_connection(&attach.endpoint).map_err(|error| self.explain(error))?;
        let descriptors = attach.is_relayed.then_some(false);
        let params = (&attach.token, None::<bool>, descriptors);
        match first_call::<Opened>(&connection, "session.attach", params) {
            Ok(opened) => {
                connection.identify(opened.connection, opened.epoch);
                self.count.fetch_add(1, Ordering::Relaxed);
                let connection = Arc::new(connection);
                let anchor = self.anchor();
                if self.link.is_some() && anchor.identity().1 < opened.epoch {
                    // The process of the anchor has ended, and the kernel has not closed all of its connections yet.
                    lock(&self.idle).push(connection);
                    return Err(anchor.end(Error::disconnected("the process has ended")));
                }
                Ok(connection)
            }
            Err(Error::Session { .. }) => Err(Error::disconnected(
                "the session has ended, probably because the broker was restarted",
            )),
            Err(error) => Err(error),
        }
    }

    /// Whether a connection is one to an earlier process than that of the anchor. It has ended, which a thread that only waits
    /// for another one's receive would not notice.
    fn is_outlived(&self, connection: &Connection) -> bool {
        self.link.is_some() && connection.identity().1 < self.anchor().identity().1
    }

    /// The error of a further connection.
    fn explain(&self, error: Error) -> Error {
        match (error, &self.carrier) {
            (Error::Connect { .. }, Carrier::Forward(forward)) => forward.lost(),
            (error, _) => error,
        }
    }

    /// Returns a connection.
    pub(super) fn release(&self, connection: Arc<Connection>) {
        if Arc::ptr_eq(&connection, &lock(&self.anchor)) {
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
        last.unwrap_or_else(|| self.anchor()).try_notify(method, params)
    }
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A connection to the process `epoch`, and its other end.
    fn connection(epoch: u64) -> (Connection, UnixStream) {
        let (own, other) = UnixStream::pair().unwrap();
        let made = Connection::over(own, Framing::Lsp);
        made.identify(1, epoch);
        (made, other)
    }

    #[test]
    fn connection_to_an_earlier_process_is_not_used() {
        let endpoint = Endpoint::Unix("/nonexistent".into());
        let link = Link {
            endpoint: endpoint.clone(),
            local: endpoint,
            is_relayed: false,
            token: OnceLock::from("token".to_owned()),
            reconnect: std::time::Duration::ZERO,
        };
        let (anchor, _anchor_end) = connection(2);
        let pool = Pool::new(anchor, None, Some(link), Carrier::None);
        let mut ends = Vec::new();
        for epoch in [2, 1] {
            pool.count.fetch_add(1, Ordering::Relaxed);
            let (idle, end) = connection(epoch);
            // The end of the earlier process is not noticed yet.
            ends.push(end);
            pool.release(Arc::new(idle));
        }
        let first = pool.acquire().unwrap();
        assert_eq!(first.identity().1, 2);
        assert!(!Arc::ptr_eq(&first, &pool.anchor()));
        assert_eq!(pool.count.load(Ordering::Relaxed), 1);
        assert!(Arc::ptr_eq(&pool.acquire().unwrap(), &pool.anchor()));
    }
}
