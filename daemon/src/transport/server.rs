//! The server: accepts connections, detects their framing, and serves standard input.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use sockbroker_sys::process::effective_uid;
use sockbroker_sys::socket;
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::codec::Codec;
use super::context::SharedContext;
use super::shutdown::ShutdownSignal;
use super::stream::Stream;
use super::{connection, http, peer};
use crate::descriptor::Descriptor;
use crate::observe::refusals::Reason;
use crate::ops::unix_file::ControlFile;
use crate::principal::{Principal, PrincipalKey};
use crate::rpc::core::Core;
use crate::rpc::methods::MethodTable;
use crate::session::broker::Broker;
use crate::session::connection::{Connection, Facts, Framing};
use crate::session::monitor_link::PassedConnection;
use crate::session::sweep_schedule;

/// How long the server does not accept when the process is out of descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

const UNKNOWN_PEER: &str = "closed a connection: cannot read the peer's credentials";

/// Where connections come from.
#[derive(Debug)]
pub enum Source {
    /// This process accepts them.
    Listener(UnixListener),
    /// The monitor accepts them, counts them, and passes those of one principal.
    Monitor(mpsc::UnboundedReceiver<(OwnedFd, PassedConnection)>),
}

/// A connection from a [`Source`].
#[derive(Debug)]
enum Incoming {
    Accepted(UnixStream),
    Passed(OwnedFd, PassedConnection),
}

impl Source {
    /// Waits for a connection; `None` if none will come.
    async fn next(&mut self) -> io::Result<Option<Incoming>> {
        match self {
            Self::Listener(listener) => {
                let (io, _) = listener.accept().await?;
                Ok(Some(Incoming::Accepted(io)))
            }
            Self::Monitor(passed) => {
                let Some((connection, passed)) = passed.recv().await else { return Ok(None) };
                Ok(Some(Incoming::Passed(connection, passed)))
            }
        }
    }
}

/// The server: accepts connections and serves them.
#[derive(Debug, Clone)]
pub struct Server {
    shared: SharedContext,
    counts: Arc<ConnectionCounts>,
}

impl Server {
    pub fn new(broker: Arc<Broker>, methods: MethodTable, shutdown: ShutdownSignal) -> Self {
        let shared = SharedContext { broker, methods, shutdown };
        Self { shared, counts: Arc::default() }
    }

