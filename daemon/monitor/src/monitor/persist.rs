//! Keeps persistent sessions for the next worker of their principal.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Instant;

use sockbroker_sys::credentials::Credentials;
use sockbroker_sys::sealed;

use super::host::{Host, Limits};
use super::keep::{CRASHES, Kept, STORE};
use super::remote::is_remote;
use super::state::{EXHAUSTED_PAUSE, Monitor};
use crate::channel::ChannelError;
use crate::message::{FromKept, KeptSession, LOTS, PersistRefusal, Persisted, ToKept, ToWorker};

/// The bytes of the description of a session without its restrictions: the path of a control group, and its unit.
const FACTS: u64 = 16 << 10;

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
                    kept.expires = Some(kept.wait_until(self.limits.reattach, self.limits.linger));
                    kept.handles = self.allowance(kept.owner.uid);
                    self.kept.insert(kept.owner.clone(), kept);
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

    /// The bytes of the descriptions and restrictions of all sessions of one principal. JSON within JSON is at most twice
    /// as long as the worker counts it.
    fn texts(&self) -> usize {
        let Limits { restriction_bytes, persistent_sessions_per_user, .. } = self.limits;
        let facts = FACTS.saturating_mul(persistent_sessions_per_user);
        let texts = restriction_bytes.saturating_mul(2).saturating_add(facts);
        usize::try_from(texts).unwrap_or(usize::MAX)
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
            (FromKept::Persist { request, session, linger_seconds }, Some(facts)) => {
                self.persist(token, (request, session, linger_seconds), facts);
            }
            (FromKept::Restricted { request, session }, Some(text)) => {
                self.restricted(token, request, session, text);
            }
            // The channel has checked that there is one.
            (FromKept::Persist { .. } | FromKept::Restricted { .. }, None) => {}
            (FromKept::Over { session }, _) => self.session_over(token, session),
            (FromKept::Recovered { sessions, handles }, _) => {
                self.recovered(token, sessions, handles);
            }
        }
    }

    /// Keeps a session of a worker. Answers once the service manager has its lots.
    fn persist(
        &mut self,
        token: u64,
        (request, number, linger_seconds): (u64, u64, u64),
        facts: OwnedFd,
    ) {
        let Some(worker) = self.workers.get(&token) else { return };
        let peer = worker.peer().clone();
        let Ok(text) = sealed::read(facts.as_fd(), self.texts()) else {
            self.reaper.close(facts);
            let reason = "it described a session by something else than memory";
            let descriptors = Vec::new();
            return self.fail(token, &ChannelError::Nonsense { reason, descriptors });
        };
        match self.keep(
            token,
            &peer,
            KeptSession { number, linger_seconds, facts: text, restrictions: Vec::new() },
        ) {
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
            known.linger_seconds = session.linger_seconds;
        } else {
            // The worker refuses it too. The numbers of remote principals change hands.
            if is_remote(peer.uid) {
                return Err(PersistRefusal::Failed(libc::EOPNOTSUPP));
            }
            let held = self.kept.get(peer).map_or(0, Kept::bytes);
            if held + session.facts.len() > self.texts() {
                return Err(PersistRefusal::Failed(libc::ENOBUFS));
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
        let serial = self.workers.get(&token).map(|worker| worker.serial).unwrap_or_default();
        let mut kept = Kept::create(name.clone(), peer.clone(), serial).map_err(failed)?;
        kept.handles = handles;
        let lots = kept.lots().map_err(failed)?;
        if self.store.keeps() {
            self.store.add(&name, kept.copies().map_err(failed)?);
            let barrier = self.store.barrier().map_err(failed)?;
            let number = self.number();
            self.events.add(barrier.as_fd(), number).map_err(failed)?;
            self.barriers.insert(number, peer.clone());
            kept.barrier = Some((barrier, Instant::now() + STORE));
        } else {
            // A service manager that does not say whether it keeps descriptors may keep them.
            self.store.add(&name, kept.copies().map_err(failed)?);
        }
        self.kept.insert(peer.clone(), kept);
        for lot in lots {
            let [read, write] = &lot;
            self.send(token, &ToWorker::Kept(ToKept::Lot), &[read, write]);
        }
        Ok(())
    }

    /// Answers what waits, unless the service manager has still to confirm that it has the lots.
    fn answer_persisted(&mut self, peer: &Credentials) {
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
        let peer = worker.peer().clone();
        let (texts, restrictions) = (self.texts(), self.limits.restrictions);
        let read = sealed::read(text.as_fd(), texts);
        let kept = self.kept.get_mut(&peer);
        let noted = kept.and_then(|kept| {
            let text = read.ok().filter(|text| kept.bytes() + text.len() <= texts)?;
            let known = kept.sessions.get_mut(&session)?;
            ((known.restrictions.len() as u64) < restrictions).then_some((known, text))
        });
        let Some((known, read)) = noted else {
            self.reaper.close(text);
            let reason = "it restricted a session that it does not have, or too often";
            let descriptors = Vec::new();
            return self.fail(token, &ChannelError::Nonsense { reason, descriptors });
        };
        known.restrictions.push(read);
        if let Some(Err(error)) = self.kept.get_mut(&peer).map(Kept::write) {
            tracing::error!(%error, "cannot keep what a session gave up");
            return self.fail(token, &ChannelError::System(error));
        }
        self.send(token, &ToWorker::Kept(ToKept::Noted { request }), &[]);
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
        let serial = worker.serial;
        let Some(kept) = self.kept.get_mut(peer) else { return };
        kept.expires = None;
        kept.crashes += 1;
        kept.serial = serial;
        kept.recovering = true;
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
        tracing::info!(uid = peer.uid, sessions, handles, "a worker has recovered sessions");
        if let Err(error) = kept.write() {
            tracing::warn!(%error, "cannot note that sessions were recovered");
        }
    }

    /// The worker of a principal has ended: what it left waits for the next one.
    pub(super) fn leave_lots(&mut self, peer: &Credentials) {
        let (reattach, longest) = (self.limits.reattach, self.limits.linger);
        let Some(kept) = self.kept.get_mut(peer) else { return };
        kept.waiting.clear();
        let uid = peer.uid;
        if kept.sessions.is_empty() {
            return self.discard_lots(peer);
        }
        if kept.recovering && kept.crashes >= CRASHES {
            let sessions = kept.sessions.len();
            tracing::error!(
                uid,
                sessions,
                "discarded sessions: three workers ended while they recovered them"
            );
            return self.discard_lots(peer);
        }
        kept.recovering = false;
        kept.expires = Some(kept.wait_until(reattach, longest));
    }

    /// Closes what lies in the lots of a principal.
    fn discard_lots(&mut self, peer: &Credentials) {
        let Some(mut kept) = self.kept.remove(peer) else { return };
        // Also if the service manager does not remove them: a later broker finds no session.
        kept.sessions.clear();
        if let Err(error) = kept.write() {
            tracing::warn!(%error, "cannot note the end of sessions");
        }
        self.store.remove(&kept.name);
        for end in kept.into_ends() {
            self.reaper.close(end);
        }
    }

    /// Discards sessions whose time is over, and answers without the service manager where it takes too long.
    pub(super) fn pass_lots_deadlines(&mut self, now: Instant) {
        if self.store.retry_at.is_some_and(|at| at <= now) {
            self.store.flush();
        }
        let over = self.kept.values().filter(|kept| kept.expires.is_some_and(|at| at <= now));
        for peer in over.map(|kept| kept.owner.clone()).collect::<Vec<_>>() {
            tracing::info!(uid = peer.uid, "closed sessions that nobody attached to");
            self.discard_lots(&peer);
        }
        let late = self.kept.values_mut();
        let late = late.filter(|kept| kept.barrier.as_ref().is_some_and(|(_, at)| *at <= now));
        let mut peers = Vec::new();
        for kept in late {
            if let Some((barrier, _)) = kept.barrier.take() {
                drop(self.events.remove(barrier.as_fd()));
            }
            tracing::warn!(
                name = kept.name,
                "the service manager does not confirm that it keeps sockets"
            );
            peers.push(kept.owner.clone());
        }
        self.barriers.retain(|_, peer| !peers.contains(peer));
        for peer in &peers {
            self.answer_persisted(peer);
        }
    }

    pub(super) fn lots_deadline(&self) -> Option<Instant> {
        let expire = self.kept.values().filter_map(|kept| kept.expires);
        let barriers = self.kept.values().filter_map(|kept| Some(kept.barrier.as_ref()?.1));
        // Not at once: what fails now fails again.
        let retry = self.store.retry_at.map(|at| at.max(Instant::now() + EXHAUSTED_PAUSE / 10));
        expire.chain(barriers).chain(retry).min()
    }
}
