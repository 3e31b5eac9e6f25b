//! What the policy reader reports about users.

use serde::{Deserialize, Serialize};
use sockbroker_policy::subject::OVERFLOW_UID;
use sockbroker_sys::credentials::Credentials;

use crate::account::Accounts;
use crate::user_names::UserNames;

/// What the monitor has to know about users. It asks no name service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserFacts {
    /// To whom the policy grants to administer the broker.
    pub administrators: Granted,
    /// To whom it grants calls on `AF_UNIX` sockets, which are made with the ids of the caller.
    pub unix_callers: Granted,
    pub accounts: Accounts,
    pub names: UserNames,
}

/// The principals to whom a policy grants something, as far as the monitor can judge them: by user and groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    pub allowed: Vec<Subject>,
    /// These take precedence, also over root and the broker's own user.
    pub denied: Vec<Subject>,
}

/// The users and groups of a rule; each that is not `None` must match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    pub uids: Option<Vec<u32>>,
    pub gids: Option<Vec<u32>>,
}

impl Granted {
    /// Whether it is granted to a principal, or to root and the broker's own user by the built-in rule.
    pub fn include(&self, peer: &Credentials, is_owner: bool) -> bool {
        let matches = |subject: &Subject| {
            let user = subject.uids.as_ref().is_none_or(|uids| uids.contains(&peer.uid));
            let has = |gid: &u32| *gid == peer.gid || peer.groups.contains(gid);
            user && subject.gids.as_ref().is_none_or(|gids| gids.iter().any(has))
        };
        // As in the policy: a rule for everyone is not about users that look the same.
        let is_about = |subject: &&Subject| {
            peer.uid != OVERFLOW_UID || subject.uids.is_some() || subject.gids.is_some()
        };
        let mut allowed = self.allowed.iter().filter(is_about);
        !self.denied.iter().any(matches) && (is_owner || allowed.any(matches))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, groups: &[u32]) -> Credentials {
        Credentials { uid, gid: uid, groups: groups.to_vec(), network: None }
    }

    #[test]
    fn grants_are_matched_by_user_and_groups() {
        let subject = |uids: Option<&[u32]>, gids: Option<&[u32]>| Subject {
            uids: uids.map(<[u32]>::to_vec),
            gids: gids.map(<[u32]>::to_vec),
        };
        let granted = Granted {
            allowed: vec![subject(Some(&[7]), None), subject(Some(&[8, 9]), Some(&[100]))],
            denied: vec![subject(None, Some(&[666]))],
        };
        let include = |peer| granted.include(&peer, false);
        assert!(include(peer(7, &[])) && include(peer(8, &[100])) && include(peer(9, &[1, 100])));
        assert!(!include(peer(8, &[1])) && !include(peer(10, &[100])));
        assert!(!include(peer(7, &[666])));
        assert!(granted.include(&peer(0, &[]), true));
        assert!(!granted.include(&peer(0, &[666]), true));
    }
}
