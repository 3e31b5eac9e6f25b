//! Sessions that are made from another one: a clone, and the session of a child process.

use std::sync::Arc;
use std::time::Duration;

use crate::config::limits::Limits;
use crate::error::OpResult;
use crate::session::Session;
use crate::session::broker::{Broker, Sessions};
use crate::session::restriction::SessionRestriction;
use crate::session::token::Token;

impl Session {
    /// A session without handles, with the same restrictions.
    #[must_use]
    pub fn child(&self, number: u64, limits: &Limits) -> Self {
        let child = Self::new(number, &self.principal, limits);
        let restrictions = self.state().restrictions.clone();
        child.set_restrictions(restrictions);
        child
    }

    /// A session with a duplicate of every socket under the same handle. Streams stay with this session:
    /// their handles are void in the clone.
    pub fn duplicate(&self, number: u64, limits: &Limits) -> OpResult<Self> {
        let clone = self.child(number, limits);
        *clone.table() = self.table().duplicate()?;
        clone.default_timeout.set(self.default_timeout.get());
        clone.state().linger = self.linger();
        Ok(clone)
    }
}

impl Broker {
    /// `session.clone`: a session with the same handles, which waits for its first connection.
    pub fn duplicate(&self, session: &Session) -> OpResult<Token> {
        let mut sessions = self.lock();
        self.check_session_limits(&sessions, session.principal())?;
        let clone = session.duplicate(self.number(), &self.limits)?;
        session.save_handles()?;
        self.add(&mut sessions, clone, None)
    }

    /// `session.open` for a child process: a session without handles and with this restriction, which
    /// waits for its first connection.
    pub fn open_restricted(
        &self,
        parent: &Session,
        linger: Option<Duration>,
        restriction: SessionRestriction,
    ) -> OpResult<Token> {
        let mut sessions = self.lock();
        self.check_session_limits(&sessions, parent.principal())?;
        let child = parent.child(self.number(), &self.limits);
        child.restrict(restriction)?;
        self.add(&mut sessions, child, linger)
    }

    fn add(
        &self,
        sessions: &mut Sessions,
        session: Session,
        linger: Option<Duration>,
    ) -> OpResult<Token> {
        let token = session.open(linger)?;
        session.expect_connection(Duration::from_secs(self.limits.clone_seconds));
        sessions.opened.insert(session.number(), Arc::new(session));
        self.sweeps.request();
        Ok(token)
    }
}