    /// Serves the connections of a source until the shutdown, and then until they end.
    pub async fn listen(self, mut source: Source) {
        if let Source::Listener(listener) = &source {
            self.note_control_socket(listener.as_fd());
        }
        let mut connections = JoinSet::new();
        let mut shutdown = self.shared.shutdown.clone();
        let broker = &self.shared.broker;
        let mut next_sweep = broker.sweep();
        loop {
            tokio::select! {
                incoming = source.next() => match incoming {
                    Ok(Some(Incoming::Accepted(io))) => self.admit(io, &mut connections),
                    Ok(Some(Incoming::Passed(io, passed))) => {
                        self.serve_passed(io, passed, &mut connections);
                    }
                    Ok(None) => break,
                    Err(error) => pause(&error, &self.shared.broker).await,
                },
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a connection's task failed");
                    }
                }
                () = sweep_schedule::due(next_sweep) => next_sweep = broker.sweep(),
                () = broker.sweeps.requested() => next_sweep = sweep_schedule::soon(next_sweep),
                () = shutdown.begun() => break,
            }
        }
        // Connections that wait in it can contain descriptors of clients.
        if let Source::Listener(listener) = source
            && let Ok(listener) = listener.into_std()
        {
            let own = self.shared.broker.users.user(&PrincipalKey::of_uid(effective_uid()));
            drop(Descriptor::of_client(listener.into(), &own));
        }
        while connections.join_next().await.is_some() {}
        self.shared.broker.refusals.finish();
        self.shared.broker.close_all().await;
    }

    /// Notes the file and the address of the control socket. Accepted connections have those of the socket that
    /// listens.
    fn note_control_socket(&self, socket: BorrowedFd<'_>) {
        match ControlFile::of(socket) {
            Ok(Some(file)) => drop(self.shared.broker.control.set(file)),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "cannot examine the file of the control socket"),
        }
        if let Err(error) = self.shared.broker.control_ends.note(socket) {
            tracing::warn!(%error, "cannot read the address of the control socket");
        }
    }

    /// Serves a connection that the monitor passed.
    fn serve_passed(&self, io: OwnedFd, passed: PassedConnection, connections: &mut JoinSet<()>) {
        if self.shared.broker.control.get().is_none() {
            self.note_control_socket(io.as_fd());
        }
        let mut server = self.clone();
        if let Some(end) = passed.end() {
            server.shared.shutdown = server.shared.shutdown.with_own(end);
        }
        connections.spawn(async move {
            let principal =
                socket::set_nonblocking(io.as_fd(), true).and_then(|()| match passed.remote() {
                    Some(subject) => Ok(Principal::from(subject.clone())),
                    None => peer::of(io.as_fd()),
                });
            match principal {
                Ok(principal) => {
                    let user = server.shared.broker.users.user(&principal.key());
                    server.serve(Descriptor::of_client(io, &user), principal).await;
                }
                Err(error) => server.refuse_unknown(&error, None),
            }
            drop(passed);
        });
    }

    /// Serves standard input and output, with LSP framing or newline-delimited JSON, until they end.
    pub async fn standard(self) -> io::Result<()> {
        let principal = peer::own()?;
        let stream = Stream::standard(&self.shared.broker.users.user(&principal.key()))?;
        if let Stream::Socket(end) = &stream {
            self.shared.broker.control_ends.note(end.as_fd())?;
        }
        let mut input = BytesMut::new();
        let mut shutdown = self.shared.shutdown.clone();
        let first = tokio::select! {
            first = stream.first_byte(&mut input) => first?,
            () = shutdown.begun() => None,
        };
        let Some(first) = first else { return Ok(()) };
        let Some((framing, codec)) = self.message_framing(first) else {
            let text = format!(
                "standard input begins with byte {first:#04x}: send LSP framing \
                 (Content-Length: ...) or one JSON message a line"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        };
        let descriptors = matches!(stream, Stream::Socket(_));
        let facts = Facts { principal, framing, descriptors, stream: None };
        let core = Core::new(
            Arc::new(Connection::begin(&self.shared.broker, facts)),
            self.shared.methods.clone(),
        );
        connection::serve(self.shared.shutdown.clone(), stream, codec, core, input).await;
        self.shared.broker.close_all().await;
        Ok(())
    }

    /// The framing that the first byte selects; `None` for HTTP and for anything unknown.
    fn message_framing(&self, first: u8) -> Option<(Framing, Codec)> {
        let frame = self.shared.broker.limits.frame();
        match first {
            b'C' | b'c' => Some((Framing::Lsp, Codec::lsp(frame))),
            b'{' | b'[' | b' ' | b'\t' | b'\r' | b'\n' => {
                Some((Framing::Ndjson, Codec::ndjson(frame)))
            }
            _ => None,
        }
    }

    /// Serves a new connection, unless a limit is reached.
    fn admit(&self, io: UnixStream, connections: &mut JoinSet<()>) {
        let credentials = io.peer_cred();
        // The overflow id, if the kernel does not report the user.
        let uid = credentials.as_ref().map_or(65534, UCred::uid);
        let key = PrincipalKey::of_uid(uid);
        let io = match io.into_std() {
            Ok(io) => Descriptor::of_client(io.into(), &self.shared.broker.users.user(&key)),
            Err(error) => return self.refuse_unknown(&error, Some(uid)),
        };
        if let Err(error) = credentials {
            return self.refuse_unknown(&error, None);
        }
        let limits = &self.shared.broker.limits;
        let in_all =
            self.shared.broker.limit_in_all(uid, limits.connections, limits.connections_reserved);
        let most = (in_all, limits.connections_per_user);
        match ConnectionCounts::take(&self.counts, &key, most) {
            Ok(place) => {
                let server = self.clone();
                connections.spawn(async move {
                    // In the connection's own task, because it reads files.
                    match peer::of(io.as_fd()) {
                        Ok(principal) => server.serve(io, principal).await,
                        Err(error) => server.refuse_unknown(&error, Some(uid)),
                    }
                    drop(place);
                });
            }
            Err(limit) => {
                self.shared.broker.metrics.limit_exceeded(limit);
                self.shared.broker.refuse(Reason::Limit(limit), Some(key), || {
                    tracing::warn!(uid, limit, "closed a connection: too many connections");
                });
            }
        }
    }

    fn refuse_unknown(&self, error: &io::Error, uid: Option<u32>) {
        let key = uid.map(PrincipalKey::of_uid);
        self.shared.broker.refuse(Reason::UnknownPeer, key, || {
            tracing::warn!(%error, uid, "{UNKNOWN_PEER}");
        });
    }

    fn refuse_failed(&self, error: &io::Error, principal: &Principal) {
        let uid = principal.subject().uid;
        self.shared.broker.refuse(Reason::NotServed, Some(principal.key()), || {
            tracing::warn!(%error, uid, "cannot serve a connection");
        });
    }

    /// Detects the framing of a connection, and serves it.
    pub async fn serve(self, io: Descriptor, principal: Principal) {
        let stream = match Stream::socket(io) {
            Ok(stream) => stream,
            Err(error) => return self.refuse_failed(&error, &principal),
        };
        let longest = Duration::from_secs(self.shared.broker.limits.detect_seconds);
        let mut shutdown = self.shared.shutdown.clone();
        let mut input = BytesMut::new();
        let first = tokio::select! {
            first = timeout(longest, stream.first_byte(&mut input)) => first,
            () = shutdown.begun() => return,
        };
        let first = match first {
            Ok(Ok(Some(first))) => first,
            Ok(Ok(None)) => return,
            Ok(Err(error)) => {
                return tracing::debug!(%error, "a connection failed before its first byte");
            }
            Err(_) => {
                let subject = principal.subject();
                let (uid, unit) = (subject.uid, subject.unit.as_deref());
                return tracing::debug!(
                    uid,
                    unit,
                    "closed a connection without a first byte: detect_seconds"
                );
            }
        };
        let (framing, codec) = match self.message_framing(first) {
            Some(found) => found,
            None if first.is_ascii_uppercase() => {
                let Stream::Socket(socket) = stream else { return };
                match socket.into_io() {
                    Ok(io) => http::serve(self.shared, io, principal).await,
                    Err(error) => self.refuse_failed(&error, &principal),
                }
                return;
            }
            None => return tracing::debug!(first, "closed a connection with an unknown framing"),
        };
        // The gateway passes bytes alone.
        let descriptors = !principal.is_remote();
        let facts = Facts { principal, framing, descriptors, stream: stream.connection() };
        let connection = Arc::new(Connection::begin(&self.shared.broker, facts));
        let (number, subject) = (connection.number(), connection.subject());
        let (uid, unit) = (subject.uid, subject.unit.as_deref());
        tracing::debug!(connection = number, uid, pid = subject.pid, unit, "connection began");
        let core = Core::new(connection.clone(), self.shared.methods.clone());
        connection::serve(self.shared.shutdown.clone(), stream, codec, core, input).await;
    }
}

