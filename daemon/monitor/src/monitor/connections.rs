//! Connections: accepted, counted, and passed to a worker with their first byte.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use sockbroker_sys::credentials::{self, Credentials};
use sockbroker_sys::ioctl::{self, IntRequest};
use sockbroker_sys::socket;

use super::host::{Host, Refusal};
use super::state::{AT_ONCE, EXHAUSTED_PAUSE, Monitor, reserved};
use super::worker::Worker;
use super::worker_ids::WorkerId;
use crate::message::{Beginning, ToWorker};

/// Whether the peer has closed a connection before it was accepted, or a signal came.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted)
}

/// The number of bytes that a peer has sent.
fn queued(connection: &OwnedFd) -> i32 {
    // One that cannot be examined is the worker's to handle.
    ioctl::get_int(connection.as_fd(), IntRequest::Fionread).unwrap_or(1)
}

impl<H: Host> Monitor<H> {
    /// Accepts connections, and identifies their peers.
    pub(super) fn accept(&mut self) {
        for _ in 0..AT_ONCE {
            let Some(listener) = &self.listener else { return };
            let connection = match socket::accept_without_name(listener.as_fd()) {
                Ok((connection, _)) => connection,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_gone(&error) => continue,
                Err(error) => {
                    // The next try would fail at once.
                    drop(self.events.remove(listener.as_fd()));
                    self.accept_again = Some(Instant::now() + EXHAUSTED_PAUSE);
                    return self.refuse(Refusal::NotAccepted(error));
                }
            };
            match credentials::of_peer(connection.as_fd()) {
                Ok(peer) => self.admit(connection, peer),
                Err(error) => {
                    self.reaper.close_connection(connection);
                    self.refuse(Refusal::UnknownPeer(error));
                }
            }
        }
    }

    /// Counts a connection, and waits for its first byte.
    pub(super) fn admit(&mut self, connection: OwnedFd, peer: Credentials) {
        let uid = peer.uid;
        let limits = &self.limits;
        let reserved = reserved(uid, limits.connections_reserved);
        let own: u64 =
            self.of_account(uid, self.connections.iter().map(|(uid, count)| (*uid, *count)));
        let exceeded = if self.connections.values().sum::<u64>() >= limits.connections + reserved {
            Some("connections")
        } else if own >= limits.connections_per_user {
            Some("connections_per_user")
        } else {
            None
        };
        if let Some(limit) = exceeded {
            self.refuse(Refusal::Limit { uid, limit });
            return self.reaper.close_connection(connection);
        }
        let number = self.number();
        if let Err(error) = self.events.add(connection.as_fd(), number) {
            self.reaper.close_connection(connection);
            return self.refuse(Refusal::NotAccepted(error));
        }
        *self.connections.entry(uid).or_default() += 1;
        self.arrivals.add(number, connection, peer, Instant::now() + self.limits.detect);
    }

    /// The sum of the counts of the users that count for the same account as this one.
    pub(super) fn of_account(&self, uid: u32, counts: impl Iterator<Item = (u32, u64)>) -> u64 {
        let accounts = &self.policies.users.accounts;
        let account = accounts.of(uid);
        counts.filter(|(uid, _)| accounts.of(*uid) == account).map(|(_, count)| count).sum()
    }

    /// Passes a connection that has its first byte, or that its peer has closed.
    pub(super) fn arrived(&mut self, number: u64) {
        let Some(arrival) = self.arrivals.take(number) else { return };
        drop(self.events.remove(arrival.connection.as_fd()));
        if queued(&arrival.connection) == 0 {
            // Its peer will send nothing: no worker is started for it.
            self.reaper.close_connection(arrival.connection);
            return self.release(arrival.peer.uid, 1);
        }
        self.pass(number, &arrival.peer, arrival.connection);
    }

