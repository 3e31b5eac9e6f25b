//! The claims of all workers, and of the sockets that wait for one, by the number of the port or group.

use std::collections::HashMap;

use crate::claim::Claim;

/// The claims, each with the token of its worker, or the number of the lots in which its sockets wait.
#[derive(Debug, Default)]
pub(super) struct Claims(HashMap<u16, Vec<(u64, Claim)>>);

impl Claims {
    /// Claims for a worker, unless another one has a claim that conflicts.
    pub(super) fn take(&mut self, token: u64, claim: Claim) -> bool {
        let same_number = self.0.entry(claim.number()).or_default();
        if same_number.iter().any(|(other, taken)| *other != token && taken.conflicts_with(claim)) {
            return false;
        }
        if !same_number.contains(&(token, claim)) {
            same_number.push((token, claim));
        }
        true
    }

    /// Ends a claim of a worker.
    pub(super) fn end(&mut self, token: u64, claim: Claim) {
        if let Some(same_number) = self.0.get_mut(&claim.number()) {
            same_number.retain(|taken| *taken != (token, claim));
            if same_number.is_empty() {
                self.0.remove(&claim.number());
            }
        }
    }

    /// Makes the claims of one owner those of another: the sockets of a worker wait for the next one, or have got it.
    pub(super) fn pass(&mut self, from: u64, to: u64) {
        for same_number in self.0.values_mut() {
            same_number.iter_mut().filter(|(owner, _)| *owner == from).for_each(|one| one.0 = to);
        }
    }

    /// The claims of one owner.
    pub(super) fn of(&self, token: u64) -> impl Iterator<Item = Claim> {
        let all = self.0.values().flatten();
        all.filter(move |(owner, _)| *owner == token).map(|(_, claim)| *claim)
    }

    /// Ends the claims of a worker.
    pub(super) fn end_all(&mut self, token: u64) {
        self.0.retain(|_, same_number| {
            same_number.retain(|(owner, _)| *owner != token);
            !same_number.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: Claim = Claim::Fanout { group: 80 };
    const ALL: Claim = Claim::Port { protocol: 6, address: None, port: 80 };

    #[test]
    fn a_claim_is_one_workers_until_it_ends() {
        let mut claims = Claims::default();
        assert!(claims.take(1, ALL) && claims.take(1, ALL) && claims.take(2, GROUP));
        assert!(!claims.take(2, ALL) && !claims.take(1, GROUP));
        claims.end(2, ALL);
        assert!(!claims.take(2, ALL), "only its owner ends a claim");
        claims.end(1, ALL);
        assert!(claims.take(2, ALL));
        claims.pass(2, 9);
        assert!(!claims.take(3, ALL) && claims.of(9).count() == 2 && claims.of(2).next().is_none());
        claims.end_all(9);
        assert!(claims.take(3, ALL) && claims.take(3, GROUP));
    }
}
