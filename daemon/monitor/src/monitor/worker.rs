//! A worker as the monitor knows it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use sockbroker_sys::credentials::Credentials;
use sockbroker_sys::ioctl::{self, IntRequest};

use super::counters::End;
use super::ended::Ending;
use super::remote::Named;
use super::worker_ids::WorkerId;
use crate::channel::{Channel, ChannelError};
use crate::message::{Build, ToMonitor, ToWorker, WorkerChannel};
use crate::role::{self, Role};

/// Connections that are passed before the worker has confirmed earlier ones. More would fill its channel.
const UNCONFIRMED: usize = 32;
/// How long a connection waits that cannot be passed now.
pub(super) const RETRY: Duration = Duration::from_millis(100);
/// The numbers that one worker can give. A decimal power, so that the number of a session shows its worker.
const NUMBERS: u64 = 10_000_000_000;
/// The number of workers whose numbers are below 2^53, where the integers of JSON end.
const SERIALS: u64 = 900_000;

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Serving,
    /// It gets no further connection.
    Ending,
}

/// A worker process.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    pub(super) channel: WorkerChannel,
    peer: Credentials,
    /// Its number, in the order of the starts of all workers.
    pub(super) serial: u64,
    /// Its user id, if it is not the monitor's.
    id: Option<WorkerId>,
    state: State,
    greeted: bool,
    killed: bool,
    /// The generation of its policy.
    pub(super) in_force: u64,
    /// Connections that wait until earlier ones are confirmed.
    queued: VecDeque<(u64, OwnedFd)>,
    /// Connections that were passed and not confirmed.
    unconfirmed: BTreeMap<u64, OwnedFd>,
    /// Those of both that were passed to an earlier worker too.
    retried: BTreeSet<u64>,
    /// Connections that the worker holds.
    held: BTreeSet<u64>,
    /// The cookies of all of them, as far as the opener knows them.
    pub(super) cookies: BTreeMap<u64, u64>,
    /// Its last page of metrics.
    pub(super) page: Option<OwnedFd>,
    /// The number of connections that were passed.
    passed: u64,
    /// When to send queued connections again, after the worker could not receive one.
    pub(super) flush_at: Option<Instant>,
    /// The number of sessions that the worker can have.
    pub(super) leased: u64,
    /// The bytes of kernel memory that the worker can use.
    pub(super) leased_memory: u64,
    /// Its requests to read the policy that are not answered.
    pub(super) reloads: u64,
}

impl Worker {
    /// The first number of the worker with this serial number.
    pub(super) fn first_number(serial: u64) -> u64 {
        (serial % SERIALS) * NUMBERS + 1
    }

