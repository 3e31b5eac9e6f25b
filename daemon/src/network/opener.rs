//! Calls that need a capability: this process makes them itself, or the opener makes them for the client of a
//! connection.
//!
//! A prompt request is sent and answered within one poll of a call, so that cancelling the call cannot separate its effect
//! from its result. The opener answers within microseconds. A slow request, such as a change of a network interface, for
//! which the kernel can take seconds, has another channel, and a thread waits for its answer. Cancelling the call then
//! leaves the request in progress, as the kernel does.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use sockbroker_monitor::channel::{AskError, ChannelError};
use sockbroker_monitor::opener::Namespaces;
use sockbroker_monitor::request::{
    Answer, OpenerChannel, OpenerRequest, Request, SelectedNamespace,
};
use sockbroker_policy::namespace::Namespace;
use sockbroker_policy::netns::Netns;
use sockbroker_sys::namespace;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;

use crate::descriptor::Descriptor;
use crate::table::permitted::Socket;

/// How long the opener may take to answer. Afterwards the channel is dropped, and the worker ends. On a machine with far
/// more to do than it can, an answer takes seconds.
const PROMPT: Duration = Duration::from_secs(20);
/// The same for slow requests.
const SLOW: Duration = Duration::from_mins(10);

/// The channels to the opener.
#[derive(Debug, Clone)]
pub struct Opener(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    prompt: Requests,
    slow: Requests,
    /// Held by the slow request in progress, so that others wait without a thread.
    slow_turn: Arc<tokio::sync::Mutex<()>>,
    broken: Notify,
}

/// A channel for requests; `None` after it failed.
#[derive(Debug)]
struct Requests(Mutex<Option<OpenerChannel>>);

impl Requests {
    fn over(socket: OwnedFd, longest: Duration) -> io::Result<Self> {
        Ok(Self(Mutex::new(Some(OpenerChannel::over(socket, longest)?))))
    }
}

impl Opener {
    /// The channels whose ends these are: for prompt requests, and for slow ones.
    pub fn over([prompt, slow]: [OwnedFd; 2]) -> io::Result<Self> {
        Ok(Self(Arc::new(Inner {
            prompt: Requests::over(prompt, PROMPT)?,
            slow: Requests::over(slow, SLOW)?,
            slow_turn: Arc::default(),
            broken: Notify::new(),
        })))
    }

    /// Waits until a channel fails.
    pub async fn broken(&self) {
        self.0.broken.notified().await;
    }

