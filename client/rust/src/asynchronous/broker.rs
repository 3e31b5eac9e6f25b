//! A broker: connecting, running operations, the time limit of calls.

use std::fmt;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use sockbroker_proto::api::session::Opened;
use sockbroker_proto::handle::Handle;
use tokio::task::JoinSet;

use super::connection::Connection;
use super::dropped::DroppedCall;
use super::pending::PendingCall;
use super::persistent::{Persistent, open_params};
use crate::blocking::attach::Link;
use crate::call_timeout::CallTimeout;
use crate::config::Config;
use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::operation::{self, Operation};
use crate::request::{PayloadEncoding, Request};
use crate::wire::child::{self, ChildBroker};
use crate::wire::connect::{CONNECT_TIMEOUT, connect};
use crate::wire::framing::Framing;
use crate::wire::response::OwnedResponse;
use crate::wire::ssh;

/// How long the broker may take to answer a request to cancel a call.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);

/// A broker, and a session with it.
///
/// Clones share the session and the connection. The session ends, and the broker closes its sockets,
/// when the last clone and the last [`Socket`](super::Socket) are dropped.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

struct Inner {
    connection: Arc<Connection>,
    endpoint: Endpoint,
    payload_encoding: PayloadEncoding,
    call_timeout: CallTimeout,
    /// Reads and writes. Dropping it ends the connection.
    _task: JoinSet<()>,
    /// Must be dropped after the connection.
    carrier: Carrier,
}

/// A process that the connection needs.
#[derive(Debug)]
enum Carrier {
    None,
    /// The broker, or a program that leads to it.
    Child(#[expect(dead_code, reason = "its end ends the process")] ChildBroker),
    Forward(ssh::Forward),
    Program(ssh::Program),
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Broker({})", self.inner.endpoint)
    }
}

impl Broker {
    /// Connects to the broker that [`Endpoint::find`] finds. Like everything in this module it must be
    /// called in a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] with every socket that was tried and how to start a broker.
    pub async fn connect() -> Result<Self> {
        Self::connect_to(&Endpoint::find()?).await
    }

    /// Connects to a broker.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] if nothing serves the endpoint or ssh fails, [`Error::Timeout`] if the peer does not answer
    /// within ten seconds, [`Error::Protocol`] if the peer is not a broker. Logging in with ssh may take 45 seconds, and
    /// 150 at a terminal.
    pub async fn connect_to(endpoint: &Endpoint) -> Result<Self> {
        Self::connect_with(endpoint, Config::new()).await
    }

    /// Connects to a broker with options: with [`Config::persist`], sockets outlive the processes of the broker.
    ///
    /// # Errors
    ///
    /// Those of [`Broker::connect_to`]; [`Error::Denied`] if the policy does not grant `persist`,
    /// [`Error::Endpoint`] if the endpoint cannot be connected to again.
    pub async fn connect_with(endpoint: &Endpoint, config: Config) -> Result<Self> {
        if config.is_persistent() {
            Link::check(endpoint)?;
        }
        if let Endpoint::Stdio(words) = endpoint {
            return Self::start(child::command_of(words), endpoint.is_relayed()).await;
        }
        let owned = endpoint.clone();
        let connecting = tokio::task::spawn_blocking(move || Self::open(&owned));
        let (stream, carrier) = connecting.await.map_err(Error::disconnected)??;
        let local = match &carrier {
            Carrier::Forward(forward) => Endpoint::Unix(forward.socket()),
            Carrier::None | Carrier::Child(_) | Carrier::Program(_) => endpoint.clone(),
        };
        let is_relayed = endpoint.is_relayed();
        let link = config.is_persistent().then(|| Link {
            endpoint: endpoint.clone(),
            local,
            is_relayed,
            token: OnceLock::new(),
            reconnect: config.reconnect(),
        });
        if let (Some(_), Carrier::Program(_)) = (&link, &carrier) {
            return Err(Error::Endpoint {
                message: format!(
                    "`persist` requires that sshd forwards sockets, which {endpoint} does not"
                ),
            });
        }
        Self::over(stream, endpoint.clone(), carrier, is_relayed, link).await
    }

    /// Connects, and starts ssh if the endpoint needs it. Blocks.
    fn open(endpoint: &Endpoint) -> Result<(UnixStream, Carrier)> {
        let Endpoint::Ssh(target) = endpoint else {
            return Ok((connect(endpoint)?, Carrier::None));
        };
        Ok(match ssh::connect(target)? {
            ssh::Connected::Forward(forward) => {
                (connect(&Endpoint::Unix(forward.socket()))?, Carrier::Forward(forward))
            }
            ssh::Connected::Program(stream, program) => (stream, Carrier::Program(program)),
        })
    }

    /// Starts a private broker, as an editor starts a language server: `$SOCKBROKERD`, else `sockbrokerd`
    /// in the folder of this program, else `sockbrokerd` in `PATH`, with `--stdio`. It has the privileges
    /// of this process and ends with the session.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] if it cannot be started.
    pub async fn spawn() -> Result<Self> {
        Self::spawn_command(child::default_command()).await
    }