    /// Starts a worker, and sends what it begins with. Returns also the pipe of its audit records.
    pub(super) fn start(
        (peer, serial, id): (Credentials, u64, Option<WorkerId>),
        name: &str,
        generation: u64,
        begin: &ToWorker,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<(Self, PipeReader)> {
        let (channel, other) = Channel::pair()?;
        // A pipe, which cannot carry descriptors: closing it never waits.
        let (audit, audit_of_worker) = io::pipe()?;
        // Before the start, so that the process finds them at once.
        channel.send(&ToWorker::Hello(Build::OWN), &[]).map_err(io::Error::other)?;
        channel.send(begin, descriptors).map_err(io::Error::other)?;
        let output = Stdio::from(audit_of_worker);
        let child = role::start(Role::Worker, name, &[], other, output)?;
        let worker = Self {
            child,
            channel,
            peer,
            serial,
            id,
            state: State::Serving,
            greeted: false,
            killed: false,
            in_force: generation,
            queued: VecDeque::new(),
            unconfirmed: BTreeMap::new(),
            retried: BTreeSet::new(),
            held: BTreeSet::new(),
            cookies: BTreeMap::new(),
            page: None,
            passed: 0,
            flush_at: None,
            leased: 0,
            leased_memory: 0,
            reloads: 0,
        };
        Ok((worker, audit))
    }

    pub(super) fn uid(&self) -> u32 {
        self.peer.uid
    }

    pub(super) fn peer(&self) -> &Credentials {
        &self.peer
    }

    pub(super) fn id(&self) -> Option<&WorkerId> {
        self.id.as_ref()
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn is_serving(&self) -> bool {
        self.state == State::Serving && self.greeted
    }

    /// Compares the build of the worker with this one.
    pub(super) fn greet(&mut self, build: Build) -> Result<(), ChannelError> {
        if build != Build::OWN || self.greeted {
            let reason = "it is of another build: restart the broker after an upgrade";
            return Err(ChannelError::Nonsense { reason, descriptors: Vec::new() });
        }
        self.greeted = true;
        Ok(())
    }

    /// Adds a connection for the worker; [`Self::flush`] sends it.
    pub(super) fn pass(&mut self, number: u64, connection: OwnedFd) {
        self.queued.push_back((number, connection));
    }

    /// Notes that a connection was passed to an earlier worker: it is not passed a third time.
    pub(super) fn note_retry(&mut self, number: u64) {
        self.retried.insert(number);
    }

    /// Sends queued connections while few are unconfirmed.
    pub(super) fn flush(&mut self) -> Result<(), ChannelError> {
        while self.unconfirmed.len() < UNCONFIRMED && self.flush_at.is_none() {
            let Some((number, connection)) = self.queued.pop_front() else { break };
            match self.channel.send(&ToWorker::Connection { number }, &[connection.as_fd()]) {
                Ok(()) => {}
                // Too many descriptors of the broker's user are in flight: they can become fewer.
                Err(ChannelError::System(error))
                    if error.raw_os_error() == Some(libc::ETOOMANYREFS) =>
                {
                    self.queued.push_front((number, connection));
                    self.flush_at = Some(Instant::now() + RETRY);
                    break;
                }
                Err(error) => {
                    self.unconfirmed.insert(number, connection);
                    return Err(error);
                }
            }
            self.unconfirmed.insert(number, connection);
            self.passed += 1;
        }
        Ok(())
    }

    /// The worker holds a connection. Returns the copy here, which may be the last one by now; `None` if the worker
    /// was not passed this connection.
    pub(super) fn received(&mut self, number: u64) -> Option<OwnedFd> {
        self.retried.remove(&number);
        let copy = self.unconfirmed.remove(&number)?;
        self.held.insert(number);
        Some(copy)
    }

    /// Notes the connections that a worker reported as received before it was killed, in what was not read of it. Returns
    /// all descriptors that are to be closed.
    pub(super) fn last_received(&mut self) -> Vec<OwnedFd> {
        let mut closed = Vec::new();
        loop {
            match self.channel.receive() {
                Ok((message, descriptors)) => {
                    closed.extend(descriptors);
                    if let ToMonitor::Received { number } = message {
                        closed.extend(self.received(number));
                    }
                }
                Err(
                    ChannelError::Nonsense { descriptors, .. }
                    | ChannelError::LostDescriptors { descriptors, .. },
                ) => closed.extend(descriptors),
                Err(ChannelError::NotReady | ChannelError::Closed | ChannelError::System(_)) => {
                    return closed;
                }
            }
        }
    }

    /// The worker could not receive a connection: it is passed again after a while.
    pub(super) fn requeue(&mut self, number: u64) -> bool {
        let Some(connection) = self.unconfirmed.remove(&number) else { return false };
        self.queued.push_front((number, connection));
        self.passed -= 1;
        self.flush_at = Some(Instant::now() + RETRY);
        true
    }

    /// The worker gives sessions back.
    pub(super) fn return_sessions(&mut self, sessions: u64) {
        self.leased = self.leased.saturating_sub(sessions);
    }

    /// The worker gives kernel memory back.
    pub(super) fn return_memory(&mut self, bytes: u64) {
        self.leased_memory = self.leased_memory.saturating_sub(bytes);
    }

    /// A connection has ended.
    pub(super) fn closed(&mut self, number: u64) -> bool {
        self.held.remove(&number)
    }

    /// Whether the worker has, or is about to get, a connection.
    pub(super) fn has(&self, number: u64) -> bool {
        self.held.contains(&number) || self.unconfirmed.contains_key(&number)
    }

    /// Whether the worker, which has taken this number of connections, can end: none is on its way.
    pub(super) fn is_idle(&self, taken: u64) -> bool {
        let none = self.queued.is_empty() && self.unconfirmed.is_empty() && self.held.is_empty();
        self.state == State::Serving && none && self.passed == taken
    }

    /// Marks the worker as ending. Returns its principal.
    pub(super) fn end(&mut self) -> Credentials {
        self.state = State::Ending;
        self.peer.clone()
    }

    /// Whether the worker has not received all that was sent to it.
    pub(super) fn has_unread(&self) -> bool {
        ioctl::get_int(self.channel.as_fd(), IntRequest::Siocoutq).is_ok_and(|bytes| bytes > 0)
    }

    pub(super) fn kill(&mut self) {
        self.killed = true;
        // It may have ended already.
        drop(self.child.kill());
    }

    /// The connections that were not confirmed, and whether each was passed to an earlier worker; and the number of
    /// those that the worker held.
    pub(super) fn take_connections(&mut self) -> (Vec<(u64, OwnedFd, bool)>, u64) {
        let unconfirmed =
            std::mem::take(&mut self.unconfirmed).into_iter().chain(self.queued.drain(..));
        let unconfirmed =
            unconfirmed.map(|(number, end)| (number, end, self.retried.contains(&number)));
        let unconfirmed = unconfirmed.collect();
        (unconfirmed, std::mem::take(&mut self.held).len() as u64)
    }

    /// How it ends.
    pub(super) fn how(&self) -> End {
        match (self.killed, self.state) {
            (true, _) => End::Killed,
            (false, State::Ending) => End::Asked,
            (false, State::Serving) => End::Unexpected,
        }
    }

    /// Leaves the process, and the channel, which may hold descriptors.
    pub(super) fn abandon(mut self, named: Named) -> (Ending, OwnedFd) {
        // Without its channel it serves nobody. One that is ending already keeps its exit status.
        drop(self.child.kill());
        let unexpected = (!self.killed).then_some(named);
        (Ending { child: self.child, unexpected, id: self.id }, self.channel.into_socket())
    }
}
