//! Principals: who calls, and the key under which the broker counts what belongs to a caller.

use std::fmt;

use sockbroker_policy::subject::Subject;

/// A caller, fixed when its connection was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A process on this machine, as the kernel described it.
    Local(Subject),
}

impl Principal {
    /// The key of this principal.
    pub fn key(&self) -> PrincipalKey {
        match self {
            Self::Local(subject) => PrincipalKey::of_uid(subject.uid),
        }
    }

    /// What the rules of the policy judge.
    pub fn subject(&self) -> &Subject {
        match self {
            Self::Local(subject) => subject,
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
        }
    }
}

impl fmt::Display for PrincipalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Key::Uid(uid) => write!(f, "uid {uid}"),
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
}
