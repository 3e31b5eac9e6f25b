//! The loop: the monitor's messages first, then one request of each worker that has one.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::thread;

use sockbroker_sys::events::{Events, Signals};
use sockbroker_sys::prompt_close::PromptClose;
use sockbroker_sys::sealed;

use super::answer::{Outcome, answer, parts};
use super::host::Host;
use super::refusals::Refusals;
use super::workers::{InForce, Named, Worker, is_socket};
use crate::channel::{Channel, ChannelError};
use crate::message::{Build, FromOpener, ToOpener};
use crate::request::{Answer, Request};

/// The bytes of the largest principal of a worker.
const PEER: usize = 1 << 20;
/// The event of the monitor's channel. Workers have their numbers, which are larger.
const MONITOR: u64 = 0;

/// Why the opener cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{0}")]
    System(#[from] io::Error),
    #[error("{0}")]
    Host(String),
    #[error("the channel to the monitor: {0}")]
    Monitor(String),
}

type MonitorEnd = Channel<FromOpener, ToOpener>;

struct Opener<H> {
    host: H,
    monitor: MonitorEnd,
    events: Events,
    workers: BTreeMap<u64, Worker>,
    in_force: InForce,
    refusals: Refusals,
    closing: PromptClose,
}

/// Serves until the monitor ends.
pub fn run<H: Host>(channel: OwnedFd, mut host: H) -> Result<(), RunError> {
    // The monitor ends this process after the last worker, whatever the service manager sends to all processes.
    let _ignored = Signals::block()?;
    let closing = PromptClose::new()?;
    let monitor = MonitorEnd::over(channel);
    let mut events = Events::new()?;
    events.add(monitor.as_fd(), MONITOR)?;
    send(&monitor, &FromOpener::Hello(Build::OWN))?;
    let Some((generation, configuration, policy)) = begin(&monitor, &mut events)? else {
        return Ok(());
    };
    let policy = host.policy(policy).map_err(RunError::Host)?;
    let description = host.confine(configuration, &policy).map_err(RunError::Host)?;
    send(&monitor, &FromOpener::Ready(description))?;
    let opener = Opener {
        host,
        monitor,
        events,
        workers: BTreeMap::new(),
        in_force: InForce::new(policy, generation),
        refusals: Refusals::new(),
        closing,
    };
    opener.serve()
}

fn send(monitor: &MonitorEnd, message: &FromOpener) -> Result<(), RunError> {
    monitor.send(message, &[]).map_err(|error| RunError::Monitor(error.to_string()))
}

/// Waits for what the opener begins with; `None` if the monitor has ended.
fn begin(
    monitor: &MonitorEnd,
    events: &mut Events,
) -> Result<Option<(u64, OwnedFd, OwnedFd)>, RunError> {
    let mut greeted = false;
    loop {
        match monitor.receive() {
            Ok((ToOpener::Hello(build), _)) if build == Build::OWN => greeted = true,
            Ok((ToOpener::Begin { generation }, descriptors)) if greeted => {
                let [configuration, policy] = <[OwnedFd; 2]>::try_from(descriptors)
                    .map_err(|_others| RunError::Monitor("descriptors are missing".to_owned()))?;
                return Ok(Some((generation, configuration, policy)));
            }
            Ok(_) => return Err(RunError::Monitor("it is of another build".to_owned())),
            Err(ChannelError::NotReady) => drop(events.wait(None)?),
            Err(ChannelError::Closed) => return Ok(None),
            Err(error) => return Err(RunError::Monitor(error.to_string())),
        }
    }
}

impl<H: Host> Opener<H> {
    fn serve(mut self) -> Result<(), RunError> {
        loop {
            for ready in self.events.wait(None)? {
                if ready.token == MONITOR {
                    if !self.follow_monitor()? {
                        return Ok(());
                    }
                } else {
                    self.serve_one(ready.token)?;
                }
            }
        }
    }

    /// Handles what the monitor has sent. `false` if it has ended.
    fn follow_monitor(&mut self) -> Result<bool, RunError> {
        loop {
            match self.monitor.receive() {
                Ok((message, descriptors)) => {
                    self.handle(&message, descriptors)?;
                }
                Err(ChannelError::NotReady) => return Ok(true),
                Err(ChannelError::Closed) => return Ok(false),
                Err(error) => return Err(RunError::Monitor(error.to_string())),
            }
        }
    }

