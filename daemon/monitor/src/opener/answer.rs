//! From a request to its answer.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use sockbroker_policy::Denial;
use sockbroker_policy::rights::Rights;
use sockbroker_proto::socket_spec::SocketSpec;

use super::calls::{self, Kernel, SystemCalls};
use super::judge::{self, Refusal};
use super::judge_message::{self, Message};
use crate::capture::Opened;
use crate::request::{Answer, Request};
use crate::socket_facts::KernelSocket;

/// What comes of a request.
#[derive(Debug)]
pub enum Outcome {
    /// A call was made, or none is to be made.
    Answer(Answer),
    /// A socket was made.
    Socket(OwnedFd),
    /// A capture was opened.
    Capture(OwnedFd, Box<Opened>),
    /// The policy refuses it.
    Denied(Box<Denial>),
    /// No worker would send it.
    Nonsense(&'static str),
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Denied(denial) => Self::Denied(denial),
            Refusal::NotServed => Self::Answer(Answer::NotServed),
            Refusal::Failed(errno) => Self::Answer(Answer::Failed(errno)),
            Refusal::Nonsense(reason) => Self::Nonsense(reason),
        }
    }
}

/// Judges a request and makes its call. `socket` is the second descriptor.
pub(super) fn answer(rights: &Rights, request: Request, socket: Option<BorrowedFd<'_>>) -> Outcome {
    answer_with(&Kernel, rights, request, socket)
}

/// The same with other calls than those of the kernel.
pub(super) fn answer_with<S: KernelSocket>(
    calls: &impl SystemCalls<S>,
    rights: &Rights,
    request: Request,
    socket: Option<S>,
) -> Outcome {
    perform(calls, rights, request, socket).unwrap_or_else(Outcome::from)
}

fn perform<S: KernelSocket>(
    kernel: &impl SystemCalls<S>,
    rights: &Rights,
    request: Request,
    socket: Option<S>,
) -> Result<Outcome, Refusal> {
    if !request.is_within_limits() {
        return Err(Refusal::Nonsense("it sent a request beyond the limits"));
    }
    let socket = || socket.ok_or(Refusal::Nonsense("it sent a request without a socket"));
    let result = match request {
        Request::Create { domain, ty, protocol } => {
            let permit = judge::create(rights, SocketSpec { domain, ty, protocol })?;
            return Ok(calls::create(kernel, permit).map_or_else(failed, Outcome::Socket));
        }
        Request::Capture { capture: _, order } => {
            let permit = judge::capture(rights, &order)?;
            let opened = calls::capture(kernel, permit, order);
            return Ok(opened.map_or_else(failed, |(socket, opened)| {
                Outcome::Capture(socket, Box::new(opened))
            }));
        }
        // The captures of a worker are known elsewhere.
        Request::SetCaptureFilter { .. } => return Err(Refusal::NotServed),
        Request::SetHostname { name } => {
            calls::set_hostname(kernel, judge::set_hostname(rights, name)?)
        }
        Request::Bind { address } => {
            calls::bind(kernel, judge::bind(rights, socket()?, &address)?, socket()?)
        }
        Request::Connect { address } => {
            calls::connect(kernel, judge::connect(rights, socket()?, &address)?, socket()?)
        }
        Request::SetOption { level, name, value } => {
            let permit = judge::set_option(rights, socket()?, (level, name), value)?;
            calls::set_option(kernel, permit, socket()?)
        }
        Request::Send { destination, flags, control, data } => {
            let message = Message { destination, flags, control, data };
            let permit = judge_message::send(rights, socket()?, message)?;
            let sent = calls::send(kernel, permit, socket()?);
            let sent = sent.map(|sent| Outcome::Answer(Answer::Sent(sent as u64)));
            return Ok(sent.unwrap_or_else(failed));
        }
    };
    Ok(result.map_or_else(failed, |()| Outcome::Answer(Answer::Done)))
}

#[expect(clippy::needless_pass_by_value, reason = "reads well in map_or_else")]
fn failed(error: io::Error) -> Outcome {
    Outcome::Answer(Answer::Failed(error.raw_os_error().unwrap_or(libc::EINVAL)))
}

/// The descriptors of a request: the connection, and the socket if it has one.
pub(super) fn parts(descriptors: &[OwnedFd]) -> (Option<BorrowedFd<'_>>, Option<BorrowedFd<'_>>) {
    let mut parts = descriptors.iter().map(OwnedFd::as_fd);
    (parts.next(), parts.next())
}
