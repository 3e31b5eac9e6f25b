//! Principals: who calls, and the key under which the broker counts what belongs to a caller.

use std::fmt;
use std::sync::Arc;

use sockbroker_policy::subject::{RemoteIdentity, Subject};

/// A caller, fixed when its connection was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A process on this machine, as the kernel described it.
    Local(Subject),
    /// A client on another machine, by the names of its certificate.
    Certificate(Subject),
    /// A client on another machine, by the name of its token.
    Token(Subject),
}

impl From<Subject> for Principal {
    fn from(subject: Subject) -> Self {
        match subject.remote.as_deref() {
            None => Self::Local(subject),
            Some(RemoteIdentity::Certificate { .. }) => Self::Certificate(subject),
            Some(RemoteIdentity::Token { .. }) => Self::Token(subject),
        }
    }
}

impl Principal {
    /// The key of this principal.
    pub fn key(&self) -> PrincipalKey {
        let subject = self.subject();
        match &subject.remote {
            None => PrincipalKey::of_uid(subject.uid),
            Some(remote) => PrincipalKey(Key::Remote(remote.clone())),
        }
    }

    /// What the rules of the policy judge.
    pub fn subject(&self) -> &Subject {
        match self {
            Self::Local(subject) | Self::Certificate(subject) | Self::Token(subject) => subject,
        }
    }

    /// Whether it is on another machine.
    pub fn is_remote(&self) -> bool {
        match self {
            Self::Local(_) => false,
            Self::Certificate(_) | Self::Token(_) => true,
        }
    }
}

/// Identifies a principal: sessions, quotas, limits, audit rates and log throttling are kept by it.
///
/// Two principals are the same exactly if their keys are equal. Nothing else follows from a key: rules,
/// `AF_UNIX` identity and reports use the ids in the [`Principal`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PrincipalKey(Key);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    /// All processes of one user are one principal.
    Uid(u32),
    /// All connections of a certificate's names, or of a token, are one principal.
    Remote(Arc<RemoteIdentity>),
}

impl PrincipalKey {
    /// The key of a local process of this user.
    pub fn of_uid(uid: u32) -> Self {
        Self(Key::Uid(uid))
    }

    /// The user id for the log's field `uid`; `None` for a principal without one.
    pub fn uid(&self) -> Option<u32> {
        match self.0 {
            Key::Uid(uid) => Some(uid),
            Key::Remote(_) => None,
        }
    }
}

impl From<Arc<RemoteIdentity>> for PrincipalKey {
    fn from(identity: Arc<RemoteIdentity>) -> Self {
        Self(Key::Remote(identity))
    }
}

impl fmt::Display for PrincipalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Key::Uid(uid) => write!(f, "uid {uid}"),
            Key::Remote(remote) => remote.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_of_one_user_share_one_key() {
        let first = Principal::Local(Subject::new(7, 7).in_groups(vec![8]));
        let second = Principal::Local(Subject::new(7, 9).in_cgroup(Some("/a.service".to_owned())));
        let other = Principal::Local(Subject::new(8, 7));
        assert_eq!(first.key(), second.key());
        assert_ne!(first.key(), other.key());
        assert_eq!(first.key().to_string(), "uid 7");
    }

    #[test]
    fn remote_principals_differ_by_their_names_alone() {
        let token = |number, name: &str| {
            let (name, rules) = (name.to_owned(), None);
            Principal::from(Subject::remote(number, RemoteIdentity::Token { name, rules }))
        };
        assert_eq!(token(4_100_000_000, "a").key(), token(4_100_000_001, "a").key());
        assert_ne!(token(4_100_000_000, "a").key(), token(4_100_000_000, "b").key());
        assert_eq!(token(1, "a").key().to_string(), "token a");
        assert_eq!(token(1, "a").key().uid(), None);
        assert!(token(1, "a").is_remote());
    }
}
