//! The way back to a session whose process has ended.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use sockbroker_proto::api::session::Opened;

use super::connection::Connection;
use super::first_call::new_connection;
use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::operation::{self, Operation as _};
use crate::recovery::Backoff;
use crate::wire::connect::CONNECT_TIMEOUT;
use crate::wire::response::Response;

/// How often a wait for the broker checks whether it is abandoned.
const SLICE: Duration = Duration::from_millis(200);

/// A session that outlives its process, and how to attach to it.
#[derive(Debug)]
pub(crate) struct Link {
    /// The endpoint of errors, and the one to connect to.
    pub(crate) endpoint: Endpoint,
    pub(crate) local: Endpoint,
    pub(crate) is_relayed: bool,
    pub(crate) token: OnceLock<String>,
    /// The limit `reconnect_seconds`.
    pub(crate) reconnect: Duration,
}

/// A connection of a session, and the number of the process that serves it.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) connection: Connection,
    pub(crate) number: u64,
    pub(crate) epoch: u64,
}

/// A new connection whose `session.attach` the broker has not answered yet.
///
/// It is kept rather than dropped: the next process answers it.
#[derive(Debug)]
pub(crate) struct Attaching {
    connection: Connection,
    id: u64,
}

/// How a wait for the broker ended.
enum Finished {
    Attached(Attached),
    Waiting(Attaching),
    Failed(Error),
}

impl Attaching {
    fn finish(self, until: Instant) -> Finished {
        let mut read = |response: &mut Response<'_>| response.value::<Opened>();
        match self.connection.finish(self.id, Some(until), &mut read) {
            None => Finished::Waiting(self),
            Some(Ok(Opened { connection: number, epoch, .. })) => {
                Finished::Attached(Attached { connection: self.connection, number, epoch })
            }
            Some(Err(error)) => Finished::Failed(error),
        }
    }
}

impl Link {
    /// Checks that connections to an endpoint can be opened again, and carry what a repeated call needs.
    pub(crate) fn check(endpoint: &Endpoint) -> Result<()> {
        match endpoint {
            Endpoint::Unix(_) | Endpoint::Tls(_) | Endpoint::Ssh(_) => Ok(()),
            Endpoint::Stdio(_) | Endpoint::WebSocket(_) | Endpoint::Http(_) => {
                Err(Error::Endpoint {
                    message: format!(
                        "sessions of {endpoint} end with its process: `persist` requires unix:PATH, ssh://HOST or \
                     tls://HOST"
                    ),
                })
            }
        }
    }

    /// Begins to attach a new connection to the session.
    pub(super) fn begin_attach(&self) -> Result<Attaching> {
        let connection = new_connection(&self.local)?;
        let token = self.token.get().map(String::as_str).unwrap_or_default();
        let params = (token, None::<bool>, self.is_relayed.then_some(false));
        let operation = operation::named::<Opened>("session.attach", params);
        let id = connection.next_id();
        connection.begin(id, operation.request(), Some(Instant::now() + CONNECT_TIMEOUT))?;
        Ok(Attaching { connection, id })
    }

    /// Attaches to the session as soon as a process of the broker serves it. A connection that has not been answered yet
    /// stays in `attaching` for the next attempt.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] at `deadline`, [`Error::Disconnected`] at `give_up`, [`Error::Cancelled`] if `is_abandoned`,
    /// [`Error::Session`] if there is no such session any more.
    pub(crate) fn attach_again(
        &self,
        attaching: &mut Option<Attaching>,
        deadline: Option<Instant>,
        give_up: Instant,
        is_abandoned: &dyn Fn() -> bool,
    ) -> Result<Attached> {
        let mut backoff = Backoff::default();
        let until = deadline.map_or(give_up, |deadline| deadline.min(give_up));
        loop {
            if is_abandoned() {
                return Err(Error::Cancelled { call: String::new(), sent: None });
            }
            let begun = attaching.take().map_or_else(|| self.begin_attach(), Ok);
            let slice = until.min(Instant::now() + SLICE);
            let error = match begun.map(|begun| begun.finish(slice)) {
                Ok(Finished::Attached(attached)) => return Ok(attached),
                Ok(Finished::Waiting(begun)) => {
                    *attaching = Some(begun);
                    Error::Timeout { call: "session.attach".to_owned(), sent: None }
                }
                Ok(Finished::Failed(error)) | Err(error) if is_passing(&error) => error,
                Ok(Finished::Failed(error)) | Err(error) => return Err(self.lost(error)),
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(match deadline {
                    Some(deadline) if deadline < give_up => {
                        Error::Timeout { call: String::new(), sent: None }
                    }
                    _ => self.unreachable(&error),
                });
            }
            if attaching.is_none() {
                thread::park_timeout(backoff.next().min(left));
            }
        }
    }

    fn lost(&self, error: Error) -> Error {
        match error {
            Error::Session { call, message } => Error::Session {
                call,
                message: format!(
                    "the session did not outlive the broker at {}: {message}; its service manager may keep no \
                     sockets, or the session waited longer than `reattach_seconds`; connect again",
                    self.endpoint
                ),
            },
            other => other,
        }
    }

    fn unreachable(&self, error: &Error) -> Error {
        Error::disconnected(format!(
            "the broker at {} is not reachable for {} seconds (reconnect_seconds): {error}; check the service \
             (`systemctl status sockbrokerd`), or wait longer with a larger reconnect_seconds",
            self.endpoint,
            self.reconnect.as_secs()
        ))
    }
}

/// Whether another attempt to connect can have another result.
fn is_passing(error: &Error) -> bool {
    ends_connection(error) || matches!(error, Error::Limit { .. })
}

/// Whether an error means that the connection has ended or could not be opened.
pub(crate) fn ends_connection(error: &Error) -> bool {
    matches!(error, Error::Connect { .. } | Error::Disconnected { .. } | Error::Timeout { .. })
}