    /// Starts a private broker by a command that serves its standard input and output. This function sets
    /// both. See [`Broker::spawn`].
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] if it cannot be started.
    pub async fn spawn_command(command: Command) -> Result<Self> {
        Self::start(command, false).await
    }

    async fn start(command: Command, is_relayed: bool) -> Result<Self> {
        let endpoint = child::endpoint_of(&command);
        let (stream, child) = child::spawn(command)?;
        Self::over(stream, endpoint, Carrier::Child(child), is_relayed, None).await
    }

    async fn over(
        stream: UnixStream,
        endpoint: Endpoint,
        carrier: Carrier,
        is_relayed: bool,
        link: Option<Link>,
    ) -> Result<Self> {
        let persistent = link.map(Persistent::new);
        let connection = Connection::over(stream, Framing::of(&endpoint), is_relayed, persistent);
        let connection = Arc::new(connection.map_err(Error::disconnected)?);
        let mut task = JoinSet::new();
        let served = Arc::clone(&connection);
        task.spawn(async move { served.serve().await });
        let inner = Inner {
            connection,
            payload_encoding: PayloadEncoding::of(&endpoint),
            endpoint,
            call_timeout: CallTimeout::default(),
            _task: task,
            carrier,
        };
        let broker = Self { inner: Arc::new(inner) };
        let program = match &broker.inner.carrier {
            Carrier::Program(program) => Some(program),
            Carrier::None | Carrier::Child(_) | Carrier::Forward(_) => None,
        };
        let timeout = program.map_or(CONNECT_TIMEOUT, |_| ssh::Program::first_call_timeout());
        let calls = tokio::time::timeout(timeout, broker.first_calls(is_relayed)).await;
        let elapsed = |_| Err(Error::Timeout { call: "session.info".to_owned(), sent: None });
        match (calls.unwrap_or_else(elapsed), program) {
            (Ok(()), _) => Ok(broker),
            (Err(error), Some(program)) => Err(program.explain(error)),
            (Err(error), None) => Err(error),
        }
    }

    /// Refuses descriptors if they are lost on the way, and checks that the peer is a broker.
    async fn first_calls(&self, is_relayed: bool) -> Result<()> {
        if let Some(persistent) = self.inner.connection.persistent() {
            let open = operation::named("session.open", open_params(is_relayed));
            let Opened { token, connection, epoch, .. } = self.run(open).await?;
            persistent.opened(token, (connection, epoch));
            return Ok(());
        }
        if is_relayed {
            match self.call("session.open", json!({ "descriptors": false })).await {
                // Without the grant for sessions it takes effect too.
                Ok(_) | Err(Error::Denied { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.run(operation::session()).await.map(drop)
    }

    /// The endpoint of the broker.
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// Limits how long a call may take, from its start to its response. The default `None` sets no limit.
    /// It applies to all clones.
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
    /// # Errors
    ///
    /// The error of the call.
    pub async fn call(&self, method: &str, params: impl Serialize) -> Result<Value> {
        self.run(operation::named(method, params)).await
    }

    pub(super) fn payload_encoding(&self) -> PayloadEncoding {
        self.inner.payload_encoding
    }

    /// Runs an operation whose result is of no use if the future is dropped.
    pub(super) async fn run<O: Operation>(&self, operation: O) -> Result<O::Output> {
        self.run_or(operation, DroppedCall::Discard).await
    }

    /// Runs an operation. `on_drop` takes its response if the future is dropped.
    pub(super) async fn run_or<O: Operation>(
        &self,
        mut operation: O,
        on_drop: DroppedCall,
    ) -> Result<O::Output> {
        let pending = self.begin(operation.request(), on_drop)?;
        let Some(mut response) = self.wait(pending).await? else {
            let call = operation.request().method.to_owned();
            return Err(Error::Timeout { call, sent: None });
        };
        let result = response.read(&mut |response| operation.read(response));
        self.recycle(response);
        result
    }

    /// Sends a request.
    pub(super) fn begin<P: Serialize>(
        &self,
        request: &Request<'_, P>,
        on_drop: DroppedCall,
    ) -> Result<PendingCall> {
        let connection = &self.inner.connection;
        Ok(PendingCall::new(connection, connection.begin(request)?, on_drop))
    }

    /// Takes the buffer of a response for reuse.
    pub(super) fn recycle(&self, response: OwnedResponse) {
        self.inner.connection.recycle(response);
    }

    /// Waits for a response, at most for the time limit of calls. `None` if the broker does not even
    /// answer the request to cancel the call.
    async fn wait(&self, mut pending: PendingCall) -> Result<Option<OwnedResponse>> {
        let Some(limit) = self.call_timeout() else { return pending.await.map(Some) };
        if let Ok(response) = tokio::time::timeout(limit, &mut pending).await {
            return response.map(Some);
        }
        pending.cancel();
        match tokio::time::timeout(CANCEL_TIMEOUT, &mut pending).await {
            Ok(Ok(response)) => match response.error() {
                Some(Error::Cancelled { call, sent }) => Err(Error::Timeout { call, sent }),
                _ => Ok(Some(response)),
            },
            Ok(Err(error)) => Err(error),
            Err(_elapsed) => {
                pending.detach();
                Ok(None)
            }
        }
    }

    /// Closes a handle. The request follows all earlier requests.
    pub(super) fn close_without_waiting(&self, handle: Handle) {
        self.inner.connection.close(handle);
    }
}
