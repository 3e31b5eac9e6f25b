//! A worker as the monitor knows it.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use sockbroker_sys::credentials::Credentials;

use crate::channel::{Channel, ChannelError};
use crate::claim::Claim;
use crate::message::{Build, ToWorker, WorkerChannel};
use crate::role::{self, Role};

/// Connections that are passed before the worker has taken earlier ones. More would fill its channel.
const UNTAKEN: usize = 32;
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
    state: State,
    greeted: bool,
    killed: bool,
    /// The generation of its policy.
    pub(super) in_force: u64,
    /// Connections that wait until earlier ones are taken.
    queued: VecDeque<(u64, OwnedFd)>,
    /// Connections that were passed and not taken.
    untaken: BTreeMap<u64, OwnedFd>,
    /// Those of both that were passed to an earlier worker too.
    again: BTreeSet<u64>,
    /// Connections that the worker holds.
    taken: BTreeSet<u64>,
    /// The number of connections that were passed.
    passed: u64,
    /// When to send queued connections again, after the worker could not receive one.
    pub(super) flush_at: Option<Instant>,
    /// The number of sessions that the worker can have.
    pub(super) leased: u64,
    pub(super) claims: HashSet<Claim>,
}

/// A process whose worker is forgotten and that has not been waited for.
#[derive(Debug)]
struct Ending {
    child: Child,
    uid: u32,
    /// Whether the monitor has ended it.
    expected: bool,
}

static ENDING: Mutex<Vec<Ending>> = Mutex::new(Vec::new());

/// Waits for processes of forgotten workers that have ended.
pub(super) fn collect_ended() {
    let mut ending = ENDING.lock().unwrap_or_else(PoisonError::into_inner);
    ending.retain_mut(|process| !process.has_ended());
}

impl Ending {
    /// Whether the process has ended; an end of its own is logged.
    fn has_ended(&mut self) -> bool {
        let (uid, pid) = (self.uid, self.child.id());
        match self.child.try_wait() {
            Ok(None) => return false,
            Ok(Some(status)) if self.expected || status.success() => {}
            Ok(Some(status)) => {
                tracing::warn!(uid, pid, %status, "a worker ended; its sockets are closed");
            }
            Err(error) => tracing::error!(uid, pid, %error, "cannot wait for a worker"),
        }
        true
    }
}

impl Worker {
    /// The first number of the worker with this serial number.
    pub(super) fn first_number(serial: u64) -> u64 {
        (serial % SERIALS) * NUMBERS + 1
    }

    /// Starts a worker, and sends what it begins with. Returns also the pipe of its audit records.
    pub(super) fn start(
        peer: Credentials,
        generation: u64,
        begin: &ToWorker,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<(Self, PipeReader)> {
        let (channel, other) = Channel::pair()?;
        // A pipe, which cannot carry descriptors: closing it never waits.
        let (audit, audit_of_worker) = io::pipe()?;
        let name = format!("sockbrokerd: worker (uid {})", peer.uid);
        // Before the start, so that the process finds them at once.
        channel.send(&ToWorker::Hello(Build::OWN), &[]).map_err(io::Error::other)?;
        channel.send(begin, descriptors).map_err(io::Error::other)?;
        let output = Stdio::from(audit_of_worker);
        let child = role::start(Role::Worker, &name, &[], other, output)?;
        let worker = Self {
            child,
            channel,
            peer,
            state: State::Serving,
            greeted: false,
            killed: false,
            in_force: generation,
            queued: VecDeque::new(),
            untaken: BTreeMap::new(),
            again: BTreeSet::new(),
            taken: BTreeSet::new(),
            passed: 0,
            flush_at: None,
            leased: 0,
            claims: HashSet::new(),
        };
        Ok((worker, audit))
    }

    pub(super) fn uid(&self) -> u32 {
        self.peer.uid
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
    pub(super) fn passed_again(&mut self, number: u64) {
        self.again.insert(number);
    }

    /// Sends queued connections while few are untaken.
    pub(super) fn flush(&mut self) -> Result<(), ChannelError> {
        while self.untaken.len() < UNTAKEN && self.flush_at.is_none() {
            let Some((number, connection)) = self.queued.pop_front() else { break };
            let sent = self.channel.send(&ToWorker::Connection { number }, &[connection.as_fd()]);
            self.untaken.insert(number, connection);
            sent?;
            self.passed += 1;
        }
        Ok(())
    }

    /// The worker holds a connection. Returns the copy here, which may be the last one by now; `None` if the worker
    /// was not passed this connection.
    pub(super) fn taken(&mut self, number: u64) -> Option<OwnedFd> {
        self.again.remove(&number);
        let copy = self.untaken.remove(&number)?;
        self.taken.insert(number);
        Some(copy)
    }

    /// The worker could not receive a connection: it is passed again after a while.
    pub(super) fn not_taken(&mut self, number: u64, again_at: Instant) -> bool {
        let Some(connection) = self.untaken.remove(&number) else { return false };
        self.queued.push_front((number, connection));
        self.passed -= 1;
        self.flush_at = Some(again_at);
        true
    }

    /// A connection has ended.
    pub(super) fn closed(&mut self, number: u64) -> bool {
        self.taken.remove(&number)
    }

    /// Whether the worker, which has taken this number of connections, can end: none is on its way.
    pub(super) fn is_idle(&self, taken: u64) -> bool {
        let none = self.queued.is_empty() && self.untaken.is_empty() && self.taken.is_empty();
        self.state == State::Serving && none && self.passed == taken
    }

    /// Marks the worker as ending. Returns its principal.
    pub(super) fn end(&mut self) -> Credentials {
        self.state = State::Ending;
        self.peer.clone()
    }

    pub(super) fn kill(&mut self) {
        self.killed = true;
        // It may have ended already.
        drop(self.child.kill());
    }

    /// The connections that were not taken, and whether each was passed to an earlier worker; and the number of
    /// those that the worker held.
    pub(super) fn take_connections(&mut self) -> (Vec<(u64, OwnedFd, bool)>, u64) {
        let untaken = std::mem::take(&mut self.untaken).into_iter().chain(self.queued.drain(..));
        let untaken = untaken.map(|(number, end)| (number, end, self.again.contains(&number)));
        let untaken = untaken.collect();
        (untaken, std::mem::take(&mut self.taken).len() as u64)
    }

    /// Leaves the process to [`collect_ended`]. Returns the channel, which may hold descriptors.
    pub(super) fn abandon(mut self) -> OwnedFd {
        // Without its channel it serves nobody. One that is ending already keeps its exit status.
        drop(self.child.kill());
        let (uid, expected) = (self.uid(), self.killed);
        let mut ending = Ending { child: self.child, uid, expected };
        if !ending.has_ended() {
            ENDING.lock().unwrap_or_else(PoisonError::into_inner).push(ending);
        }
        self.channel.into_socket()
    }
}
