//! Claims to what the kernel would let two principals share: ports with `SO_REUSEPORT` (socket(7)), and the
//! fan-out groups of packet sockets (`PACKET_FANOUT`, packet(7)).
//!
//! The kernel identifies a group by a number alone, and shares a port among all sockets of one user id, which is
//! the broker's. Another principal's socket could take a part of the packets or connections. So each belongs to one
//! principal from its first socket to its last. The monitor keeps the claims of all workers.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use sockbroker_monitor::claim::Claim;

use crate::principal::PrincipalKey;

/// The claims of all principals that this process serves.
#[derive(Clone, Default)]
pub struct Claims(Arc<Inner>);

#[derive(Default)]
struct Inner {
    owners: Mutex<HashMap<Claim, Owner>>,
    /// Notifies the monitor that a claim has ended.
    ended: Option<Box<dyn Fn(Claim) + Send + Sync>>,
}

#[derive(Debug)]
struct Owner {
    principal: PrincipalKey,
    sockets: usize,
}

/// A claim of one socket, which ends when it is dropped.
#[derive(Debug)]
pub struct Claimed {
    claims: Claims,
    claim: Claim,
    /// Whether it stays its owner's after the broker's last socket.
    kept: bool,
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Claims").field(&*self.owners()).finish()
    }
}

impl Claims {
    /// Claims whose end is reported.
    pub fn reported(ended: impl Fn(Claim) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner { owners: Mutex::default(), ended: Some(Box::new(ended)) }))
    }

    /// Adds a socket to a claim of this principal that another of its sockets has.
    pub fn join(&self, claim: Claim, principal: &PrincipalKey) -> Option<Claimed> {
        let mut owners = self.owners();
        let owner = owners.get_mut(&claim).filter(|owner| owner.principal == *principal)?;
        owner.sockets += 1;
        drop(owners);
        Some(Claimed { claims: self.clone(), claim, kept: false })
    }

    /// The claims of all sockets of this process.
    pub fn all(&self) -> Vec<Claim> {
        self.owners().keys().copied().collect()
    }

    /// Whether a socket of this process has the claim.
    pub fn has(&self, claim: Claim) -> bool {
        self.owners().contains_key(&claim)
    }

    /// Adds a socket to a claim; `None` if another principal has it, or one that conflicts with it.
    pub fn take(&self, claim: Claim, principal: &PrincipalKey) -> Option<Claimed> {
        let mut owners = self.owners();
        let others = owners
            .iter()
            .any(|(other, owner)| owner.principal != *principal && other.conflicts_with(claim));
        if others {
            return None;
        }
        let new = || Owner { principal: principal.clone(), sockets: 0 };
        owners.entry(claim).or_insert_with(new).sockets += 1;
        drop(owners);
        Some(Claimed { claims: self.clone(), claim, kept: false })
    }

    fn owners(&self) -> MutexGuard<'_, HashMap<Claim, Owner>> {
        // Every change is one statement, so a panic of another call does not spoil the map.
        self.0.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claimed {
    pub fn claim(&self) -> Claim {
        self.claim
    }

    /// Whether the claim is kept.
    pub fn is_kept(&self) -> bool {
        self.kept
    }

    /// Keeps the claim for its owner, because a holder of the descriptor can keep the socket.
    pub fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let mut owners = self.claims.owners();
        let Some(owner) = owners.get_mut(&self.claim) else { return };
        owner.sockets = owner.sockets.saturating_sub(1);
        if owner.sockets == 0 {
            owners.remove(&self.claim);
            drop(owners);
            if let Some(ended) = &self.claims.0.ended {
                ended(self.claim);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::tests::uid;

    const GROUP: Claim = Claim::Fanout { group: 7 };

    fn port(address: Option<&str>, port: u16) -> Claim {
        let address = address.map(|text| text.parse().unwrap());
        Claim::Port { protocol: 6, address, port }
    }

    #[test]
    fn a_claim_belongs_to_one_user_until_its_last_socket_closes() {
        let claims = Claims::default();
        let first = claims.take(GROUP, &uid(1000)).unwrap();
        let second = claims.take(GROUP, &uid(1000)).unwrap();
        assert!(claims.take(GROUP, &uid(1001)).is_none());
        assert!(
            claims.join(GROUP, &uid(1000)).is_some() && claims.join(GROUP, &uid(1001)).is_none()
        );
        assert!(claims.take(Claim::Fanout { group: 8 }, &uid(1001)).is_some());
        drop(first);
        assert!(claims.take(GROUP, &uid(1001)).is_none() && claims.has(GROUP));
        drop(second);
        assert!(claims.take(GROUP, &uid(1001)).is_some());
    }

    #[test]
    fn a_claim_of_a_passed_descriptor_stays_with_its_user() {
        let claims = Claims::default();
        let mut claimed = claims.take(GROUP, &uid(1000)).unwrap();
        claimed.keep();
        drop(claimed);
        assert!(claims.take(GROUP, &uid(1001)).is_none());
        assert!(claims.take(GROUP, &uid(1000)).is_some());
    }

    #[test]
    fn ports_conflict_where_their_addresses_do() {
        let claims = Claims::default();
        let _own = claims.take(port(Some("127.0.0.1"), 80), &uid(1)).unwrap();
        let refused = |claim| claims.take(claim, &uid(2)).is_none();
        assert!(refused(port(Some("127.0.0.1"), 80)) && refused(port(None, 80)));
        assert!(!refused(port(Some("127.0.0.2"), 80)) && !refused(port(None, 81)));
        assert!(!refused(Claim::Port { protocol: 17, address: None, port: 80 }));
    }

    #[test]
    fn the_end_of_a_claim_is_reported_once() {
        let (sender, ended) = std::sync::mpsc::channel();
        let claims = Claims::reported(move |claim| sender.send(claim).unwrap());
        let held = [claims.take(GROUP, &uid(1)).unwrap(), claims.take(GROUP, &uid(1)).unwrap()];
        assert!(ended.try_recv().is_err());
        drop(held);
        assert_eq!(ended.try_iter().collect::<Vec<_>>(), [GROUP]);
    }
}
