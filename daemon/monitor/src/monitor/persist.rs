//! Keeps persistent sessions for the next worker of their principal.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use sockbroker_sys::credentials::Credentials;
use sockbroker_sys::{clock, sealed};

use super::host::Host;
use super::keep::{Kept, STORE, WaitTimes};
use super::remote::is_remote;
use super::state::Monitor;
use super::worker_ids::WorkerId;
use crate::channel::ChannelError;
use crate::claim::Claim;
use crate::message::{FromKept, KeptSession, LOTS, PersistRefusal, Persisted, ToKept, ToWorker};

/// The names of what is stored begin with this.
pub(super) const STORED: &str = "lots-";

impl<H: Host> Monitor<H> {
    /// Takes what an earlier broker stored. What cannot be used is discarded.
    pub(super) fn restore(&mut self, stored: Vec<(String, OwnedFd)>) {
        let mut pairs: BTreeMap<String, Vec<OwnedFd>> = BTreeMap::new();
        for (name, descriptor) in stored {
            pairs.entry(name).or_default().push(descriptor);
        }
        for (name, mut ends) in pairs {
            let number = name.strip_prefix(STORED).and_then(|number| number.parse::<u64>().ok());
            let number = number.filter(|number| *number < u64::MAX / 2);
            let kept = match (ends.pop(), ends.pop(), number) {
                (Some(first), Some(second), Some(number)) if ends.is_empty() => {
                    self.next_lots = self.next_lots.max(number + 1);
                    // Copies, because those that cannot be used are closed by the reaper.
                    let copies = (first.try_clone(), second.try_clone());
                    ends = vec![first, second];
                    match copies {
                        (Ok(first), Ok(second)) => Kept::restore(name.clone(), first, second),
                        (Err(error), _) | (_, Err(error)) => Err(error.to_string()),
                    }
                }
                (first, second, _) => {
                    ends.extend(first.into_iter().chain(second));
                    Err("there are not two ends".to_owned())
                }
            };
            match kept {
                Ok(kept) if kept.sessions.is_empty() => {
                    tracing::info!(name, "discarded stored lots without sessions");
                }
                // The numbers of remote principals are others after a restart.
                Ok(mut kept)
                    if !self.kept.contains_key(&kept.owner) && !is_remote(kept.owner.uid) =>
                {
                    let (uid, sessions) = (kept.owner.uid, kept.sessions.len());
                    tracing::info!(uid, sessions, "kept the sessions of an earlier broker");
                    self.serial = self.serial.max(kept.serial + 1);
                    kept.handles = self.allowance(kept.owner.uid);
                    self.add_restored(kept);
                    continue;
                }
                Ok(_) => tracing::warn!(name, "discarded stored sessions: their owner has others"),
                Err(reason) => tracing::warn!(name, reason, "discarded stored sessions"),
            }
            self.store.remove(&name);
            for end in ends {
                self.reaper.close(end);
            }
        }
    }

    fn add_restored(&mut self, mut kept: Kept) {
        kept.continue_waiting(self.wait_times());
        kept.number = self.number();
        for claim in &kept.claims {
            // Two principals had no claims that conflict.
            self.claims.take(kept.number, *claim);
        }
        let (ids, uid) = (self.worker_ids.as_mut(), kept.owner.uid);
        kept.id = kept.earlier_id.and_then(|id| ids?.of(uid).take_again(id));
        kept.is_stored = self.store.is_stated();
        if let Err(error) = kept.write() {
            tracing::warn!(%error, "cannot note how long sessions wait");
        }
        kept.serve_captures(Instant::now());
        self.kept.insert(kept.owner.clone(), kept);
    }

    pub(super) fn wait_times(&self) -> WaitTimes {
        WaitTimes { reattach: self.limits.reattach, longest: self.limits.linger }
    }

    /// Whether the account of a user has room for further bytes of what is kept of sessions.
    fn has_room_for(&self, uid: u32, bytes: usize) -> bool {
        let held = self.kept.values().map(|kept| (kept.owner.uid, kept.bytes()));
        let held = self.of_account(uid, held).saturating_add(bytes as u64);
        held <= self.limits.persistent_bytes_per_user
    }

    /// The number of handles that a principal may park: a part of what is left.
    fn allowance(&self, uid: u32) -> u64 {
        let parked = self.kept.values().map(|kept| (kept.owner.uid, kept.handles));
        let own = self.of_account(uid, parked.clone());
        let left = self.limits.persistent_handles.saturating_sub(parked.map(|(_, n)| n).sum());
        let own = self.limits.persistent_handles_per_user.saturating_sub(own);
        own.min((left / 4).max(1024)).min(left)
    }

