//! The sessions of the broker: each begins with a connection, is opened and then found by its token, and ends.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::error::{OpError, OpResult};
use crate::principal::{Principal, PrincipalKey};
use crate::session::Session;
use crate::session::broker::Broker;
use crate::session::token::Token;

impl Broker {
    /// The session that a new connection of this principal begins in.
    pub fn begin(&self, principal: &Principal) -> Arc<Session> {
        let session = Arc::new(Session::new(self.number(), principal, &self.limits));
        self.lock().implicit.insert(session.number(), Arc::downgrade(&session));
        session
    }

    /// Every session, oldest first.
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        let sessions = self.lock();
        let implicit = sessions.implicit.values().filter_map(Weak::upgrade);
        let mut all: Vec<_> = implicit.chain(sessions.opened.values().cloned()).collect();
        drop(sessions);
        all.retain(|session| !session.is_closed());
        all.sort_unstable_by_key(|session| session.number());
        all
    }

    /// `session.open`: gives the session a token, by which other connections find it.
    pub fn open(&self, session: &Arc<Session>, linger: Option<Duration>) -> OpResult<Token> {
        let mut sessions = self.lock();
        if session.is_closed() {
            return Err(OpError::Session("the session is closed: open a new connection"));
        }
        if !sessions.opened.contains_key(&session.number()) {
            self.check_session_limits(&sessions, session.principal())?;
        }
        let token = session.open(linger)?;
        let before = sessions.opened.insert(session.number(), session.clone());
        sessions.implicit.remove(&session.number());
        drop(sessions);
        if before.is_none() {
            self.report_session(session, "opened");
        }
        Ok(token)
    }

    /// The session of a token. A wrong token and another principal's token give the same error.
    pub fn find(&self, token: &str, principal: &PrincipalKey) -> OpResult<Arc<Session>> {
        let unknown = OpError::Session(
            "no session with this token: a session belongs to one user, with its groups and network namespace",
        );
        let Some(token) = Token::parse(token) else {
            return Err(unknown);
        };
        let session = self.lock().opened.get(&token.session()).cloned();
        let valid = |session: &Arc<Session>| {
            session.principal().key() == *principal && session.accepts(&token)
        };
        session.filter(valid).ok_or(unknown)
    }

    /// Ends a session: its handles close, its tasks are aborted, its token is void.
    pub fn close(&self, session: &Arc<Session>) {
        let mut sessions = self.lock();
        sessions.implicit.remove(&session.number());
        let opened = sessions.opened.remove(&session.number()).is_some();
        drop(sessions);
        if opened {
            self.report_session(session, "closed");
        }
        self.end(session);
    }

    /// Closes a session that was removed, and keeps it until its tasks have ended. Not under the lock:
    /// closing a socket may take time.
    pub(super) fn end(&self, session: &Arc<Session>) {
        self.activity.note();
        session.close();
        if let Some(monitor) = self.monitor().filter(|_| session.is_kept()) {
            monitor.session_over(session.number());
        }
        if session.tasks().running() > 0 {
            self.lock().ending.push(session.clone());
            self.sweeps.request();
        }
    }
}
