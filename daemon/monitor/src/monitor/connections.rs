//! Connections: accepted, counted, and passed to a worker with their first byte.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use sockbroker_sys::credentials::{self, Credentials};
use sockbroker_sys::ioctl::{self, IntRequest};
use sockbroker_sys::socket;

use super::host::{Host, Refusal};
use super::remote::is_remote;
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
                Ok(peer) if is_remote(peer.uid) => {
                    self.reaper.close_connection(connection);
                    let text =
                        format!("the user id {} is reserved for remote principals", peer.uid);
                    self.refuse(Refusal::UnknownPeer(io::Error::other(text)));
                }
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
        let local = self.connections.iter().filter(|(uid, _)| !is_remote(**uid));
        let in_all: u64 = local.map(|(_, count)| count).sum();
        let exceeded = if in_all >= limits.connections + reserved {
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
        // A refusal is in the log when the client sees the end.
        drop(self.pass(number, &arrival.peer, arrival.connection));
    }

    /// Passes a connection to the worker of its principal, which is started if it does not run.
    /// Otherwise closes it, and returns why.
    pub(super) fn pass(
        &mut self,
        number: u64,
        peer: &Credentials,
        connection: OwnedFd,
    ) -> Result<(), String> {
        let uid = peer.uid;
        let refusal = match self.serving.get(peer) {
            Some(token) => Ok(*token),
            None => self.start(peer),
        };
        match refusal {
            Ok(token) => {
                let cookie = self.report_connection(token, &connection);
                let Some(worker) = self.workers.get_mut(&token) else {
                    // It was killed, because it did not take the lots of its principal.
                    self.reaper.close_connection(connection);
                    self.release(uid, 1);
                    return Err("the broker cannot start a worker".to_owned());
                };
                worker.cookies.extend(cookie.map(|cookie| (number, cookie)));
                worker.pass(number, connection);
                self.flush(token);
                Ok(())
            }
            Err(refusal) => {
                let reason = match &refusal {
                    Refusal::Limit { limit, .. } => format!("the limit {limit} is reached"),
                    _ => "the broker cannot start a worker".to_owned(),
                };
                self.refuse(refusal);
                self.reaper.close_connection(connection);
                self.release(uid, 1);
                Err(reason)
            }
        }
    }

    /// Applies the limits on workers to a start for this user. Returns the id of the worker, if workers have ids of their
    /// own.
    fn admit_start(&mut self, peer: &Credentials) -> Result<Option<WorkerId>, Refusal> {
        let uid = peer.uid;
        let limit = |limit| Refusal::Limit { uid, limit };
        // Neither remote nor local principals take the places of the others.
        let of_kind = |worker: &&Worker| is_remote(worker.uid()) == is_remote(uid);
        let count = self.workers.values().filter(of_kind).count() as u64;
        if is_remote(uid) {
            let most = self.gateway.as_ref().map_or(0, |gateway| gateway.settings.workers);
            if count >= most {
                return Err(limit("remote_workers"));
            }
        } else {
            // One place is kept for root, unless root has it already.
            let has_root = self.workers.values().any(|worker| worker.uid() == 0);
            let kept = u64::from(uid != 0 && !has_root);
            if count >= self.limits.workers.saturating_sub(kept).max(1) {
                return Err(limit("workers"));
            }
        }
        let own = self.of_account(uid, self.workers.values().map(|worker| (worker.uid(), 1)));
        if own >= self.limits.workers_per_user {
            return Err(limit("workers_per_user"));
        }
        let account = self.policies.users.accounts.of(uid);
        if !self.starts.admit(account, Instant::now()) {
            return Err(limit("worker_starts_per_second"));
        }
        if let Some(earlier) = self.earlier_id(peer) {
            return Ok(Some(earlier));
        }
        let Some(ids) = &mut self.worker_ids else { return Ok(None) };
        let ids = ids.of(uid);
        if let Some(id) = ids.take() {
            return Ok(Some(id));
        }
        // Sockets that wait lose theirs first. The claims of their principal keep others from their ports.
        self.kept.values_mut().filter(|kept| !kept.is_served).for_each(|kept| kept.id = None);
        // One that is ending may still have its id.
        ids.take().map(Some).ok_or_else(|| limit("worker_ids"))
    }

    /// Starts a worker for a principal.
    pub(super) fn start(&mut self, peer: &Credentials) -> Result<u64, Refusal> {
        let uid = peer.uid;
        let id = self.admit_start(peer)?;
        let fail = |error| Refusal::NotStarted { uid, error };
        let (policy, generation) = self.policies.in_force();
        let first_number = Worker::first_number(self.serial);
        let (activated, caller) = (self.activated, self.callers.describe(peer, id.is_some()));
        let id_number = id.as_ref().map(WorkerId::number);
        let identity = self.remote.get(uid).cloned();
        let name = identity.as_ref().map(ToString::to_string);
        let process = match &name {
            Some(name) => format!("sockbrokerd: worker ({name})"),
            None => self.policies.users.names.process_name("worker", uid),
        };
        let remote = identity.clone().map(|identity| (uid, identity));
        let epoch = self.serial + 1;
        let (id, serial) = (id, self.serial);
        let beginning =
            Beginning { generation, first_number, epoch, activated, id: id_number, caller, remote };
        let mut descriptors = vec![self.configuration.as_fd(), policy.as_fd()];
        self.next += 1;
        let token = self.next;
        let account = self.policies.users.accounts.of(uid);
        let (begin, opening) = match &mut self.opener {
            None => (ToWorker::Begin(beginning), None),
            Some(opener) => {
                let channels = opener.add_worker(token, peer, (account, identity)).map_err(fail)?;
                (ToWorker::BeginWithOpener(beginning, opener.description.clone()), Some(channels))
            }
        };
        descriptors.extend(opening.iter().flatten().map(OwnedFd::as_fd));
        let started =
            Worker::start((peer.clone(), serial, id), &process, generation, &begin, &descriptors);
        let started = started.and_then(|(worker, audit)| {
            match self.events.add(worker.channel.as_fd(), token) {
                Ok(()) => Ok((worker, audit)),
                Err(error) => {
                    let named = self.named(uid);
                    self.ending.add(worker.abandon(named).0);
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
        let (named, principal) = self.named(uid);
        tracing::debug!(uid = named, principal, pid = worker.pid(), "started a worker");
        self.workers.insert(token, worker);
        self.serving.insert(peer.clone(), token);
        self.host.audit(uid, name, audit);
        self.give_lots(token, peer);
        Ok(token)
    }
}
