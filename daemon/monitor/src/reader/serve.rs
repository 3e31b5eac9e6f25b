//! The process: takes sockets from the opener and commands from the worker.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use sockbroker_sys::events::Events;
use sockbroker_sys::lot::Lot;
use sockbroker_sys::sealed;

use super::message::{ReaderAnswer, ReaderOrder, ReaderReport, ToReader};
use crate::capture::{CaptureLot, Captures, Command, Event};
use crate::channel::{Channel, ChannelError, Message};
use crate::message::Build;

/// The worker's channel, and the opener's.
const WORKER: u64 = 1;
const OPENER: u64 = 2;
/// The most bytes of the text of the configuration.
const CONFIGURATION: usize = 64 << 20;
/// How often, and how long after each other, a message is sent again while its channel is full.
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(50);
/// How long the process waits at its end for captures to write why they end.
const LAST_BLOCKS: Duration = Duration::from_millis(500);

type WorkerEnd = Channel<ReaderAnswer, ToReader>;
type OpenerEnd = Channel<ReaderReport, ReaderOrder>;

/// Why the process cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{0}")]
    System(#[from] io::Error),
    #[error("{from} sent nonsense: {reason}")]
    Nonsense { from: &'static str, reason: &'static str },
    #[error("the channel: {0}")]
    Channel(String),
}

/// What the process begins with.
#[derive(Debug)]
pub struct Beginning {
    pub id: Option<u32>,
    /// The text of the configuration.
    pub configuration: Vec<u8>,
    /// The channel to the opener.
    pub opener: OwnedFd,
    /// Where the captures lie that outlive a reader.
    pub lot: Lot,
}

/// Receives what the process begins with, which the monitor has sent before the process was started.
pub fn begin(channel: BorrowedFd<'_>) -> Result<Beginning, RunError> {
    let channel = WorkerEnd::over(channel.try_clone_to_owned()?);
    let mut greeted = false;
    loop {
        match channel.receive() {
            Ok((ToReader::Hello(build), _)) if build == Build::OWN && !greeted => greeted = true,
            Ok((ToReader::Begin { id }, descriptors)) if greeted => {
                let [configuration, opener, first, second] = <[OwnedFd; 4]>::try_from(descriptors)
                    .map_err(|_others| RunError::Channel("descriptors are missing".to_owned()))?;
                let configuration = sealed::read(configuration.as_fd(), CONFIGURATION)?;
                let lot = Lot::of_ends(first, second)?;
                return Ok(Beginning { id, configuration, opener, lot });
            }
            Ok(_) => return Err(RunError::Channel("the monitor is of another build".to_owned())),
            Err(error) => return Err(RunError::Channel(error.to_string())),
        }
    }
}

/// Serves until the worker or the opener closes its channel. The caller then exits without waiting for threads: the
/// captures in the lot continue in the next reader.
pub fn serve(worker: OwnedFd, opener: OwnedFd, lot: Lot) -> Result<(), RunError> {
    let (worker, opener) = (Arc::new(WorkerEnd::over(worker)), Arc::new(OpenerEnd::over(opener)));
    let mut events = Events::new()?;
    events.add(worker.as_fd(), WORKER)?;
    events.add(opener.as_fd(), OPENER)?;
    let greet =
        |message| worker.send(&message, &[]).map_err(|error| RunError::Channel(error.to_string()));
    greet(ReaderAnswer::Hello(Build::OWN))?;
    let (to_worker, to_opener) = (worker.clone(), opener.clone());
    let captures = Captures::new(Arc::new(move |event| report(&to_worker, &to_opener, event)));
    let (lot, left) = CaptureLot::recover(lot)?;
    let captures = captures.in_lot(lot);
    for left in left {
        let capture = left.capture;
        captures.resume(left, |opened, counts| {
            tracing::info!(capture, "continued a capture");
            let opened = Box::new(opened);
            send(&opener, &ReaderReport::Resumed { capture, opened }, &[]);
            send(&worker, &ReaderAnswer::Resumed { capture, counts }, &[]);
        });
    }
    greet(ReaderAnswer::Ready)?;
    let ended = serve_channels(&mut events, &worker, &opener, &captures);
    captures.interrupt(LAST_BLOCKS);
    ended
}

fn serve_channels(
    events: &mut Events,
    worker: &WorkerEnd,
    opener: &OpenerEnd,
    captures: &Captures,
) -> Result<(), RunError> {
    loop {
        for ready in events.wait(None)? {
            let goes_on = if ready.token == WORKER {
                serve_worker(worker, captures)?
            } else {
                serve_opener(opener, captures)?
            };
            if !goes_on {
                return Ok(());
            }
        }
    }
}