    pub(super) fn answer_kept(&mut self, token: u64, message: FromKept, descriptors: Vec<OwnedFd>) {
        let memory = descriptors.into_iter().next();
        match (message, memory) {
            (FromKept::Persist { request, session, linger }, Some(facts)) => {
                self.persist(token, (request, session, linger), facts);
            }
            (FromKept::Restricted { request, session }, Some(text)) => {
                self.restricted(token, request, session, text);
            }
            // The channel has checked that there is one.
            (FromKept::Persist { .. } | FromKept::Restricted { .. }, None) => {}
            (FromKept::Linger { session, linger }, _) => {
                self.change(token, session, |session, _| session.linger = linger);
            }
            (FromKept::Attached { session, attached }, _) => {
                self.change(token, session, |session, times| {
                    session.waiting = (!attached).then(|| times.lingering(session.linger));
                });
            }
            (FromKept::Claimed { claim }, _) => self.claimed_again(token, claim),
            (FromKept::Over { session }, _) => self.session_over(token, session),
            (FromKept::Recovered { sessions, handles }, _) => {
                self.recovered(token, sessions, handles);
            }
        }
    }

    /// The lots of the principal of a worker.
    pub(super) fn kept_of(&mut self, token: u64) -> Option<&mut Kept> {
        let peer = self.workers.get(&token)?.peer();
        self.kept.get_mut(peer)
    }

    /// Changes what is kept of a session.
    fn change(
        &mut self,
        token: u64,
        session: u64,
        change: impl FnOnce(&mut KeptSession, WaitTimes),
    ) {
        let times = self.wait_times();
        let Some(kept) = self.kept_of(token) else { return };
        let Some(known) = kept.sessions.get_mut(&session) else { return };
        change(known, times);
        if let Err(error) = kept.write() {
            tracing::warn!(%error, "cannot note how long a session waits");
        }
    }

    /// Notes the claims of a worker with persistent sessions.
    pub(super) fn note_claim(&mut self, token: u64, claim: Claim, taken: bool) {
        let Some(kept) = self.kept_of(token) else { return };
        let changed = if taken { kept.claims.insert(claim) } else { kept.claims.remove(&claim) };
        if changed && let Err(error) = kept.write() {
            tracing::warn!(%error, "cannot note a claim to a port or a group");
        }
    }

    /// A socket that a worker has recovered has a claim.
    fn claimed_again(&mut self, token: u64, claim: Claim) {
        let Some(kept) = self.kept_of(token) else { return };
        if !kept.unrepeated.remove(&claim) && self.claims.take(token, claim) {
            self.note_claim(token, claim, true);
        }
    }

