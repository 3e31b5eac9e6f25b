//! A thread that serves one channel of a worker: one request after the other.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::thread;

use sockbroker_sys::events::Events;
use sockbroker_sys::prompt_close::PromptClose;

use super::answer::{Client, Outcome, answer, parts};
use super::host::Host;
use super::shared::{Opener, close, shut_down};
use super::workers::{Named, Worker, WorkerChannel, cookie, is_network, lock};
use crate::channel::ChannelError;
use crate::request::{Answer, OpenerRequest, Request};

/// Why a worker is served no longer.
enum End {
    /// It has ended, or the opener ends.
    Gone,
    /// It broke the rules.
    Nonsense { reason: &'static str, descriptors: Vec<OwnedFd> },
}

impl End {
    fn nonsense(reason: &'static str) -> Self {
        Self::Nonsense { reason, descriptors: Vec::new() }
    }
}

/// Serves until the worker ends or breaks the rules.
pub(super) fn serve<H: Host + Send + 'static>(
    opener: &Arc<Opener<H>>,
    worker: &Worker,
    channel: Arc<WorkerChannel>,
) {
    let prepared = PromptClose::new().and_then(|closing| {
        let events = Events::new()?;
        events.add(channel.as_fd(), 0)?;
        worker.add_thread(closing.interrupter());
        Ok((closing, events))
    });
    let (mut closing, mut events) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            let (uid, number) = (worker.uid(), worker.number);
            tracing::error!(uid, worker = number, %error, "cannot serve a worker");
            shut_down(&channel);
            return;
        }
    };
    let end = loop {
        if let Err(end) = serve_next(opener, worker, &channel, &mut events, &mut closing) {
            break end;
        }
    };
    if let End::Nonsense { reason, descriptors } = end {
        if !descriptors.is_empty() {
            // They can be files whose file system does not answer.
            thread::spawn(move || drop(descriptors));
        }
        opener.end(worker, reason, &mut closing);
    }
    drop(events);
    shut_down(&channel);
    close(channel, &mut closing);
}

/// Waits for a request, and answers it.
fn serve_next<H: Host + Send + 'static>(
    opener: &Arc<Opener<H>>,
    worker: &Worker,
    channel: &WorkerChannel,
    events: &mut Events,
    closing: &mut PromptClose,
) -> Result<(), End> {
    let (opener_request, descriptors) = match channel.receive_within() {
        Ok(received) => received,
        // A signal, or a socket that does not block.
        Err(ChannelError::NotReady) => {
            return events.wait(None).map(drop).map_err(|_error| End::Gone);
        }
        Err(ChannelError::Closed) => return Err(End::Gone),
        Err(ChannelError::Nonsense { reason, descriptors }) => {
            return Err(End::Nonsense { reason, descriptors });
        }
        Err(ChannelError::LostDescriptors { descriptors, .. }) => {
            return Err(End::Nonsense { reason: "the opener cannot open more files", descriptors });
        }
        Err(ChannelError::System(error)) => {
            tracing::debug!(%error, "cannot receive from a worker");
            return Err(End::nonsense("its channel failed"));
        }
    };
    let mut cookies = descriptors.iter().map(cookie);
    let cookie = cookies.next().flatten();
    let others = cookies.skip(usize::from(opener_request.passes_network()));
    let Some(cookie) = cookie.filter(|_| others.into_iter().all(|other| other.is_some())) else {
        return Err(End::Nonsense { reason: "it sent a file in place of a socket", descriptors });
    };
    if opener_request.passes_network() && !descriptors.last().is_some_and(is_network) {
        return Err(End::Nonsense {
            reason: "it sent another file as a network namespace",
            descriptors,
        });
    }
    // The monitor sends a connection's cookie before the worker gets the connection, and a reader likewise.
    let needs_reader = matches!(
        opener_request.request,
        Request::Capture { .. } | Request::SetCaptureFilter { .. }
    );
    let lacks_reader = needs_reader && !opener.captures.has_reader(worker.number);
    if lacks_reader || !worker.has(cookie) {
        match opener.follow_monitor(closing) {
            Ok(true) => {}
            Ok(false) => return Err(End::Gone),
            Err(error) => {
                opener.fail(&error);
                return Err(End::Gone);
            }
        }
    }
    let (answer, made) = match outcome(opener, worker, cookie, opener_request, &descriptors) {
        Outcome::Answer(answer) => (answer, None),
        Outcome::Socket(made, _) => (Answer::Socket, Some(made)),
        // It is with the reader, or was refused.
        Outcome::Capture(..) => (Answer::NotServed, None),
        Outcome::Denied(denial) => {
            lock(&opener.refusals).report(worker.number, &denial);
            (Answer::Refused(denial.errno), None)
        }
        Outcome::Nonsense(reason) => return Err(End::Nonsense { reason, descriptors }),
    };
    // All copies are closed before the answer: what the worker closes after it is closed then.
    close_request(worker, cookie, descriptors, closing);
    match send(channel, &answer, made) {
        Ok(()) => Ok(()),
        Err(ChannelError::Closed) => Err(End::Gone),
        Err(_) => Err(End::nonsense("it does not read its answers")),
    }
}

/// Answers a request, after its new socket if it made one, and closes the copy of that.
fn send(
    channel: &WorkerChannel,
    answer: &Answer,
    made: Option<OwnedFd>,
) -> Result<(), ChannelError> {
    if let Some(made) = made {
        channel.send(&Answer::Made, &[made.as_fd()])?;
    }
    channel.send(answer, &[])
}

/// Closes the descriptors of a request about a connection with this cookie.
fn close_request(
    worker: &Worker,
    cookie: u64,
    descriptors: Vec<OwnedFd>,
    closing: &mut PromptClose,
) {
    if descriptors.len() == 1 && worker.has(cookie) {
        // The worker has it too. If it had not, only what this worker asks for would wait, until the worker ends.
        drop(descriptors);
    } else {
        closing.close(descriptors);
    }
}

fn outcome<H: Host + Send + 'static>(
    opener: &Opener<H>,
    worker: &Worker,
    cookie: u64,
    opener_request: OpenerRequest,
    descriptors: &[OwnedFd],
) -> Outcome {
    let (Some(connection), socket) = parts(descriptors) else {
        return Outcome::Nonsense("it sent a request without a connection");
    };
    match worker.rights(connection, cookie, &opener.in_force()) {
        Named::Connection(rights) => {
            let client = Client { rights: &rights, connection };
            match opener_request.request {
                Request::Capture { .. } | Request::SetCaptureFilter { .. } => opener
                    .captures
                    .serve(&opener.kernel, worker.number, client, opener_request, socket),
                Request::Create { .. }
                | Request::Bind { .. }
                | Request::Connect { .. }
                | Request::SetOption { .. }
                | Request::Send { .. }
                | Request::SetHostname { .. }
                | Request::Interfaces { .. } => {
                    answer(&opener.kernel, client, opener_request, socket)
                }
            }
        }
        Named::Nonsense(reason) => Outcome::Nonsense(reason),
        // The end of a connection can overtake a call on it, once in a while.
        Named::Unknown if worker.strays() => {
            Outcome::Nonsense("it named connections that it does not have")
        }
        Named::HungUp | Named::Unknown => Outcome::Answer(Answer::HungUp),
    }
}