    /// Passes a connection to the worker of its principal, which is started if it does not run.
    pub(super) fn pass(&mut self, number: u64, peer: &Credentials, connection: OwnedFd) {
        let uid = peer.uid;
        let refusal = match self.serving.get(peer) {
            Some(token) => Ok(*token),
            None => self.start(peer),
        };
        match refusal {
            Ok(token) => {
                let cookie = self.report_connection(token, &connection);
                if let Some(worker) = self.workers.get_mut(&token) {
                    worker.cookies.extend(cookie.map(|cookie| (number, cookie)));
                    worker.pass(number, connection);
                    self.flush(token);
                }
            }
            Err(refusal) => {
                // The reason is in the log when the client sees the end.
                self.refuse(refusal);
                self.reaper.close_connection(connection);
                self.release(uid, 1);
            }
        }
    }

    /// Applies the limits on workers to a start for this user. Returns the id of the worker, if workers have ids of their
    /// own.
    fn admit_start(&mut self, uid: u32) -> Result<Option<WorkerId>, Refusal> {
        let limit = |limit| Refusal::Limit { uid, limit };
        // One place is kept for root, unless root has it already.
        let has_root = self.workers.values().any(|worker| worker.uid() == 0);
        let kept = u64::from(uid != 0 && !has_root);
        if self.workers.len() as u64 >= self.limits.workers.saturating_sub(kept).max(1) {
            return Err(limit("workers"));
        }
        let own = self.of_account(uid, self.workers.values().map(|worker| (worker.uid(), 1)));
        if own >= self.limits.workers_per_user {
            return Err(limit("workers_per_user"));
        }
        let account = self.policies.users.accounts.of(uid);
        if !self.starts.admit(account, Instant::now()) {
            return Err(limit("worker_starts_per_second"));
        }
        match &mut self.worker_ids {
            // One that is ending may still have its id.
            Some(ids) => ids.take().map(Some).ok_or_else(|| limit("worker_ids")),
            None => Ok(None),
        }
    }

    /// Starts a worker for a principal.
    pub(super) fn start(&mut self, peer: &Credentials) -> Result<u64, Refusal> {
        let uid = peer.uid;
        let id = self.admit_start(uid)?;
        let fail = |error| Refusal::NotStarted { uid, error };
        let (policy, generation) = self.policies.in_force();
        let first_number = Worker::first_number(self.serial);
        let (activated, caller) = (self.activated, self.callers.describe(peer, id.is_some()));
        let id_number = id.as_ref().map(WorkerId::number);
        let beginning = Beginning { generation, first_number, activated, id: id_number, caller };
        let mut descriptors = vec![self.configuration.as_fd(), policy.as_fd()];
        self.next += 1;
        let token = self.next;
        let account = self.policies.users.accounts.of(uid);
        let (begin, opening) = match &mut self.opener {
            None => (ToWorker::Begin(beginning), None),
            Some(opener) => {
                let channels = opener.add_worker(token, peer, account).map_err(fail)?;
                (ToWorker::BeginWithOpener(beginning, opener.description.clone()), Some(channels))
            }
        };
        descriptors.extend(opening.iter().flatten().map(OwnedFd::as_fd));
        let name = self.policies.users.names.process_name("worker", uid);
        let started = Worker::start((peer.clone(), id), &name, generation, &begin, &descriptors);
        let started = started.and_then(|(worker, audit)| {
            match self.events.add(worker.channel.as_fd(), token) {
                Ok(()) => Ok((worker, audit)),
                Err(error) => {
                    self.ending.add(worker.abandon().0);
                    Err(error)
                }
            }
        });
        let (worker, audit) = match started {
            Ok(started) => started,
            Err(error) => {
                if let Some(opener) = &mut self.opener {
                    opener.end_worker(token);
                }
                return Err(fail(error));
            }
        };
        self.serial += 1;
        self.counters.started();
        tracing::debug!(uid, pid = worker.pid(), "started a worker");
        self.workers.insert(token, worker);
        self.serving.insert(peer.clone(), token);
        self.host.audit(uid, audit);
        Ok(token)
    }
}
