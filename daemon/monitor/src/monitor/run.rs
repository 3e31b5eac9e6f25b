//! The loop: signals, deadlines, and what is ready.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use sockbroker_sys::events::{Handled, Ready};

use super::host::{Host, Refusal};
use super::state::{EXHAUSTED_PAUSE, GATEWAY, LISTENER, Monitor, OPENER, READER, SIGNALS};
use crate::message::ToWorker;

/// How long a worker may take to receive that the broker stops. One that runs takes it at once.
const RECEIVE: Duration = Duration::from_secs(2);

impl<H: Host> Monitor<H> {
    /// Serves until a signal, and then until the workers have ended.
    pub fn run(mut self) -> io::Result<()> {
        self.host.serving();
        let mut beat = self.host.watchdog().map(|every| (every, Instant::now()));
        loop {
            let now = Instant::now();
            if let Some((every, last)) = &mut beat
                && now.duration_since(*last) >= *every
            {
                *last = now;
                self.host.alive();
            }
            self.pass_deadlines(now);
            if let Some(reason) = self.failure {
                tracing::error!(reason, "the broker ends");
                return Err(io::Error::other(reason));
            }
            let flush_opener_at = self.flush_opener(now)?;
            let tend_gateway_at = self.tend_gateway(now);
            if self.kill_at.is_some() && self.workers.is_empty() && self.gateway_has_ended() {
                return Ok(());
            }
            let next_beat = beat.map(|(every, last)| last + every);
            let deadline = [self.next_deadline(), next_beat, flush_opener_at, tend_gateway_at];
            let deadline = deadline.into_iter().flatten().min();
            let longest = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            for ready in self.events.wait(longest)? {
                self.handle(ready)?;
            }
        }
    }

    fn handle(&mut self, ready: Ready) -> io::Result<()> {
        match ready.token {
            LISTENER => self.accept(),
            SIGNALS => self.handle_signals()?,
            READER => self.read_policy_reader(),
            OPENER => self.read_opener()?,
            GATEWAY => self.read_gateway(),
            token if self.workers.contains_key(&token) => self.receive(token),
            token if self.barriers.contains_key(&token) => self.barrier_passed(token),
            token => self.arrived(token),
        }
        Ok(())
    }

    fn handle_signals(&mut self) -> io::Result<()> {
        while let Some(signal) = self.signals.next()? {
            match signal {
                Handled::Terminate => self.stop(),
                Handled::Reload => {
                    self.host.reloading();
                    self.reload(None);
                }
                Handled::Child => self.collect(),
            }
        }
        Ok(())
    }

    /// Collects children that have ended.
    fn collect(&mut self) {
        self.reaper.collect();
        if let Some(opener) = &mut self.opener {
            opener.collect();
        }
        self.callers.collect();
        self.readers.collect();
        self.start_waiting_readers();
        // A worker that has ended has closed its channel, and is forgotten there.
        self.ending.collect();
    }

    /// Begins to stop: no new connections, and no new calls.
    fn stop(&mut self) {
        if self.kill_at.is_some() {
            return;
        }
        tracing::info!("shutting down: accepting no connections");
        self.host.stopping();
        if let Some(listener) = self.listener.take() {
            // The service manager may keep the socket, which would be ready for as long.
            drop(self.events.remove(listener.as_fd()));
            // Descriptors may be queued on connections that were not accepted.
            self.reaper.close(listener);
        }
        self.stop_gateway();
        for (_, arrival) in self.arrivals.take_all() {
            drop(self.events.remove(arrival.connection.as_fd()));
            self.reaper.close_connection(arrival.connection);
        }
        let now = Instant::now();
        self.kill_at = Some(now + self.limits.drain + Duration::from_secs(1));
        self.kill_unaware_at = Some(now + RECEIVE);
        let tokens: Vec<_> = self.workers.keys().copied().collect();
        for token in tokens {
            self.send(token, &ToWorker::Stop, &[]);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let stop = [self.kill_at, self.kill_unaware_at];
        let own = [self.accept_again, self.sweep_at, self.arrivals.next_deadline()];
        let others = [self.policies.deadline(), self.queries.deadline(), self.reaper.deadline()];
        let lots = [self.lots_deadline(), self.readers.deadline()];
        let flushes = self.workers.values().map(|worker| worker.flush_at);
        own.into_iter().chain(lots).chain(stop).chain(others).chain(flushes).flatten().min()
    }

    fn pass_deadlines(&mut self, now: Instant) {
        self.sweep_at = self.host.sweep(now);
        if self.accept_again.is_some_and(|at| at <= now) {
            self.accept_again = None;
            if let Some(listener) = &self.listener
                && let Err(error) = self.events.add(listener.as_fd(), LISTENER)
            {
                self.accept_again = Some(now + EXHAUSTED_PAUSE);
                self.refuse(Refusal::NotAccepted(error));
            }
        }
        for (_, arrival) in self.arrivals.take_overdue(now) {
            let uid = arrival.peer.uid;
            tracing::debug!(uid, "closed a connection without a first byte: detect_seconds");
            drop(self.events.remove(arrival.connection.as_fd()));
            self.reaper.close_connection(arrival.connection);
            self.release(uid, 1);
        }
        let due =
            self.workers.iter().filter(|(_, worker)| worker.flush_at.is_some_and(|at| at <= now));
        for token in due.map(|(token, _)| *token).collect::<Vec<_>>() {
            if let Some(worker) = self.workers.get_mut(&token) {
                worker.flush_at = None;
            }
            self.flush(token);
        }
        self.policy_distributed(now);
        self.finish_queries(now);
        self.reaper.retry(now);
        self.readers.kill_late(now);
        self.pass_lots_deadlines(now);
        self.kill_late_workers(now);
    }

    /// Kills workers that would delay the end of the broker.
    fn kill_late_workers(&mut self, now: Instant) {
        if self.kill_unaware_at.is_some_and(|at| at <= now) {
            self.kill_unaware_at = None;
            let Self { workers, remote, .. } = self;
            for worker in workers.values_mut().filter(|worker| worker.has_unread()) {
                let (uid, principal) = remote.named(worker.uid());
                let pid = worker.pid();
                tracing::warn!(
                    uid,
                    principal,
                    pid,
                    "killed a worker that did not receive that the broker stops"
                );
                worker.kill();
            }
        }
        if self.kill_at.is_some_and(|at| at <= now) {
            let Self { workers, remote, .. } = self;
            for worker in workers.values_mut() {
                let (uid, principal) = remote.named(worker.uid());
                let pid = worker.pid();
                tracing::warn!(
                    uid,
                    principal,
                    pid,
                    "killed a worker that did not end within drain_seconds"
                );
                worker.kill();
            }
            self.lose_gateway("the broker stops, and drain_seconds are over");
            self.kill_at = Some(now + EXHAUSTED_PAUSE);
        }
    }
}
