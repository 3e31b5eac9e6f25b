//! Remote principals, and the numbers by which the monitor counts for them in place of user ids.

use std::collections::BTreeMap;

use sockbroker_policy::subject::RemoteIdentity;
use sockbroker_sys::credentials::Credentials;

/// The first number. The kernel allows users with these ids; the monitor refuses their connections.
const FIRST: u32 = 0xf000_0000;
/// The last number: the one above stands for no user (`setresuid(2)`).
const LAST: u32 = u32::MAX - 1;
/// The principals after which those without connections and workers are forgotten.
const REMEMBERED: usize = 1024;

/// The id of a user, or the name of a remote principal.
pub(super) type Named = (Option<u32>, Option<String>);

/// Whether a user id is the number of a remote principal.
pub(super) fn is_remote(uid: u32) -> bool {
    (FIRST..=LAST).contains(&uid)
}

/// The remote principals that have connections or workers, and some others.
#[derive(Debug)]
pub(super) struct RemotePrincipals {
    numbers: BTreeMap<RemoteIdentity, u32>,
    identities: BTreeMap<u32, RemoteIdentity>,
    next: u32,
}

impl Default for RemotePrincipals {
    fn default() -> Self {
        Self { numbers: BTreeMap::new(), identities: BTreeMap::new(), next: FIRST }
    }
}

impl RemotePrincipals {
    /// What stands for a principal where the monitor knows local ones by the ids of their processes. Forgets principals
    /// that are not `in_use` if there are many.
    pub(super) fn credentials(
        &mut self,
        identity: RemoteIdentity,
        in_use: impl Fn(u32) -> bool,
    ) -> Credentials {
        if self.identities.len() >= REMEMBERED && !self.numbers.contains_key(&identity) {
            self.identities.retain(|number, _| in_use(*number));
            self.numbers.retain(|_, number| in_use(*number));
        }
        let number = match self.numbers.get(&identity) {
            Some(number) => *number,
            None => self.add(identity),
        };
        Credentials { uid: number, gid: number, groups: Vec::new(), network: None }
    }

    fn add(&mut self, identity: RemoteIdentity) -> u32 {
        while self.identities.contains_key(&self.next) {
            self.step();
        }
        let number = self.next;
        self.step();
        self.numbers.insert(identity.clone(), number);
        self.identities.insert(number, identity);
        number
    }

    fn step(&mut self) {
        self.next = if self.next == LAST { FIRST } else { self.next + 1 };
    }

    /// A user, or a remote principal by its name, for the fields `uid` and `principal` of the log.
    pub(super) fn named(&self, uid: u32) -> Named {
        match self.get(uid) {
            None => (Some(uid), None),
            Some(identity) => (None, Some(identity.to_string())),
        }
    }

    /// The number of a principal that is not forgotten.
    pub(super) fn number(&self, identity: &RemoteIdentity) -> Option<u32> {
        self.numbers.get(identity).copied()
    }

    /// The principal with a number.
    pub(super) fn get(&self, number: u32) -> Option<&RemoteIdentity> {
        self.identities.get(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: usize) -> RemoteIdentity {
        RemoteIdentity::Token { name: name.to_string(), rules: None }
    }

    #[test]
    fn a_principal_keeps_its_number_while_it_is_used() {
        let mut principals = RemotePrincipals::default();
        let first = principals.credentials(token(0), |_| true);
        assert!(is_remote(first.uid) && !is_remote(u32::MAX) && !is_remote(65534));
        for name in 1..REMEMBERED {
            let other = principals.credentials(token(name), |_| false);
            assert_ne!(other.uid, first.uid);
        }
        assert_eq!(principals.credentials(token(0), |_| false), first);
        principals.credentials(token(REMEMBERED), |number| number == first.uid);
        assert_eq!(principals.get(first.uid), Some(&token(0)));
        assert_eq!(principals.identities.len(), 2, "the others are forgotten");
        assert_ne!(principals.credentials(token(1), |_| true).uid, first.uid + 1);
    }

    #[test]
    fn the_last_number_is_followed_by_the_first_free_one() {
        let mut principals = RemotePrincipals { next: LAST, ..RemotePrincipals::default() };
        let numbers = [0, 1].map(|name| principals.credentials(token(name), |_| true).uid);
        assert_eq!(numbers, [LAST, FIRST]);
        principals.next = LAST;
        assert_eq!(principals.credentials(token(2), |_| true).uid, FIRST + 1);
    }
}