/// Handles an error of `accept`. A connection that its peer closed already is ignored. Without descriptors
/// or memory the server pauses, because the next try would fail at once.
async fn pause(error: &io::Error, broker: &Broker) {
    if let Some(libc::ECONNABORTED | libc::EINTR) = error.raw_os_error() {
    } else {
        broker.refuse(Reason::NotAccepted, None, || {
            tracing::warn!(%error, "cannot accept connections: pausing");
        });
        sleep(EXHAUSTED_PAUSE).await;
    }
}

/// The number of open connections of each principal.
#[derive(Debug, Default)]
struct ConnectionCounts(Mutex<HashMap<PrincipalKey, u64>>);

/// Counts one connection until it is dropped.
#[derive(Debug)]
struct CountedConnection {
    counts: Arc<ConnectionCounts>,
    principal: PrincipalKey,
}

impl ConnectionCounts {
    /// Counts a connection, or returns the name of the limit that is reached.
    fn take(
        counts: &Arc<Self>,
        principal: &PrincipalKey,
        most: (u64, u64),
    ) -> Result<CountedConnection, &'static str> {
        let mut taken = counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<u64>() >= most.0 {
            return Err("connections");
        }
        let own = taken.entry(principal.clone()).or_default();
        if *own >= most.1 {
            return Err("connections_per_user");
        }
        *own += 1;
        Ok(CountedConnection { counts: counts.clone(), principal: principal.clone() })
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        let mut taken = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.principal) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.principal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(uid: u32) -> PrincipalKey {
        PrincipalKey::of_uid(uid)
    }

    #[test]
    fn connections_are_counted_in_all_and_by_user() {
        let counts = Arc::<ConnectionCounts>::default();
        let first = ConnectionCounts::take(&counts, &key(1), (3, 2)).unwrap();
        let _second = ConnectionCounts::take(&counts, &key(1), (3, 2)).unwrap();
        assert_eq!(
            ConnectionCounts::take(&counts, &key(1), (3, 2)).unwrap_err(),
            "connections_per_user"
        );
        let _third = ConnectionCounts::take(&counts, &key(2), (3, 2)).unwrap();
        assert_eq!(ConnectionCounts::take(&counts, &key(3), (3, 2)).unwrap_err(), "connections");
        drop(first);
        assert!(ConnectionCounts::take(&counts, &key(3), (3, 2)).is_ok());
    }
}
