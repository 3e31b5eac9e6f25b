//! Opens a session: from then on other connections find it by its token.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::OpResult;
use crate::session::Session;
use crate::session::token::{KnownToken, Token};

impl Session {
    /// Whether it has a token, so that other connections can attach and ask for lost answers.
    pub fn is_open(&self) -> bool {
        self.opened.load(Ordering::Acquire)
    }

    /// The token of an open session.
    pub fn token(&self) -> Option<Token> {
        self.state().token.as_ref().and_then(KnownToken::token).cloned()
    }

    /// Whether a token is this session's.
    pub fn accepts(&self, token: &Token) -> bool {
        self.state().token.as_mut().is_some_and(|own| own.accepts(token))
    }

    /// How long handles outlive the last connection.
    pub fn linger(&self) -> Duration {
        self.state().linger
    }

    /// Opens the session: returns its token, the same each time.
    pub fn open(&self, linger: Option<Duration>) -> OpResult<Token> {
        let mut state = self.state();
        if let Some(linger) = linger {
            if state.linger != linger
                && let Some(persistence) = self.persistence()
            {
                persistence.monitor.linger(self.number, linger);
            }
            state.linger = linger;
        }
        if let Some(token) = state.token.as_ref().and_then(KnownToken::token) {
            return Ok(token.clone());
        }
        let token = Token::new(self.number)?;
        state.token = Some(KnownToken::from(token.clone()));
        self.opened.store(true, Ordering::Release);
        Ok(token)
    }
}
