//! What a worker does from time to time, and when that rests.

use std::io;
use std::time::{Duration, Instant};

use sockbroker_monitor::message::{Query, ToMonitor};

use super::Follower;
use crate::handlers;
use crate::startup::leases;

impl Follower {
    /// Gives the monitor the counters of this worker if they have changed.
    pub(super) fn report_counters(&mut self) -> io::Result<()> {
        let page = handlers::query::answer(&self.broker, &self.methods, Query::Metrics);
        if page == self.counters { Ok(()) } else { self.send_counters(page) }
    }

    /// Asks to end after a time without connections and sessions.
    pub(super) fn check_idle(&mut self) -> io::Result<()> {
        for message in leases::unused(&self.broker) {
            self.send(message, None)?;
        }
        let longest = Duration::from_secs(self.broker.limits.worker_idle_seconds);
        self.broker.callers.end_idle(longest);
        self.broker.captures.end_idle(longest);
        let captures = self.broker.captures.has_kept();
        if self.taken == 0 && self.broker.only_awaits_clients() && !captures {
            // It was started for sessions that wait, and has done what it was started for.
            return self.send(ToMonitor::Idle { taken: self.taken }, None);
        }
        if self.open > 0 || !self.broker.is_idle() {
            self.idle_since = None;
            return Ok(());
        }
        if self.idle_since.get_or_insert_with(Instant::now).elapsed() < longest {
            return Ok(());
        }
        self.report_counters()?;
        self.send(ToMonitor::Idle { taken: self.taken }, None)
    }

    /// Whether nothing has happened since the last check, and the checks find nothing to do until something happens. The
    /// monitor has all counters then.
    pub(super) fn may_rest(&mut self) -> io::Result<bool> {
        // Without connections and sessions this process is about to end.
        let ends = self.open == 0 && !self.broker.has_opened_sessions();
        if ends || self.broker.has_periodic_work() {
            return Ok(false);
        }
        if self.broker.activity.rests() {
            self.report_counters()?;
            return Ok(true);
        }
        self.broker.activity.rest();
        Ok(false)
    }
}
