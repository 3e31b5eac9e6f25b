//! A broker, and everything that is asked of it rather than of one of its sockets.

use std::fmt;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use sockbroker_proto::handle::Handle;
use tokio::task::JoinSet;

use super::Socket;
use super::connection::Connection;
use super::pending::{Heir, PendingCall};
use crate::address::Address;
use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::face::broker_methods;
use crate::message::{AddressHints, AddressInfo, Host};
use crate::operation::{self, NewSocket};
use crate::request::{Attachments, Call, PayloadEncoding};
use crate::wire::child::{self, ChildBroker};
use crate::wire::connect::{LONGEST_WAIT, connect};
use crate::wire::framing::Framing;
use crate::wire::response::{OwnedResponse, Response};

/// How long the broker may take to answer once it was asked to cancel a call.
const GRACE: Duration = Duration::from_secs(1);
/// No time limit for calls.
const UNLIMITED: u64 = u64::MAX;

/// A broker and a session of its own with it. Clones are the same session over the same connection.
/// The session, and with it every socket that is left, ends with the last clone and the last
/// [`Socket`].
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

struct Inner {
    link: Arc<Connection>,
    endpoint: Endpoint,
    payload_encoding: PayloadEncoding,
    /// Nanoseconds, or [`UNLIMITED`].
    call_timeout: AtomicU64,
    /// Reads and writes; ends with this value.
    _task: JoinSet<()>,
    /// Dropped last.
    _launched: Option<ChildBroker>,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Broker({})", self.inner.endpoint)
    }
}

broker_methods!(asynchronous Broker);

impl Broker {
    /// Connects to the broker that [`Endpoint::find`] finds. It needs a tokio runtime, as everything
    /// here does.
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
    /// [`Error::Connect`] if nobody serves the endpoint, [`Error::Timeout`] if somebody does but
    /// does not answer within ten seconds, [`Error::Protocol`] if that is no broker.
    pub async fn connect_to(endpoint: &Endpoint) -> Result<Self> {
        if let Endpoint::Stdio(words) = endpoint {
            let mut words = words.iter();
            let mut command = Command::new(words.next().cloned().unwrap_or_default());
            command.args(words);
            return Self::spawn_command(command).await;
        }
        let owned = endpoint.clone();
        let connecting = tokio::task::spawn_blocking(move || connect(&owned));
        let stream = connecting.await.map_err(Error::disconnected)??;
        Self::over(stream, endpoint.clone(), None).await
    }

    /// Starts a broker of one's own, as an editor starts a language server: `$SOCKBROKERD`, else
    /// `sockbrokerd` beside this program, else the one that `PATH` has, with `--stdio`. It has this
    /// process' privileges and ends with the session.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] if it cannot be started.
    pub async fn spawn() -> Result<Self> {
        Self::spawn_command(child::usual_command()).await
    }

    /// Starts a broker of one's own by a command that serves its standard input and output; they
    /// are set by this function.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] if it cannot be started.
    pub async fn spawn_command(command: Command) -> Result<Self> {
        let words = [command.get_program()].into_iter().chain(command.get_args());
        let endpoint = Endpoint::Stdio(words.map(Into::into).collect());
        let (stream, child) = child::spawn(command)?;
        Self::over(stream, endpoint, Some(child)).await
    }

    async fn over(
        stream: UnixStream,
        endpoint: Endpoint,
        child: Option<ChildBroker>,
    ) -> Result<Self> {
        let link = Arc::new(
            Connection::over(stream, Framing::of(&endpoint)).map_err(Error::disconnected)?,
        );
        let mut task = JoinSet::new();
        let served = Arc::clone(&link);
        task.spawn(async move { served.serve().await });
        let inner = Inner {
            link,
            payload_encoding: PayloadEncoding::of(&endpoint),
            endpoint,
            call_timeout: AtomicU64::new(UNLIMITED),
            _task: task,
            _launched: child,
        };
        let broker = Self { inner: Arc::new(inner) };
        match tokio::time::timeout(LONGEST_WAIT, broker.session()).await {
            Ok(session) => session.map(|_session| broker),
            Err(_late) => Err(Error::Timeout { call: "session.info".to_owned(), sent: None }),
        }
    }

    /// Where the broker is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// Limits the time that any call may take, from its start to its answer; `None`, the default,
    /// waits for ever. It holds for all clones.
    ///
    /// When it has run out the call is cancelled; what the broker answers to that within a second
    /// still counts, so that no data is lost. Then the call fails with [`Error::Timeout`].
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
    /// # Errors
    ///
    /// Whatever the call fails with.
    pub async fn call(&self, method: &str, params: impl Serialize) -> Result<Value> {
        let call = Call::new(method, params, |response: &mut Response<'_>| response.value());
        self.run(call.with_attachments(Attachments::Refused)).await
    }

    fn broker(&self) -> &Self {
        self
    }

    pub(crate) fn payload_encoding(&self) -> PayloadEncoding {
        self.inner.payload_encoding
    }

    pub(crate) async fn make<P, F>(&self, call: Call<'_, P, F>) -> Result<Socket>
    where
        P: Serialize,
        F: FnMut(&mut Response<'_>) -> Result<NewSocket>,
    {
        Ok(Socket::from_new(self, self.run_for(call, Heir::Closing).await?))
    }

    /// Carries out a call whose answer is of no use to anybody else.
    pub(crate) async fn run<P, F, T>(&self, call: Call<'_, P, F>) -> Result<T>
    where
        P: Serialize,
        F: FnMut(&mut Response<'_>) -> Result<T>,
    {
        self.run_for(call, Heir::Nobody).await
    }

    /// Carries out a call; its answer goes to an heir if the future is dropped.
    pub(crate) async fn run_for<P, F, T>(&self, mut call: Call<'_, P, F>, heir: Heir) -> Result<T>
    where
        P: Serialize,
        F: FnMut(&mut Response<'_>) -> Result<T>,
    {
        let pending = self.begin(&call, heir)?;
        let mut answer = self.limited(pending, call.method).await?;
        let result = answer.read(&mut call.read);
        self.recycle(answer);
        result
    }

    /// Sends a call.
    pub(crate) fn begin<P: Serialize, F>(
        &self,
        call: &Call<'_, P, F>,
        heir: Heir,
    ) -> Result<PendingCall> {
        let link = &self.inner.link;
        Ok(PendingCall::new(link, link.begin(call)?, heir))
    }

    /// Takes a buffer back, to be used again.
    pub(crate) fn recycle(&self, answer: OwnedResponse) {
        self.inner.link.recycle(answer);
    }

    async fn limited(&self, mut pending: PendingCall, method: &str) -> Result<OwnedResponse> {
        let Some(limit) = self.call_timeout() else { return pending.await };
        if let Ok(answer) = tokio::time::timeout(limit, &mut pending).await {
            return answer;
        }
        pending.cancel();
        match tokio::time::timeout(GRACE, &mut pending).await {
            Ok(Ok(answer)) => match answer.error() {
                Some(Error::Cancelled { call, sent }) => Err(Error::Timeout { call, sent }),
                _ => Ok(answer),
            },
            Ok(Err(error)) => Err(error),
            Err(_silent) => {
                pending.let_go();
                Err(Error::Timeout { call: method.to_owned(), sent: None })
            }
        }
    }

    /// Closes a handle; the request stands behind all that was asked before.
    pub(crate) fn close_without_waiting(&self, handle: Handle) {
        self.inner.link.notify("socket.close", &(handle,));
    }
}
