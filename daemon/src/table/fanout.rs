//! The owners of the fan-out groups of packet sockets (`PACKET_FANOUT`, packet(7)).
//!
//! The kernel identifies a group by a number alone, so that another user's socket could join it and take a
//! part of the packets. A group belongs to one principal from its first socket to its last.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::principal::PrincipalKey;

/// The groups of all principals.
#[derive(Debug, Clone, Default)]
pub struct FanoutGroups(Arc<Mutex<HashMap<u16, Owner>>>);

#[derive(Debug)]
struct Owner {
    principal: PrincipalKey,
    sockets: usize,
}

/// A socket's membership in a group, which ends when it is dropped.
#[derive(Debug)]
pub struct Membership {
    groups: FanoutGroups,
    group: u16,
    /// Whether the group stays its owner's after the broker's last socket in it.
    kept: bool,
}

impl FanoutGroups {
    /// Joins a group; `None` if it belongs to another principal.
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
        // Every change is one statement, so a panic of another call does not spoil the map.
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

    /// Keeps the group for its owner, because a holder of the descriptor can stay in it.
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
    fn a_group_belongs_to_one_user_until_its_last_socket_closes() {
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
    fn a_group_of_a_passed_descriptor_stays_with_its_user() {
        let groups = FanoutGroups::default();
        let mut member = groups.join(7, &uid(1000)).unwrap();
        member.keep();
        drop(member);
        assert!(groups.join(7, &uid(1001)).is_none() && groups.join(7, &uid(1000)).is_some());
    }
}
