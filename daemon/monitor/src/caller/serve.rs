//! The process: takes the calls of the worker, and answers them.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use sockbroker_sys::events::Events;
use sockbroker_sys::sealed;

use super::large::{pack_answer, unpack_call};
use super::message::{CallerIds, Data, FromCaller, LARGE_MAX, ToCaller, UnixAnswer, UnixCall};
use super::perform::{perform, send as send_as_caller};
use super::shared::SharedReader;
use crate::channel::{Channel, ChannelError};
use crate::message::Build;

/// The worker's channel for calls that may wait, and the one for sends that do not.
const CALLS: u64 = 1;
const SENDS: u64 = 2;
/// The stack of a thread that makes one call.
const STACK: usize = 256 << 10;
/// How often, and how long after each other, an answer is sent again while the channel is full.
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(50);

/// Why the process cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{0}")]
    System(#[from] io::Error),
    #[error("the worker sent nonsense: {0}")]
    Worker(&'static str),
    #[error("the channel: {0}")]
    Channel(String),
}

type WorkerEnd = Channel<FromCaller, ToCaller>;

/// What the process begins with.
#[derive(Debug)]
pub struct Beginning {
    pub ids: CallerIds,
    pub overrides_files: bool,
    /// The text of the configuration.
    pub configuration: Vec<u8>,
    /// The channel for sends that do not wait.
    pub sends: OwnedFd,
}

/// Receives what the process begins with, which the monitor has sent before the process was started.
pub fn begin(calls: BorrowedFd<'_>) -> Result<Beginning, RunError> {
    let calls = WorkerEnd::over(calls.try_clone_to_owned()?);
    let mut greeted = false;
    loop {
        match calls.receive() {
            Ok((ToCaller::Hello(build), _)) if build == Build::OWN && !greeted => greeted = true,
            Ok((ToCaller::Begin { overrides_files }, descriptors)) if greeted => {
                let [configuration, ids, sends] = <[OwnedFd; 3]>::try_from(descriptors)
                    .map_err(|_others| RunError::Channel("descriptors are missing".to_owned()))?;
                let configuration = sealed::read(configuration.as_fd(), LARGE_MAX)?;
                let ids = sealed::read(ids.as_fd(), LARGE_MAX)?;
                let ids = postcard::from_bytes(&ids)
                    .map_err(|error| RunError::Channel(error.to_string()))?;
                return Ok(Beginning { ids, overrides_files, configuration, sends });
            }
            Ok(_) => return Err(RunError::Channel("the monitor is of another build".to_owned())),
            Err(error) => return Err(RunError::Channel(error.to_string())),
        }
    }
}

/// Makes the calls that the worker sends, at most `jobs` at a time, until the worker closes a channel. The caller then
/// exits without waiting for threads.
pub fn serve(calls: OwnedFd, sends: OwnedFd, jobs: usize) -> Result<(), RunError> {
    let mut events = Events::new()?;
    let (calls, sends) = (Arc::new(WorkerEnd::over(calls)), WorkerEnd::over(sends));
    events.add(calls.as_fd(), CALLS)?;
    events.add(sends.as_fd(), SENDS)?;
    for message in [FromCaller::Hello(Build::OWN), FromCaller::Ready] {
        calls.send(&message, &[]).map_err(|error| RunError::Channel(error.to_string()))?;
    }
    let mut calls = Calls { end: calls, attached: BTreeMap::new(), running: Arc::default(), jobs };
    let mut sends = Sends { end: sends, attached: BTreeMap::new(), memory: None };
    loop {
        for ready in events.wait(None)? {
            let goes_on =
                if ready.token == SENDS { sends.serve_one()? } else { calls.serve_one()? };
            if !goes_on {
                return Ok(());
            }
        }
    }
}

/// A call with its number and its descriptors.
type Received = (u64, UnixCall, Vec<OwnedFd>);
/// Descriptors that came before their call, by its number.
type Attached = BTreeMap<u64, Vec<OwnedFd>>;

/// What a channel has.
enum Next {
    Call(Received),
    /// Memory for data.
    Memory(OwnedFd),
    /// Not a call yet.
    Nothing,
    /// The worker has closed the channel.
    End,
}

/// The next message of a channel.
fn next(end: &WorkerEnd, attached: &mut Attached) -> Result<Next, RunError> {
    let (message, mut descriptors) = match end.receive() {
        Ok(received) => received,
        Err(ChannelError::NotReady) => return Ok(Next::Nothing),
        Err(ChannelError::Closed) => return Ok(Next::End),
        Err(ChannelError::LostDescriptors { .. }) => {
            return Err(RunError::Channel("this process cannot open more files".to_owned()));
        }
        Err(ChannelError::Nonsense { reason, .. }) => return Err(RunError::Worker(reason)),
        Err(ChannelError::System(error)) => return Err(RunError::System(error)),
    };
    let (number, call) = match message {
        ToCaller::Call { number, call } => (number, call),
        ToCaller::Large { number, .. } => {
            (number, unpack_call(&mut descriptors).map_err(RunError::Worker)?)
        }
        ToCaller::Attach { number, .. } => {
            // One set at a time. The worker sends it again if the channel had no room for the call.
            attached.clear();
            attached.insert(number, descriptors);
            return Ok(Next::Nothing);
        }
        ToCaller::Memory => return Ok(descriptors.pop().map_or(Next::Nothing, Next::Memory)),
        ToCaller::Hello(_) | ToCaller::Begin { .. } => {
            return Err(RunError::Worker("it began twice"));
        }
    };
    descriptors.extend(attached.remove(&number).unwrap_or_default());
    if descriptors.len() != call.all_descriptors() || !attached.is_empty() {
        return Err(RunError::Worker("a call has the wrong number of descriptors"));
    }
    Ok(Next::Call((number, call, descriptors)))
}

/// Makes a call. The descriptors are closed before the answer, while the worker holds its own: closing does not wait.
fn outcome(call: &UnixCall, descriptors: Vec<OwnedFd>) -> Outcome {
    let borrowed: Vec<_> = descriptors.iter().map(OwnedFd::as_fd).collect();
    let returned = perform(call, &borrowed);
    drop(descriptors);
    returned.unwrap_or_else(|error| (failed(&error), Vec::new()))
}

fn failed(error: &io::Error) -> UnixAnswer {
    UnixAnswer::Failed(error.raw_os_error().unwrap_or(libc::EINVAL))
}

/// What a call returned, with what it has made or opened.
type Outcome = (UnixAnswer, Vec<OwnedFd>);

fn send(end: &WorkerEnd, number: u64, answer: &UnixAnswer) -> Result<(), ChannelError> {
    let packed = pack_answer(number, answer.clone()).map_err(ChannelError::System)?;
    let memory: Vec<_> = packed.memory.iter().map(OwnedFd::as_fd).collect();
    end.send(&packed.message, &memory)
}

/// The channel for sends that do not wait.
struct Sends {
    end: WorkerEnd,
    attached: Attached,
    /// Where the data lies that is too large for a record.
    memory: Option<SharedReader>,
}

impl Sends {
    /// Makes the next send. `false` if the worker has closed the channel.
    fn serve_one(&mut self) -> Result<bool, RunError> {
        let (number, call, descriptors) = match next(&self.end, &mut self.attached)? {
            Next::Call(received) => received,
            Next::Memory(memory) => {
                self.memory = Some(SharedReader::new(memory));
                return Ok(true);
            }
            Next::Nothing => return Ok(true),
            Next::End => return Ok(false),
        };
        if !call.is_prompt() {
            return Err(RunError::Worker("a call that may wait came by the channel for sends"));
        }
        let answer = self.make(&call, descriptors)?;
        match send(&self.end, number, &answer) {
            Ok(()) => Ok(true),
            Err(ChannelError::Closed) => Ok(false),
            Err(error) => Err(RunError::Channel(error.to_string())),
        }
    }

    /// Makes a send, and closes its descriptors.
    fn make(&mut self, call: &UnixCall, descriptors: Vec<OwnedFd>) -> Result<UnixAnswer, RunError> {
        let UnixCall::Send(outgoing, Data::Shared { length }) = call else {
            // A send makes nothing.
            return Ok(outcome(call, descriptors).0);
        };
        let memory = self.memory.as_mut().ok_or(RunError::Worker("there is no shared memory"))?;
        let data = memory.read(*length as usize).map_err(RunError::Worker)?;
        let borrowed: Vec<_> = descriptors.iter().map(OwnedFd::as_fd).collect();
        Ok(send_as_caller(outgoing, data, &borrowed).unwrap_or_else(|error| failed(&error)))
    }
}

/// The channel for calls that may wait.
struct Calls {
    end: Arc<WorkerEnd>,
    attached: Attached,
    /// The number of threads.
    running: Arc<AtomicUsize>,
    jobs: usize,
}

impl Calls {
    /// Starts the next call. `false` if the worker has closed the channel.
    fn serve_one(&mut self) -> Result<bool, RunError> {
        let (number, call, descriptors) = match next(&self.end, &mut self.attached)? {
            Next::Call(received) => received,
            Next::Memory(_) => {
                return Err(RunError::Worker("memory for sends came by the channel for calls"));
            }
            Next::Nothing => return Ok(true),
            Next::End => return Ok(false),
        };
        if self.running.fetch_add(1, Ordering::Relaxed) >= self.jobs {
            return Err(RunError::Worker("too many calls at a time"));
        }
        let (end, running) = (self.end.clone(), self.running.clone());
        let job = move || {
            let outcome = outcome(&call, descriptors);
            // The worker counts a call until its answer.
            running.fetch_sub(1, Ordering::Relaxed);
            answer(&end, number, outcome);
        };
        let thread = thread::Builder::new().name("call".to_owned()).stack_size(STACK);
        if let Err(error) = thread.spawn(job) {
            self.running.fetch_sub(1, Ordering::Relaxed);
            let errno = error.raw_os_error().unwrap_or(libc::EAGAIN);
            answer(&self.end, number, (UnixAnswer::NoThread(errno), Vec::new()));
        }
        Ok(true)
    }
}

/// Answers a call. What it has made is sent, and closed here, before that.
fn answer(end: &WorkerEnd, number: u64, (mut answer, made): Outcome) {
    if let Err(errno) = pass(end, number, made) {
        answer = UnixAnswer::Failed(errno);
    }
    if let Err(error) = send_patiently(|| send(end, number, &answer)) {
        tracing::error!(%error, "cannot answer a call");
    }
}

/// Sends what a call has made, and closes the copies of this process. If that fails, returns the error number of the call.
fn pass(end: &WorkerEnd, number: u64, made: Vec<OwnedFd>) -> Result<(), i32> {
    let Some(count) = u8::try_from(made.len()).ok().filter(|count| *count > 0) else {
        return Ok(());
    };
    let borrowed: Vec<_> = made.iter().map(OwnedFd::as_fd).collect();
    let sent = send_patiently(|| end.send(&FromCaller::Made { number, count }, &borrowed));
    drop(made);
    sent.map_err(|error| {
        tracing::error!(%error, "cannot pass what a call has made");
        match error {
            // Too many descriptors of the user are on their way, for example.
            ChannelError::System(error) => error.raw_os_error().unwrap_or(libc::EIO),
            ChannelError::NotReady
            | ChannelError::Closed
            | ChannelError::LostDescriptors { .. }
            | ChannelError::Nonsense { .. } => libc::EIO,
        }
    })
}

/// Sends as soon as the channel has room. A worker that does not read loses the message.
fn send_patiently(send: impl Fn() -> Result<(), ChannelError>) -> Result<(), ChannelError> {
    for _ in 1..ATTEMPTS {
        match send() {
            Err(ChannelError::NotReady) => thread::park_timeout(PAUSE),
            // Nobody waits for the message.
            Err(ChannelError::Closed) => return Ok(()),
            result => return result,
        }
    }
    send()
}
