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
use sockbroker_monitor::request::{Answer, CaptureLimit, OpenerChannel, Request};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;

use crate::descriptor::Descriptor;
use crate::table::permitted::Socket;

/// How long the opener may take to answer. Then its channel is of no use, and the worker ends.
const PROMPT: Duration = Duration::from_secs(5);
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

/// A channel for requests; `None` once it is of no use.
#[derive(Debug)]
struct Requests {
    channel: Mutex<Option<OpenerChannel>>,
    longest: Duration,
}

impl Requests {
    fn over(socket: OwnedFd, longest: Duration) -> io::Result<Self> {
        Ok(Self { channel: Mutex::new(Some(OpenerChannel::over(socket)?)), longest })
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

    /// Waits until a channel is of no use.
    pub async fn broken(&self) {
        self.0.broken.notified().await;
    }

    fn ask(
        &self,
        requests: &Requests,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<(Answer, Option<OwnedFd>)> {
        let mut guard = requests.channel.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = match &mut *guard {
            Some(asker) => asker.ask(request, descriptors, requests.longest),
            None => Err(AskError::NotSent(ChannelError::Closed)),
        };
        match asked {
            Ok((answer, descriptors)) => Ok((answer, descriptors.into_iter().next())),
            // The socket of the answer is lost, and the answer is complete.
            Err(AskError::NotAnswered(ChannelError::LostDescriptors { .. })) => {
                Ok((Answer::Failed(libc::EMFILE), None))
            }
            Err(error) => {
                *guard = None;
                self.0.broken.notify_one();
                tracing::error!(%error, call = request.call(), "the opener does not answer");
                Err(io::Error::other(format!("the opener does not answer: {error}")))
            }
        }
    }
}

/// How the calls of a connection reach what needs a capability. It does not keep the connection open.
#[derive(Debug, Clone, Default)]
pub struct Privileged(Option<(Opener, Weak<Descriptor>)>);

/// What an answer of the opener means for the call; `None` if this process is to make it.
fn done(answered: io::Result<(Answer, Option<OwnedFd>)>) -> Option<io::Result<Done>> {
    let (answer, made) = match answered {
        Ok(answered) => answered,
        Err(error) => return Some(Err(error)),
    };
    match answer {
        Answer::Done => Some(Ok(Done::Nothing)),
        Answer::Socket => Some(made.map(Done::Socket).ok_or(io::ErrorKind::InvalidData.into())),
        Answer::Sent(sent) => Some(usize::try_from(sent).map(Done::Sent).map_err(io::Error::other)),
        Answer::Limit(limit) => Some(Ok(Done::Limit(limit))),
        Answer::Failed(errno) => Some(Err(io::Error::from_raw_os_error(errno))),
        Answer::Refused(_) | Answer::NotServed | Answer::HungUp => None,
    }
}

/// What the opener has done.
#[derive(Debug)]
pub(crate) enum Done {
    Nothing,
    Socket(OwnedFd),
    Sent(usize),
    /// Nothing: it would exceed this limit.
    Limit(CaptureLimit),
}

impl Privileged {
    /// Through this opener, for the client of this connection.
    pub fn through(opener: Opener, connection: Weak<Descriptor>) -> Self {
        Self(Some((opener, connection)))
    }

    /// Whether this process makes the calls itself.
    pub(crate) fn is_direct(&self) -> bool {
        self.0.is_none()
    }

    /// Asks the opener. `socket` is the socket of the request. `None` if the opener leaves the call to this process,
    /// or its policy refuses it.
    pub(crate) fn ask(
        &self,
        request: &Request,
        socket: Option<BorrowedFd<'_>>,
    ) -> Option<io::Result<Done>> {
        let (opener, connection) = self.0.as_ref()?;
        // Nobody waits for the result of a call on a connection that has ended.
        let connection = connection.upgrade()?;
        let descriptors: Vec<_> = [connection.as_fd()].into_iter().chain(socket).collect();
        done(opener.ask(&opener.0.prompt, request, &descriptors))
    }

    /// The same for a request that can take long. It is made even if the future is dropped.
    pub(crate) async fn ask_slowly(
        &self,
        request: Request,
        socket: Socket,
    ) -> Option<io::Result<Done>> {
        let (opener, connection) = self.0.clone()?;
        let turn = opener.0.slow_turn.clone().lock_owned().await;
        let asked = spawn_blocking(move || {
            let _turn = turn;
            let connection = connection.upgrade()?;
            let descriptors = [connection.as_fd(), socket.fd()];
            done(opener.ask(&opener.0.slow, &request, &descriptors))
        });
        asked.await.unwrap_or_else(|error| Some(Err(io::Error::other(error))))
    }

    /// The same for a request without a socket.
    pub(crate) async fn ask_apart(&self, request: Request) -> Option<io::Result<Done>> {
        let (opener, connection) = self.0.clone()?;
        let turn = opener.0.slow_turn.clone().lock_owned().await;
        let asked = spawn_blocking(move || {
            let _turn = turn;
            let connection = connection.upgrade()?;
            done(opener.ask(&opener.0.slow, &request, &[connection.as_fd()]))
        });
        asked.await.unwrap_or_else(|error| Some(Err(io::Error::other(error))))
    }

    /// Makes a call, and if the kernel refuses it with one of these error numbers, asks the opener to make it.
    pub(crate) fn or_ask(
        &self,
        call: impl FnOnce() -> io::Result<()>,
        refusals: &[i32],
        socket: BorrowedFd<'_>,
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
        match self.ask(&request(), Some(socket)) {
            Some(result) => result.map(drop),
            None => Err(refused),
        }
    }
}
