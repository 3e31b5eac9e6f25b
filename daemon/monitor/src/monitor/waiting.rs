//! Persistent sessions that no worker has: how long they wait, and when a worker is started for them without a
//! connection.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use sockbroker_sys::credentials::Credentials;
use sockbroker_sys::{clock, sealed};

use super::host::Host;
use super::keep::{CRASHES, JUDGE, Judgement, Kept, WaitTimes};
use super::state::{EXHAUSTED_PAUSE, Monitor};
use super::worker::Worker;
use crate::message::{KeptSession, ToKept, ToWorker, WaitingSession};

/// When to try again to start a worker for sessions.
const START_AGAIN: Duration = Duration::from_secs(1);
/// Workers that are started for sessions in one turn of the loop.
const AT_ONCE: usize = 4;

impl<H: Host> Monitor<H> {
    /// Whether sessions of a principal are kept, so that its sockets stay when its worker ends.
    pub(super) fn keeps_sessions(&self, peer: &Credentials) -> bool {
        self.kept.get(peer).is_some_and(|kept| !kept.sessions.is_empty())
    }

    /// The claims of a worker that ends stay with the sockets that it leaves.
    pub(super) fn leave_claims(&mut self, token: u64, peer: &Credentials) {
        match self.kept.get(peer).filter(|_| self.keeps_sessions(peer)) {
            Some(kept) => self.claims.pass(token, kept.number),
            None => self.claims.end_all(token),
        }
    }

    /// The worker of a principal has ended: what it left waits for the next one.
    pub(super) fn leave_lots(&mut self, peer: &Credentials) {
        let times = self.wait_times();
        let Some(kept) = self.kept.get_mut(peer) else { return };
        kept.waiting.clear();
        kept.is_served = false;
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
        kept.begin_waiting(times);
        if let Err(error) = kept.write() {
            tracing::warn!(%error, "cannot note how long sessions wait");
        }
        kept.serve_captures(Instant::now());
    }

    /// Closes what lies in the lots of a principal.
    fn discard_lots(&mut self, peer: &Credentials) {
        let Some(mut kept) = self.kept.remove(peer) else { return };
        // Also if the service manager does not remove them: a later broker finds no session.
        kept.sessions.clear();
        if let Err(error) = kept.write() {
            tracing::warn!(%error, "cannot note the end of sessions");
        }
        self.claims.end_all(kept.number);
        self.store.remove(&kept.name);
        for end in kept.into_ends() {
            self.reaper.close(end);
        }
    }

    /// A new policy is in force: a worker judges the sessions that wait.
    pub(super) fn judge_waiting(&mut self) {
        let now = Instant::now();
        for kept in self.kept.values_mut().filter(|kept| !kept.is_served) {
            kept.judge(now);
        }
    }

    /// Discards sessions whose time is over, and starts workers for what is left.
    pub(super) fn pass_lots_deadlines(&mut self, now: Instant) {
        if self.store.retry_at.is_some_and(|at| at <= now) {
            self.store.flush();
        }
        let over = self.kept.values().filter(|kept| kept.has_expired());
        for peer in over.map(|kept| kept.owner.clone()).collect::<Vec<_>>() {
            self.expire(&peer, now);
        }
        let due = |kept: &&Kept| kept.judgement.is_some_and(|judgement| judgement.at <= now);
        let due = self.kept.values().filter(due).take(AT_ONCE);
        for peer in due.map(|kept| kept.owner.clone()).collect::<Vec<_>>() {
            self.start_judge(&peer, now);
        }
        self.pass_barriers(now);
    }

    /// Ends the sessions of a principal that have waited long enough. Their sockets lie among those of the others: a
    /// worker takes them out.
    fn expire(&mut self, peer: &Credentials, now: Instant) {
        let Some(kept) = self.kept.get_mut(peer) else { return };
        let sessions = kept.expire();
        if sessions == 0 {
            return;
        }
        tracing::info!(uid = peer.uid, sessions, "closed sessions that nobody attached to");
        if kept.sessions.is_empty() {
            return self.discard_lots(peer);
        }
        if let Err(error) = kept.write() {
            tracing::warn!(%error, "cannot note the end of sessions");
        }
        kept.judge(now);
    }

