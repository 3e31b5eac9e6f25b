//! What the policy reader reports about users.

use serde::{Deserialize, Serialize};
use sockbroker_policy::name::Pattern;
use sockbroker_policy::subject::{OVERFLOW_UID, RemoteIdentity};
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    pub uids: Option<Vec<u32>>,
    pub gids: Option<Vec<u32>>,
    /// Patterns for names of certificates; empty in a rule about this machine.
    pub certificates: Vec<String>,
    /// Patterns for names of tokens.
    pub tokens: Vec<String>,
}

impl Subject {
    fn is_remote(&self) -> bool {
        !self.certificates.is_empty() || !self.tokens.is_empty()
    }

    fn is_everyone(&self) -> bool {
        self.uids.is_none() && self.gids.is_none() && !self.is_remote()
    }

    fn includes_remote(&self, remote: &RemoteIdentity) -> bool {
        let matches = |patterns: &[String], name: &String| {
            let mut patterns = patterns.iter().filter_map(|text| text.parse::<Pattern>().ok());
            patterns.any(|pattern| pattern.matches(name))
        };
        match remote {
            RemoteIdentity::Certificate { names } => {
                names.iter().any(|name| matches(&self.certificates, name))
            }
            RemoteIdentity::Token { name, .. } => matches(&self.tokens, name),
        }
    }
}

impl Granted {
    /// Whether it is granted to a principal, or to root and the broker's own user by the built-in rule.
    pub fn include(&self, peer: &Credentials, is_owner: bool) -> bool {
        let matches = |subject: &Subject| {
            if subject.is_remote() {
                return false;
            }
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

    /// The same for a remote principal. The monitor does not know which rules a token keeps, so that one with a list of
    /// rules is not included.
    pub fn include_remote(&self, remote: &RemoteIdentity) -> bool {
        let is_denied = |one: &Subject| one.is_everyone() || one.includes_remote(remote);
        !matches!(remote, RemoteIdentity::Token { rules: Some(_), .. })
            && !self.denied.iter().any(is_denied)
            && self.allowed.iter().any(|one| one.includes_remote(remote))
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
            ..Subject::default()
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

    #[test]
    fn remote_principals_are_included_by_their_names_alone() {
        let everyone = Subject::default();
        let tokens = Subject { tokens: vec!["ci-*".to_owned()], ..Subject::default() };
        let token = |name: &str, rules| RemoteIdentity::Token { name: name.to_owned(), rules };
        let granted = Granted { allowed: vec![everyone.clone(), tokens], denied: Vec::new() };
        assert!(granted.include_remote(&token("ci-1", None)));
        assert!(!granted.include_remote(&token("me", None)));
        assert!(!granted.include_remote(&token("ci-1", Some(Vec::new()))));
        let only_tokens = Granted { allowed: granted.allowed[1..].to_vec(), denied: Vec::new() };
        assert!(!only_tokens.include(&peer(7, &[]), false));
        let denied = Granted { denied: vec![everyone], ..granted };
        assert!(!denied.include_remote(&token("ci-1", None)));
    }
}