    fn ask(
        &self,
        requests: &Requests,
        opener_request: &OpenerRequest,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<(Answer, Option<OwnedFd>)> {
        let mut guard = requests.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answered = match &*guard {
            Some(asker) => answer(asker, opener_request, descriptors),
            None => Err(AskError::NotSent(ChannelError::Closed)),
        };
        match answered {
            Ok(answered) => Ok(answered),
            Err(error) => {
                *guard = None;
                self.0.broken.notify_one();
                tracing::error!(%error, call = opener_request.request.call(), "the opener does not answer");
                Err(io::Error::other(format!("the opener does not answer: {error}")))
            }
        }
    }
}

/// Asks, and returns the answer with the socket that comes before it.
fn answer(
    asker: &OpenerChannel,
    opener_request: &OpenerRequest,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(Answer, Option<OwnedFd>), AskError<Answer>> {
    let made = match asker.ask(opener_request, descriptors) {
        Ok((Answer::Made, made)) => made.into_iter().next(),
        // The socket is lost, because this process cannot open more files.
        Err(AskError::NotAnswered(ChannelError::LostDescriptors { .. })) => None,
        result => return result.map(|(answer, _)| (answer, None)),
    };
    let (answer, _) = asker.answer()?;
    match made {
        Some(made) => Ok((answer, Some(made))),
        None => Ok((Answer::Failed(libc::EMFILE), None)),
    }
}

/// How the calls of a connection reach what needs a capability. It does not keep the connection open.
#[derive(Debug, Clone, Default)]
pub struct Privileged {
    opener: Option<Opener>,
    /// The socket of the connection; `None` on standard input.
    connection: Option<Weak<Descriptor>>,
    namespaces: Option<Arc<Namespaces>>,
}

/// What an answer of the opener means for the call; `None` if this process is to make it.
fn done(answered: io::Result<(Answer, Option<OwnedFd>)>) -> Option<io::Result<Done>> {
    let (answer, made) = match answered {
        Ok(answered) => answered,
        Err(error) => return Some(Err(error)),
    };
    match answer {
        Answer::Done => Some(Ok(Done::Nothing)),
        Answer::Socket => Some(made.map(Done::Socket).ok_or(io::ErrorKind::InvalidData.into())),
        Answer::Made => Some(Err(io::ErrorKind::InvalidData.into())),
        Answer::Sent(sent) => Some(usize::try_from(sent).map(Done::Sent).map_err(io::Error::other)),
        Answer::Failed(errno) => Some(Err(io::Error::from_raw_os_error(errno))),
        Answer::Refused(_)
        | Answer::NotServed
        | Answer::Unreachable(_)
        | Answer::HungUp
        | Answer::Limit(_)
        | Answer::Interfaces(_) => None,
    }
}

/// The namespace as a request to the opener names it.
pub fn as_selected(namespace: &Namespace) -> SelectedNamespace {
    match namespace.netns() {
        None => SelectedNamespace::Broker,
        Some(Netns::Caller) => SelectedNamespace::Caller,
        Some(Netns::Owned) => SelectedNamespace::Passed,
        Some(Netns::Named(name)) => SelectedNamespace::Named(name.as_ref().to_owned()),
    }
}

/// A request about a socket, or in the broker's own network namespace.
fn about(request: Request, socket: Option<&Socket>) -> OpenerRequest {
    let network = socket.map(|socket| as_selected(socket.namespace())).unwrap_or_default();
    OpenerRequest { network, request }
}

/// What the opener has done.
#[derive(Debug)]
pub(crate) enum Done {
    Nothing,
    Socket(OwnedFd),
    Sent(usize),
}

impl Privileged {
    /// For the client of a connection, through the opener if there is one.
    pub fn new(
        opener: Option<Opener>,
        connection: Option<Weak<Descriptor>>,
        namespaces: Arc<Namespaces>,
    ) -> Self {
        // The opener needs a connection.
        let opener = opener.filter(|_| connection.is_some());
        Self { opener, connection, namespaces: Some(namespaces) }
    }

    /// Whether this process makes the calls itself.
    pub(crate) fn is_direct(&self) -> bool {
        self.opener.is_none()
    }

    /// The connection, unless it has ended.
    pub(crate) fn connection(&self) -> Option<Arc<Descriptor>> {
        self.connection.as_ref()?.upgrade()
    }

    pub(crate) fn namespaces(&self) -> Option<Arc<Namespaces>> {
        self.namespaces.clone()
    }

    /// The cookie of the broker's own network namespace.
    pub(crate) fn own_network(&self) -> Option<u64> {
        self.namespaces.as_ref()?.home_cookie()
    }

    /// The cookie of the client's network namespace.
    pub(crate) fn clients_network(&self) -> Option<u64> {
        namespace::cookie(self.connection()?.as_fd()).ok()
    }

    /// Asks the opener for what needs no socket, and returns its answer. `passed` is the network namespace that the client
    /// passed.
    pub(crate) fn ask_without_socket(
        &self,
        opener_request: &OpenerRequest,
        passed: Option<BorrowedFd<'_>>,
    ) -> Option<io::Result<(Answer, Option<OwnedFd>)>> {
        let (opener, connection) = (self.opener.as_ref()?, self.connection()?);
        let descriptors: Vec<_> = [connection.as_fd()].into_iter().chain(passed).collect();
        Some(opener.ask(&opener.0.prompt, opener_request, &descriptors))
    }

    /// Asks the opener. `socket` is the socket of the request. `None` if the opener leaves the call to this process,
    /// or its policy refuses it.
    pub(crate) fn ask(
        &self,
        request: Request,
        socket: Option<&Socket>,
    ) -> Option<io::Result<Done>> {
        let opener = self.opener.as_ref()?;
        // Nobody waits for the result of a call on a connection that has ended.
        let connection = self.connection()?;
        let opener_request = about(request, socket);
        let socket = socket.map(Socket::fd);
        let descriptors: Vec<_> = [connection.as_fd()].into_iter().chain(socket).collect();
        done(opener.ask(&opener.0.prompt, &opener_request, &descriptors))
    }

    /// The same for a request that can take long. It is made even if the future is dropped.
    pub(crate) async fn ask_slow(
        &self,
        request: Request,
        socket: Socket,
    ) -> Option<io::Result<Done>> {
        let (opener, connection) = (self.opener.clone()?, self.connection.clone()?);
        let turn = opener.0.slow_turn.clone().lock_owned().await;
        let asked = spawn_blocking(move || {
            let _turn = turn;
            let connection = connection.upgrade()?;
            let descriptors = [connection.as_fd(), socket.fd()];
            done(opener.ask(&opener.0.slow, &about(request, Some(&socket)), &descriptors))
        });
        asked.await.unwrap_or_else(|error| Some(Err(io::Error::other(error))))
    }

    /// The same for a request without a socket. `passed` is the network namespace that the client passed. `None` if the
    /// connection has ended, or there is no opener.
    pub(crate) async fn ask_slow_without_socket(
        &self,
        opener_request: OpenerRequest,
        passed: Option<Arc<Descriptor>>,
    ) -> Option<io::Result<Answer>> {
        let (opener, connection) = (self.opener.clone()?, self.connection.clone()?);
        let turn = opener.0.slow_turn.clone().lock_owned().await;
        let asked = spawn_blocking(move || {
            let _turn = turn;
            let connection = connection.upgrade()?;
            let passed = passed.as_deref().map(|passed| passed.as_fd());
            let descriptors: Vec<_> = [connection.as_fd()].into_iter().chain(passed).collect();
            let asked = opener.ask(&opener.0.slow, &opener_request, &descriptors);
            Some(asked.map(|(answer, _)| answer))
        });
        asked.await.unwrap_or_else(|error| Some(Err(io::Error::other(error))))
    }

    /// Makes a call, and if the kernel refuses it with one of these error numbers, asks the opener to make it.
    pub(crate) fn or_ask_opener(
        &self,
        call: impl FnOnce() -> io::Result<()>,
        refusals: &[i32],
        socket: &Socket,
        request: impl FnOnce() -> Request,
    ) -> io::Result<()> {
        let refused = match call() {
            Err(error) if error.raw_os_error().is_some_and(|errno| refusals.contains(&errno)) => {
                error
            }
            result => return result,
        };
        if self.is_direct() {
            return Err(refused);
        }
        match self.ask(request(), Some(socket)) {
            Some(result) => result.map(drop),
            None => Err(refused),
        }
    }
}
