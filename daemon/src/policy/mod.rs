//! Stage 4: may this subject do this? Pure: no await, no I/O, no clock.
//!
//! [`Policy::ask`] is the only maker of a [`Permit`], and every operation takes one by value. The
//! permit holds the request it was given for, so what is done is what was judged.
//!
//! The built-in rule: root and the broker's own user may do everything, nobody else anything.

#![deny(clippy::wildcard_enum_match_arm)]

pub mod action;
pub mod subject;

use action::{Request, Verb};
use subject::Subject;

/// The policy in force.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The broker's own user id.
    owner: u32,
}

/// The name of the built-in rule.
pub const BUILT_IN_RULE: &str = "built-in: root and the broker's own user";

/// Proof that a request was allowed, with the request itself.
#[derive(Debug)]
#[must_use = "a permit is there to be spent on its operation"]
pub struct Permit<R> {
    request: R,
    rule: &'static str,
}

impl<R> Permit<R> {
    /// What was allowed.
    pub fn request(&self) -> &R {
        &self.request
    }

    /// Spends the permit.
    pub fn into_request(self) -> R {
        self.request
    }

    /// The rule that allowed it.
    pub fn rule(&self) -> &'static str {
        self.rule
    }
}

/// A refusal, with what would have to be granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is not granted to uid {uid}: {rule}", verb.word())]
pub struct Denial {
    /// What was asked.
    pub verb: Verb,
    /// The subject's user id.
    pub uid: u32,
    /// The rule that decided.
    pub rule: &'static str,
}

impl Policy {
    /// The built-in policy of a broker that runs as `owner`.
    pub fn built_in(owner: u32) -> Self {
        Self { owner }
    }

    /// Judges a request.
    pub fn ask<R: Request>(&self, subject: &Subject, request: R) -> Result<Permit<R>, Denial> {
        if subject.uid == 0 || subject.uid == self.owner {
            Ok(Permit { request, rule: BUILT_IN_RULE })
        } else {
            Err(Denial { verb: request.verb(), uid: subject.uid, rule: BUILT_IN_RULE })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use action::{Hostname, Resolve};

    fn subject(uid: u32) -> Subject {
        Subject::new(uid, uid)
    }

    #[test]
    fn root_and_the_owner_may_and_others_may_not() {
        let policy = Policy::built_in(970);
        assert!(policy.ask(&subject(0), Resolve).is_ok());
        assert!(policy.ask(&subject(970), Hostname).is_ok());
        let denial = policy.ask(&subject(1000), Resolve).unwrap_err();
        assert_eq!((denial.verb, denial.uid), (Verb::Resolve, 1000));
        assert!(denial.to_string().contains("resolve is not granted to uid 1000"));
    }
}
