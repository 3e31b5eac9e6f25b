//! Ends what only time ends: sessions without connections, tokens of channels, counts of a minute.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use crate::observe::refusals::Reason;
use crate::principal::PrincipalKey;
use crate::session::Session;
use crate::session::broker::Broker;
use crate::session::sweeps::PAUSE;

impl Broker {
    /// Ends the sessions whose time to wait for a connection is over, and forgets what is as old as its limit.
    /// Returns when the next sweep is due; `None` if nothing waits for its time.
    pub fn sweep(&self) -> Option<Instant> {
        let mut sessions = self.lock();
        sessions.implicit.retain(|_, session| session.strong_count() > 0);
        let stopping = self.stopping.load(Ordering::Acquire);
        let is_over = |session: &Session| session.is_over() && !(stopping && session.is_kept());
        let over: Vec<_> = sessions.opened.extract_if(|_, session| is_over(session)).collect();
        let ended: Vec<_> =
            sessions.ending.extract_if(.., |session| session.tasks().running() == 0).collect();
        let next_session =
            sessions.opened.values().filter_map(|session| session.next_change()).min();
        let ending = !sessions.ending.is_empty();
        drop(sessions);
        drop(ended);
        self.refusals.sweep();
        let pending = self.channels.sweep();
        for (number, session) in over {
            tracing::debug!(session = number, uid = session.uid(), "session is over");
            self.report_session(&session, "over");
            self.end(&session);
        }
        // Tasks end by themselves, and a channel can end before its token does.
        let soon = Instant::now() + PAUSE;
        let regular = (ending || pending).then_some(soon);
        let next_count = self.refusals.next_over().map(Instant::from_std);
        let next = [next_session, next_count, regular].into_iter().flatten().min();
        next.map(|at| at.max(soon))
    }

    /// Whether a session exists that connections can find.
    pub fn has_opened_sessions(&self) -> bool {
        !self.lock().opened.is_empty()
    }

    /// Whether anything changes without a call: tasks of sessions, processes that end when they are idle, leases that
    /// are given back.
    pub fn has_periodic_work(&self) -> bool {
        self.callers.is_running()
            || self.captures.is_running()
            || self.has_leased_memory()
            || self.sessions().iter().any(|session| session.tasks().running() > 0)
            || !self.lock().ending.is_empty()
    }

    /// Writes a line about a refused connection, or counts it.
    pub fn refuse(&self, reason: Reason, principal: Option<PrincipalKey>, write: impl FnOnce()) {
        self.refusals.report(reason, principal, write);
        self.sweeps.request();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use sockbroker_policy::subject::Subject;

    use super::*;
    use crate::config::limits::Limits;
    use crate::principal::Principal;
    use crate::session::connection::{Connection, Facts, Framing};
    use crate::session::finished::LastCalls;
    use crate::session::sweeps::soon;

    fn broker(limits: Limits) -> Arc<Broker> {
        Arc::new(Broker::new(sockbroker_policy::Policy::built_in(7), limits))
    }

    fn connect(broker: &Arc<Broker>) -> Connection {
        let principal = Principal::Local(Subject::new(7, 7));
        let facts = Facts { principal, framing: Framing::Lsp, descriptors: true, stream: None };
        Connection::begin(broker, facts)
    }

    fn is_requested(broker: &Broker) -> bool {
        broker.sweeps.requested().now_or_never().is_some()
    }

    #[test]
    fn nothing_is_to_be_swept_while_every_session_has_a_connection() {
        let broker = broker(Limits::default());
        let connection = connect(&broker);
        broker.open(&connection.session(), Some(Duration::from_mins(1))).unwrap();
        assert_eq!(broker.sweep(), None);
        assert!(!is_requested(&broker));
    }

    #[test]
    fn the_end_of_a_connection_requests_the_sweep_that_ends_its_session() {
        let broker = broker(Limits { resolve_kept_seconds: 0, ..Limits::default() });
        let (connection, linger) = (connect(&broker), Duration::from_mins(1));
        broker.open(&connection.session(), Some(linger)).unwrap();
        let left = Instant::now();
        connection.end(LastCalls::default());
        assert!(is_requested(&broker));
        let due = broker.sweep().unwrap();
        assert!(due >= left + linger && due <= Instant::now() + linger, "{due:?}");
        assert!(soon(Some(due)).unwrap() < due, "a request is not delayed by what is due later");
    }

    #[test]
    fn a_recovered_session_waits_until_a_connection_uses_it() {
        let broker = broker(Limits { resolve_kept_seconds: 0, ..Limits::default() });
        let (opener, abandoned, user) = (connect(&broker), connect(&broker), connect(&broker));
        let session = opener.session();
        broker.open(&session, None).unwrap();
        // As after a recovery.
        session.expect_client(Duration::from_hours(1));
        opener.end(LastCalls::default());
        abandoned.attach(session.clone()).unwrap();
        abandoned.end(LastCalls::default());
        assert!(session.awaits_client());
        let due = broker.sweep().unwrap();
        assert!(due > Instant::now() + Duration::from_secs(50), "{due:?}");
        user.attach(session.clone()).unwrap();
        assert!(!session.awaits_client());
        session.note_use();
        user.end(LastCalls::default());
        assert!(broker.find(&token_of(&session), &user.principal().key()).is_err());
    }

    #[test]
    fn a_recovered_session_that_no_call_uses_ends_when_its_time_is_over() {
        let broker = broker(Limits { resolve_kept_seconds: 0, ..Limits::default() });
        let connection = connect(&broker);
        let session = connection.session();
        broker.open(&session, None).unwrap();
        session.expect_client(Duration::from_nanos(1));
        connection.end(LastCalls::default());
        while broker.sweep().is_some() {
            std::thread::yield_now();
        }
        assert_eq!(broker.sessions().len(), 0);
    }

    fn token_of(session: &Session) -> String {
        session.token().map(|token| token.text()).unwrap_or_default()
    }

    #[test]
    fn a_sweep_ends_sessions_whose_time_is_over_and_then_nothing_is_due() {
        let broker = broker(Limits { resolve_kept_seconds: 0, ..Limits::default() });
        let connection = connect(&broker);
        broker.open(&connection.session(), Some(Duration::from_nanos(1))).unwrap();
        connection.end(LastCalls::default());
        while broker.sweep().is_some() {
            std::thread::yield_now();
        }
        assert_eq!(broker.sessions().len(), 0);
    }

    #[test]
    fn kept_answers_and_counts_of_refusals_are_swept_when_their_time_is_over() {
        let broker = broker(Limits { resolve_kept_seconds: 3600, ..Limits::default() });
        let (first, second) = (connect(&broker), connect(&broker));
        broker.open(&first.session(), None).unwrap();
        second.attach(first.session()).unwrap();
        second.end(LastCalls::default());
        let due = broker.sweep().unwrap();
        assert!(due > Instant::now() + Duration::from_mins(59), "{due:?}");
        assert!(is_requested(&broker));
        broker.refuse(Reason::NotServed, None, || {});
        assert!(is_requested(&broker));
        assert!(broker.sweep().unwrap() < due, "the minute of the refusals is over earlier");
    }
}