    fn handle(&mut self, message: &ToOpener, descriptors: Vec<OwnedFd>) -> Result<(), RunError> {
        let mut descriptors = descriptors.into_iter();
        let missing = || RunError::Monitor("a descriptor is missing".to_owned());
        match *message {
            ToOpener::Worker { worker } => {
                let (channel, peer) = (descriptors.next(), descriptors.next());
                let (channel, peer) = channel.zip(peer).ok_or_else(missing)?;
                let peer = sealed::read(peer.as_fd(), PEER)?;
                let peer = postcard::from_bytes(&peer)
                    .map_err(|error| RunError::Monitor(error.to_string()))?;
                let worker_channel = Worker::new(channel, peer);
                self.events.add(worker_channel.channel.as_fd(), worker)?;
                self.workers.insert(worker, worker_channel);
            }
            ToOpener::Accepted { worker, cookie } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.add(cookie);
                }
            }
            ToOpener::Closed { worker, cookie } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.remove(cookie);
                }
            }
            ToOpener::Ended { worker } => {
                self.forget(worker);
                send(&self.monitor, &FromOpener::Forgotten)?;
            }
            ToOpener::Policy { generation } => {
                let policy = self.host.policy(descriptors.next().ok_or_else(missing)?);
                let policy = policy.map_err(RunError::Host)?;
                self.host.replaced(&policy);
                self.in_force = InForce::new(policy, generation);
                send(&self.monitor, &FromOpener::InForce { generation })?;
            }
            ToOpener::Hello(_) | ToOpener::Begin { .. } => {
                return Err(RunError::Monitor("it began twice".to_owned()));
            }
        }
        Ok(())
    }

    /// Serves the next request of a worker.
    fn serve_one(&mut self, token: u64) -> Result<(), RunError> {
        let Some(worker) = self.workers.get(&token) else { return Ok(()) };
        let (request, descriptors) = match worker.channel.receive() {
            Ok(received) => received,
            Err(ChannelError::NotReady) => return Ok(()),
            Err(ChannelError::Closed) => {
                self.forget(token);
                return Ok(());
            }
            Err(ChannelError::Nonsense { reason, descriptors }) => {
                return self.end(token, reason, descriptors);
            }
            Err(ChannelError::LostDescriptors { descriptors, .. }) => {
                return self.end(token, "the opener cannot open more files", descriptors);
            }
            Err(ChannelError::System(error)) => {
                tracing::debug!(%error, "cannot receive from a worker");
                return self.end(token, "its channel failed", Vec::new());
            }
        };
        if !descriptors.iter().all(is_socket) {
            return self.end(token, "it sent a file in place of a socket", descriptors);
        }
        // The monitor sends a connection's cookie before the worker gets the connection.
        let (connection, _) = parts(&descriptors);
        if connection.is_some_and(|named| !self.has(token, named)) && !self.follow_monitor()? {
            return Ok(());
        }
        match self.outcome(token, request, &descriptors) {
            Outcome::Answer(answer) => self.reply(token, &answer, None, descriptors),
            Outcome::Socket(made) => self.reply(token, &Answer::Socket, Some(made), descriptors),
            Outcome::Denied(denial) => {
                self.refusals.report(token, &denial);
                self.reply(token, &Answer::Refused(denial.errno), None, descriptors)
            }
            Outcome::Nonsense(reason) => self.end(token, reason, descriptors),
        }
    }

    fn has(&self, token: u64, connection: std::os::fd::BorrowedFd<'_>) -> bool {
        self.workers.get(&token).is_some_and(|worker| worker.has(connection))
    }

    fn outcome(&mut self, token: u64, request: Request, descriptors: &[OwnedFd]) -> Outcome {
        let (Some(connection), socket) = parts(descriptors) else {
            return Outcome::Nonsense("it sent a request without a connection");
        };
        let Some(worker) = self.workers.get_mut(&token) else {
            return Outcome::Nonsense("it has ended");
        };
        match worker.rights(connection, &self.in_force) {
            Named::Connection(rights) => return answer(rights, request, socket),
            Named::HungUp => return Outcome::Answer(Answer::HungUp),
            Named::Nonsense(reason) => return Outcome::Nonsense(reason),
            Named::Unknown => {}
        }
        // The end of a connection can overtake a call on it, once in a while.
        if std::mem::replace(&mut worker.has_strayed, true) {
            return Outcome::Nonsense("it named connections that it does not have");
        }
        Outcome::Answer(Answer::HungUp)
    }

    fn reply(
        &mut self,
        token: u64,
        answer: &Answer,
        made: Option<OwnedFd>,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), RunError> {
        let Some(worker) = self.workers.get(&token) else { return Ok(()) };
        let attached: Vec<_> = made.iter().map(OwnedFd::as_fd).collect();
        let sent = worker.channel.send(answer, &attached);
        // The worker could have closed its copies meanwhile.
        self.closing.close(made.into_iter().chain(descriptors).collect());
        match sent {
            Ok(()) => Ok(()),
            Err(ChannelError::Closed) => {
                self.forget(token);
                Ok(())
            }
            Err(_) => self.end(token, "it does not read its answers", Vec::new()),
        }
    }

    /// Ends a worker that broke the rules.
    fn end(
        &mut self,
        token: u64,
        reason: &'static str,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), RunError> {
        if !descriptors.is_empty() {
            // They can be files whose file system does not answer.
            thread::spawn(move || drop(descriptors));
        }
        let uid = self.workers.get(&token).map(Worker::uid);
        tracing::error!(uid, worker = token, reason, "a worker sent nonsense to the opener");
        self.forget(token);
        send(&self.monitor, &FromOpener::Nonsense { worker: token })
    }

    fn forget(&mut self, token: u64) {
        if let Some(worker) = self.workers.remove(&token) {
            drop(self.events.remove(worker.channel.as_fd()));
            // Sockets that were not received are closed with the channel.
            self.closing.close(vec![worker.channel.into_socket()]);
        }
    }
}
