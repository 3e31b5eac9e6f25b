//! Whose the fan-out groups of packet sockets are (`PACKET_FANOUT`, packet(7)).
//!
//! The kernel knows a group by a number alone: another user's socket that names it would take a part of the
//! packets. A group is one user's from its first socket to its last.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::principal::PrincipalKey;

/// The groups of all users.
#[derive(Debug, Clone, Default)]
pub struct FanoutGroups(Arc<Mutex<HashMap<u16, Owner>>>);

#[derive(Debug)]
struct Owner {
    principal: PrincipalKey,
    sockets: usize,
}

/// A socket's place in a group, given up when dropped.
#[derive(Debug)]
pub struct Membership {
    groups: FanoutGroups,
    group: u16,
    /// Whether the group stays the user's when the broker's last socket of it has gone.
    kept: bool,
}

impl FanoutGroups {
    /// A place in a group; `None` if it is another user's.
    pub fn join(&self, group: u16, principal: &PrincipalKey) -> Option<Membership> {
        match self.owners().entry(group) {
            Slot::Vacant(free) => {
                free.insert(Owner { principal: principal.clone(), sockets: 1 });
            }
            Slot::Occupied(mut owner) if owner.get().principal == *principal => {
                owner.get_mut().sockets += 1;
            }
            Slot::Occupied(_) => return None,
        }
        Some(Membership { groups: self.clone(), group, kept: false })
    }

    fn owners(&self) -> MutexGuard<'_, HashMap<u16, Owner>> {
        // Every change is one statement: a panic elsewhere does not spoil the map.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Membership {
    /// The number of the group.
    pub fn group(&self) -> u16 {
        self.group
    }

    /// Whether the group is kept.
    pub fn is_kept(&self) -> bool {
        self.kept
    }

    /// Keeps the group for its user: a holder of the descriptor stays in it for as long as it likes.
    pub fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let mut owners = self.groups.owners();
        if let Some(owner) = owners.get_mut(&self.group) {
            owner.sockets = owner.sockets.saturating_sub(1);
            if owner.sockets == 0 {
                owners.remove(&self.group);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::tests::uid;

    #[test]
    fn a_group_is_one_users_until_its_last_socket_has_gone() {
        let groups = FanoutGroups::default();
        let first = groups.join(7, &uid(1000)).unwrap();
        let second = groups.join(7, &uid(1000)).unwrap();
        assert!(groups.join(7, &uid(1001)).is_none() && groups.join(8, &uid(1001)).is_some());
        drop(first);
        assert!(groups.join(7, &uid(1001)).is_none());
        drop(second);
        assert!(groups.join(7, &uid(1001)).is_some());
    }

    #[test]
    fn a_group_of_a_passed_descriptor_stays_its_users() {
        let groups = FanoutGroups::default();
        let mut member = groups.join(7, &uid(1000)).unwrap();
        member.keep();
        drop(member);
        assert!(groups.join(7, &uid(1001)).is_none() && groups.join(7, &uid(1000)).is_some());
    }
}
