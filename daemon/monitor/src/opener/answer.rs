//! From a request to its answer.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use sockbroker_policy::Denial;
use sockbroker_policy::action::Interfaces;
use sockbroker_policy::namespace::Namespace;
use sockbroker_policy::rights::Rights;
use sockbroker_proto::socket_spec::SocketSpec;

use super::calls::{self, SystemCalls};
use super::judge::{self, Refusal};
use super::judge_message::{self, Message};
use super::other_namespace::{self, OtherNamespace};
use crate::capture::{Opened, Order};
use crate::request::{Answer, OpenerRequest, Request, SelectedNamespace};
use crate::socket_facts::KernelSocket;
use crate::subject::Connection;

/// What comes of a request.
#[derive(Debug)]
pub enum Outcome {
    /// A call was made, or none is to be made.
    Answer(Answer),
    /// A socket was made for this spec.
    Socket(OwnedFd, SocketSpec),
    /// A capture was opened, in this network namespace.
    Capture(OwnedFd, Box<Opened>, Namespace),
    /// The policy refuses it.
    Denied(Box<Denial>),
    /// No worker would send it.
    Nonsense(&'static str),
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Denied(denial) => Self::Denied(denial),
            Refusal::Unreachable(unreachable) => Self::Answer(Answer::Unreachable(unreachable)),
            Refusal::NotServed => Self::Answer(Answer::NotServed),
            Refusal::Failed(errno) => Self::Answer(Answer::Failed(errno)),
            Refusal::Nonsense(reason) => Self::Nonsense(reason),
        }
    }
}

/// The client for whom a worker asks: its rights, and its connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client<'a, C> {
    pub(super) rights: &'a Rights,
    pub(super) connection: C,
}

/// Judges a request and makes its call. `socket` is the second descriptor.
pub(super) fn answer<S: KernelSocket, C: Connection>(
    kernel: &impl SystemCalls<S, C>,
    client: Client<'_, C>,
    opener_request: OpenerRequest,
    socket: Option<S>,
) -> Outcome {
    perform(kernel, client, opener_request, socket).unwrap_or_else(Outcome::from)
}

fn perform<S: KernelSocket, C: Connection>(
    kernel: &impl SystemCalls<S, C>,
    client: Client<'_, C>,
    opener_request: OpenerRequest,
    socket: Option<S>,
) -> Result<Outcome, Refusal> {
    let OpenerRequest { network, request } = opener_request;
    let Client { rights, connection } = client;
    if !request.is_within_limits() {
        return Err(Refusal::Nonsense("it sent a request beyond the limits"));
    }
    let second = socket;
    let socket = || socket.ok_or(Refusal::Nonsense("it sent a request without a socket"));
    let namespace = || other_namespace::of_socket(kernel, &network, connection, socket()?);
    let result = match request {
        Request::Create { domain, ty, protocol } => {
            let spec = SocketSpec { domain, ty, protocol };
            let made = match other_namespace::look_up(kernel, &network, connection, second)? {
                None => calls::create(kernel, judge::create(rights, spec)?),
                Some(OtherNamespace { found, namespace }) => {
                    let permit = judge::create_in(rights.within(&namespace), spec)?;
                    calls::create_in(kernel, permit, &found)?
                }
            };
            return Ok(made.map_or_else(failed, |made| Outcome::Socket(made, spec)));
        }
        Request::Interfaces { query } => {
            // The worker lists those of its own namespace itself.
            let found = other_namespace::look_up(kernel, &network, connection, second)?;
            let OtherNamespace { found, namespace } = found.ok_or(Refusal::NotServed)?;
            let permit = rights.within(&namespace).authorize(Interfaces)?;
            let listed = calls::interfaces_in(kernel, permit, &found, &query)?;
            return Ok(
                listed.map_or_else(failed, |found| Outcome::Answer(Answer::Interfaces(found)))
            );
        }
        Request::Capture { capture: _, order } => {
            return open_capture(kernel, client, (&network, second), order);
        }
        // The captures of a worker are known elsewhere.
        Request::SetCaptureFilter { .. } => return Err(Refusal::NotServed),
        Request::SetHostname { name } => {
            calls::set_hostname(kernel, judge::set_hostname(rights, name)?)
        }
        Request::Bind { address } => {
            let permit = judge::bind(rights.within(&namespace()?), socket()?, &address)?;
            calls::bind(kernel, permit, socket()?)
        }
        Request::Connect { address } => {
            let permit = judge::connect(rights.within(&namespace()?), socket()?, &address)?;
            calls::connect(kernel, permit, socket()?)
        }
        Request::SetOption { level, name, value } => {
            let (namespace, option) = (namespace()?, (level, name));
            let permit = judge::set_option(rights.within(&namespace), socket()?, option, value)?;
            calls::set_option(kernel, permit, socket()?)
        }
        Request::Send { destination, flags, control, data } => {
            let message = Message { destination, flags, control, data };
            let permit = judge_message::send(rights.within(&namespace()?), socket()?, message)?;
            let sent = calls::send(kernel, permit, socket()?);
            let sent = sent.map(|sent| Outcome::Answer(Answer::Sent(sent as u64)));
            return Ok(sent.unwrap_or_else(failed));
        }
    };
    Ok(result.map_or_else(failed, |()| Outcome::Answer(Answer::Done)))
}

fn open_capture<S: KernelSocket, C: Connection>(
    kernel: &impl SystemCalls<S, C>,
    client: Client<'_, C>,
    (network, passed): (&SelectedNamespace, Option<S>),
    order: Order,
) -> Result<Outcome, Refusal> {
    let found = other_namespace::look_up(kernel, network, client.connection, passed)?;
    let (found, namespace) = match found {
        None => (None, Namespace::Broker),
        Some(OtherNamespace { found, namespace }) => (Some(found), namespace),
    };
    let permit = judge::capture(client.rights.within(&namespace), &order)?;
    let opened = calls::capture(kernel, permit, found.as_ref(), order)?;
    Ok(opened.map_or_else(failed, |(socket, opened)| {
        Outcome::Capture(socket, Box::new(opened), namespace)
    }))
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