    /// Starts a worker that judges the sessions of a principal. If that is not possible for a while, discards them: no
    /// socket outlives its grant.
    fn start_judge(&mut self, peer: &Credentials, now: Instant) {
        if self.kill_at.is_some() {
            // The next broker judges them at its start.
            if let Some(kept) = self.kept.get_mut(peer) {
                kept.judgement = None;
            }
            return;
        }
        let Err(refusal) = self.start(peer) else { return };
        let Some(kept) = self.kept.get_mut(peer) else { return };
        let uid = peer.uid;
        match &mut kept.judgement {
            Some(judgement) if judgement.last.is_none_or(|last| last > now) => {
                tracing::debug!(uid, ?refusal, "cannot start a worker for sessions yet");
                judgement.at = now + START_AGAIN;
            }
            Some(_) | None => {
                let sessions = kept.sessions.len();
                tracing::error!(
                    uid,
                    sessions,
                    ?refusal,
                    "discarded sessions: no worker could be started that judges them by the policy in force"
                );
                self.discard_lots(peer);
            }
        }
    }

    /// Answers without the service manager where it takes too long.
    fn pass_barriers(&mut self, now: Instant) {
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
        let expire = self.kept.values().filter_map(Kept::expires);
        let barriers = self.kept.values().filter_map(|kept| Some(kept.barrier.as_ref()?.1));
        let judge = self.kept.values().filter_map(|kept| Some(kept.judgement?.at));
        // Not at once: what fails now fails again.
        let retry = self.store.retry_at.map(|at| at.max(Instant::now() + EXHAUSTED_PAUSE / 10));
        expire.chain(barriers).chain(judge).chain(retry).min()
    }

    /// Sends the sessions whose worker does not list them, for the list of all: they have none, or it is about to begin or
    /// to end.
    pub(super) fn send_waiting(&mut self, asker: u64, request: u64) {
        let times = self.wait_times();
        let workers = self.workers.values().filter(|worker| worker.is_serving());
        let serving: Vec<_> = workers.map(Worker::peer).collect();
        let waiting = self.kept.values().filter(|kept| !serving.contains(&&kept.owner));
        let waiting: Vec<_> = waiting.flat_map(|kept| summaries(kept, times)).collect();
        let memory = postcard::to_stdvec(&waiting).map_err(io::Error::other);
        match memory.and_then(|bytes| sealed::create("waiting", &bytes)) {
            Ok(memory) => {
                self.send(asker, &ToWorker::Kept(ToKept::Waiting { request }), &[&memory]);
            }
            Err(error) => tracing::warn!(%error, "cannot list the sessions that wait"),
        }
    }
}

impl Kept {
    fn judge(&mut self, now: Instant) {
        let judgement = self.judgement.get_or_insert(Judgement { at: now, last: None });
        judgement.last.get_or_insert(now + JUDGE);
    }

    /// Wants a worker if captures wait for one: their rings fill.
    pub(super) fn serve_captures(&mut self, now: Instant) {
        match self.captures.is_empty() {
            Ok(true) => {}
            Ok(false) => {
                self.judgement.get_or_insert(Judgement { at: now, last: None });
            }
            Err(error) => tracing::warn!(%error, "cannot find captures that wait for a worker"),
        }
    }
}

fn summaries(kept: &Kept, times: WaitTimes) -> Vec<WaitingSession> {
    let now = clock::since_boot();
    let parked = kept.parked().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot count the handles of sessions that wait");
        BTreeMap::new()
    });
    let summary = |session: &KeptSession| {
        // As when its worker ends.
        let waiting = session.waiting.unwrap_or_else(|| times.from(now, session.linger));
        WaitingSession {
            number: session.number,
            uid: kept.owner.uid,
            linger: session.linger,
            age: now.saturating_sub(session.began),
            since: now.saturating_sub(waiting.since),
            until: waiting.until.saturating_sub(now),
            handles: parked.get(&session.number).copied().unwrap_or_default(),
            is_stored: kept.is_stored,
        }
    };
    kept.sessions.values().map(summary).collect()
}