/// A message with its descriptors.
type Received<R> = (R, Vec<OwnedFd>);

/// The next message of a channel; `None` if there is none yet, and an error without a reason at its end.
fn next<S: Message, R: Message>(
    channel: &Channel<S, R>,
    from: &'static str,
) -> Result<Option<Received<R>>, Option<RunError>> {
    match channel.receive() {
        Ok(received) => Ok(Some(received)),
        Err(ChannelError::NotReady) => Ok(None),
        Err(ChannelError::Closed) => Err(None),
        Err(ChannelError::LostDescriptors { .. }) => {
            Err(Some(RunError::Channel("this process cannot open more files".to_owned())))
        }
        Err(ChannelError::Nonsense { reason, .. }) => {
            Err(Some(RunError::Nonsense { from, reason }))
        }
        Err(ChannelError::System(error)) => Err(Some(RunError::System(error))),
    }
}

/// `false` at the end of the channel.
fn ended<T>(received: Result<T, Option<RunError>>) -> Result<Option<T>, RunError> {
    match received {
        Ok(value) => Ok(Some(value)),
        Err(None) => Ok(None),
        Err(Some(error)) => Err(error),
    }
}

fn serve_worker(channel: &WorkerEnd, captures: &Captures) -> Result<bool, RunError> {
    let Some(received) = ended(next(channel, "the worker"))? else { return Ok(false) };
    match received {
        None => {}
        Some((ToReader::Counts { request, capture }, _)) => {
            captures.command(capture, Command::Counts { request });
        }
        Some((ToReader::Stop { capture, linger }, _)) => {
            captures.command(capture, Command::Stop { linger });
        }
        Some((ToReader::Close { capture, reason }, _)) => {
            captures.command(capture, Command::Close(reason));
        }
        Some((ToReader::Keep { request, capture }, _)) => {
            captures.command(capture, Command::Keep { request });
        }
        Some((ToReader::Hello(_) | ToReader::Begin { .. }, _)) => {
            return Err(RunError::Nonsense { from: "the worker", reason: "it began twice" });
        }
    }
    Ok(true)
}

fn serve_opener(channel: &OpenerEnd, captures: &Captures) -> Result<bool, RunError> {
    let Some(received) = ended(next(channel, "the opener"))? else { return Ok(false) };
    match received {
        None => {}
        Some((ReaderOrder::Open { capture, opened }, descriptors)) => {
            if let Some(socket) = descriptors.into_iter().next() {
                captures.start(capture, opened, socket);
            }
        }
        Some((ReaderOrder::SetFilter { request, capture, program }, _)) => {
            captures.command(capture, Command::SetFilter { request, program });
        }
    }
    Ok(true)
}

/// Sends what a capture reports: to the worker, and at its end first to the opener, so that the next capture has room.
fn report(worker: &WorkerEnd, opener: &OpenerEnd, event: Event) {
    let over = |capture| send(opener, &ReaderReport::Ended { capture }, &[]);
    let (answer, stream) = match event {
        Event::Live { capture, live, stream } => {
            (ReaderAnswer::Live { capture, live }, Some(stream))
        }
        Event::NotLive { capture, failure } => {
            over(capture);
            (ReaderAnswer::NotLive { capture, failure }, None)
        }
        Event::Counts { request, counts } => (ReaderAnswer::Counts { request, counts }, None),
        Event::Filter { request, result } => (ReaderAnswer::Filter { request, result }, None),
        Event::Kept { request, result } => (ReaderAnswer::Kept { request, result }, None),
        Event::Ended { capture, ended } => {
            over(capture);
            (ReaderAnswer::Ended { capture, ended }, None)
        }
        Event::Closed { .. } => return,
    };
    let descriptors: Vec<_> = stream.iter().map(OwnedFd::as_fd).collect();
    send(worker, &answer, &descriptors);
}

/// Sends a message as soon as the channel has room. A process that does not read loses it.
fn send<S: Message, R: Message>(
    channel: &Channel<S, R>,
    message: &S,
    descriptors: &[BorrowedFd<'_>],
) {
    for _ in 0..ATTEMPTS {
        match channel.send(message, descriptors) {
            Err(ChannelError::NotReady) => thread::park_timeout(PAUSE),
            Ok(()) | Err(ChannelError::Closed) => return,
            Err(error) => return tracing::error!(%error, "cannot report on a capture"),
        }
    }
}