    /// What is kept of a session, if it is not too much. Something else than memory ends the worker.
    fn read_text(
        &mut self,
        token: u64,
        memory: OwnedFd,
    ) -> Option<Result<Vec<u8>, PersistRefusal>> {
        let most = usize::try_from(self.limits.persistent_bytes_per_user).unwrap_or(usize::MAX);
        match sealed::read(memory.as_fd(), most) {
            Ok(text) => Some(Ok(text)),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                Some(Err(PersistRefusal::Bytes))
            }
            Err(_) => {
                self.reaper.close(memory);
                let reason = "it described a session by something else than memory";
                let descriptors = Vec::new();
                self.fail(token, &ChannelError::Nonsense { reason, descriptors });
                None
            }
        }
    }

    /// Keeps a session of a worker. Answers once the service manager has its lots.
    fn persist(
        &mut self,
        token: u64,
        (request, number, linger): (u64, u64, Duration),
        facts: OwnedFd,
    ) {
        let Some(worker) = self.workers.get(&token) else { return };
        let peer = worker.peer().clone();
        let Some(text) = self.read_text(token, facts) else { return };
        let began = clock::since_boot();
        let kept = text.and_then(|facts| {
            let (waiting, restrictions) = (None, Vec::new());
            let session = KeptSession { number, linger, began, waiting, facts, restrictions };
            self.keep(token, &peer, session)
        });
        match kept {
            Ok(()) => {
                if let Some(kept) = self.kept.get_mut(&peer) {
                    kept.waiting.push((token, request));
                }
                self.answer_persisted(&peer);
            }
            Err(refusal) => {
                let result = Err(refusal);
                self.send(token, &ToWorker::Kept(ToKept::Persisted { request, result }), &[]);
            }
        }
    }

    fn keep(
        &mut self,
        token: u64,
        peer: &Credentials,
        session: KeptSession,
    ) -> Result<(), PersistRefusal> {
        let failed = |error: io::Error| {
            tracing::warn!(%error, "cannot keep a session");
            PersistRefusal::Failed(error.raw_os_error().unwrap_or(libc::EIO))
        };
        if let Some(known) =
            self.kept.get_mut(peer).and_then(|kept| kept.sessions.get_mut(&session.number))
        {
            // Its restrictions and its token stay.
            known.linger = session.linger;
        } else {
            // The worker refuses it too. The numbers of remote principals change hands.
            if is_remote(peer.uid) {
                return Err(PersistRefusal::Failed(libc::EOPNOTSUPP));
            }
            if !self.has_room_for(peer.uid, session.facts.len()) {
                return Err(PersistRefusal::Bytes);
            }
            let counts =
                self.kept.values().map(|kept| (kept.owner.uid, kept.sessions.len() as u64));
            if self.of_account(peer.uid, counts.clone()) >= self.limits.persistent_sessions_per_user
            {
                return Err(PersistRefusal::SessionsOfUser);
            }
            if counts.map(|(_, sessions)| sessions).sum::<u64>() >= self.limits.persistent_sessions
            {
                return Err(PersistRefusal::Sessions);
            }
            if !self.kept.contains_key(peer) {
                self.make_lots(token, peer)?;
            }
            if let Some(kept) = self.kept.get_mut(peer) {
                kept.sessions.insert(session.number, session);
            }
        }
        let Some(kept) = self.kept.get_mut(peer) else { return Ok(()) };
        kept.write().map_err(failed)
    }

    /// Makes the lots of a principal, passes them to its worker, and stores them.
    fn make_lots(&mut self, token: u64, peer: &Credentials) -> Result<(), PersistRefusal> {
        let failed = |error: io::Error| {
            tracing::warn!(%error, "cannot make lots for sessions");
            PersistRefusal::Failed(error.raw_os_error().unwrap_or(libc::EIO))
        };
        let handles = self.allowance(peer.uid);
        // The ends of the lots are in flight (`unix(7)`), which the open files of this process limit too.
        let principals = self.kept.len() as u64 + 1;
        if handles == 0 || principals * LOTS > self.limits.persistent_handles {
            return Err(PersistRefusal::Handles);
        }
        let name = format!("{STORED}{}", self.next_lots);
        self.next_lots += 1;
        let number = self.number();
        let worker = self.workers.get(&token);
        let serial = worker.map(|worker| worker.serial).unwrap_or_default();
        let captures = self.readers.take_lot(token).map_err(failed)?;
        let mut kept =
            Kept::create(name.clone(), peer.clone(), serial, captures).map_err(failed)?;
        (kept.handles, kept.number, kept.is_served) = (handles, number, true);
        kept.id = worker.and_then(|worker| worker.id().cloned());
        kept.claims = self.claims.of(token).collect();
        let lots = kept.lots().map_err(failed)?;
        if self.store.has_room() {
            self.store.add(&name, kept.copies().map_err(failed)?);
        }
        if self.store.has_stored(&name) && self.store.is_stated() {
            let barrier = self.store.barrier().map_err(failed)?;
            let number = self.number();
            self.events.add(barrier.as_fd(), number).map_err(failed)?;
            self.barriers.insert(number, peer.clone());
            kept.barrier = Some((barrier, Instant::now() + STORE));
        }
        self.kept.insert(peer.clone(), kept);
        for lot in lots {
            let [read, write] = &lot;
            self.send(token, &ToWorker::Kept(ToKept::Lot), &[read, write]);
        }
        Ok(())
    }

    /// Answers what waits, unless the service manager has still to confirm that it has the lots.
    pub(super) fn answer_persisted(&mut self, peer: &Credentials) {
        let Some(kept) = self.kept.get_mut(peer).filter(|kept| kept.barrier.is_none()) else {
            return;
        };
        let result = Ok(Persisted { handles: kept.handles, service: kept.is_stored });
        for (token, request) in std::mem::take(&mut kept.waiting) {
            self.send(token, &ToWorker::Kept(ToKept::Persisted { request, result }), &[]);
        }
    }

    /// The service manager has handled what was stored.
    pub(super) fn barrier_passed(&mut self, number: u64) {
        let Some(peer) = self.barriers.remove(&number) else { return };
        if let Some(kept) = self.kept.get_mut(&peer)
            && let Some((barrier, _)) = kept.barrier.take()
        {
            drop(self.events.remove(barrier.as_fd()));
            kept.is_stored = true;
        }
        self.answer_persisted(&peer);
    }

    /// Notes what a session gave up.
    fn restricted(&mut self, token: u64, request: u64, session: u64, text: OwnedFd) {
        let Some(worker) = self.workers.get(&token) else { return };
        let uid = worker.uid();
        let Some(text) = self.read_text(token, text) else { return };
        let text = text.and_then(|text| {
            self.has_room_for(uid, text.len()).then_some(text).ok_or(PersistRefusal::Bytes)
        });
        let result = match text {
            Ok(text) => {
                let restrictions = self.limits.restrictions;
                let known = self.kept_of(token).and_then(|kept| kept.sessions.get_mut(&session));
                let known = known.filter(|known| (known.restrictions.len() as u64) < restrictions);
                let Some(known) = known else {
                    let reason = "it restricted a session that it does not have, or too often";
                    let descriptors = Vec::new();
                    return self.fail(token, &ChannelError::Nonsense { reason, descriptors });
                };
                known.restrictions.push(text);
                if let Some(Err(error)) = self.kept_of(token).map(Kept::write) {
                    tracing::error!(%error, "cannot keep what a session gave up");
                    return self.fail(token, &ChannelError::System(error));
                }
                Ok(())
            }
            Err(refusal) => Err(refusal),
        };
        self.send(token, &ToWorker::Kept(ToKept::Noted { request, result }), &[]);
    }

    /// A session has ended.
    fn session_over(&mut self, token: u64, session: u64) {
        let Some(peer) = self.workers.get(&token).map(|worker| worker.peer().clone()) else {
            return;
        };
        let Some(kept) = self.kept.get_mut(&peer) else { return };
        if kept.sessions.remove(&session).is_some()
            && let Err(error) = kept.write()
        {
            // The lots have no sockets of it: a later worker finds nothing to recover.
            tracing::warn!(%error, "cannot note the end of a session");
        }
    }

    /// Gives a new worker the lots of its principal.
    pub(super) fn give_lots(&mut self, token: u64, peer: &Credentials) {
        let Some(worker) = self.workers.get(&token) else { return };
        let (serial, id) = (worker.serial, worker.id().cloned());
        let Some(kept) = self.kept.get_mut(peer) else { return };
        kept.crashes += 1;
        (kept.serial, kept.id, kept.judgement) = (serial, id, None);
        (kept.is_served, kept.recovering) = (true, true);
        self.claims.pass(kept.number, token);
        kept.unrepeated.clone_from(&kept.claims);
        let written = kept.write();
        let (lots, index) = (kept.lots(), kept.index_memory());
        let persisted = Persisted { handles: kept.handles, service: kept.is_stored };
        match (written, lots, index) {
            (Ok(()), Ok(lots), Ok(index)) => {
                for lot in lots {
                    let [read, write] = &lot;
                    self.send(token, &ToWorker::Kept(ToKept::Lot), &[read, write]);
                }
                self.send(token, &ToWorker::Kept(ToKept::Recover(persisted)), &[&index]);
            }
            (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
                tracing::error!(uid = peer.uid, %error, "cannot pass sessions to a worker");
                self.fail(token, &ChannelError::System(error));
            }
        }
    }

    /// A worker has recovered the sessions of its principal.
    fn recovered(&mut self, token: u64, sessions: u64, handles: u64) {
        let Some(peer) = self.workers.get(&token).map(|worker| worker.peer().clone()) else {
            return;
        };
        let Some(kept) = self.kept.get_mut(&peer) else { return };
        (kept.recovering, kept.crashes) = (false, 0);
        for claim in std::mem::take(&mut kept.unrepeated) {
            kept.claims.remove(&claim);
            self.claims.end(token, claim);
        }
        tracing::info!(uid = peer.uid, sessions, handles, "a worker has recovered sessions");
        if let Err(error) = kept.write() {
            tracing::warn!(%error, "cannot note that sessions were recovered");
        }
    }

    /// The id of the worker that had the lots of a principal: only a process with this id can share the ports of its
    /// sockets.
    pub(super) fn earlier_id(&self, peer: &Credentials) -> Option<WorkerId> {
        self.kept.get(peer).filter(|kept| !kept.is_served)?.id.clone()
    }
}
