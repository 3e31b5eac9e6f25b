//! The clients that the gateway has passed to workers, where their sessions can outlive their connections.

use std::collections::{BTreeMap, VecDeque};

use sockbroker_policy::subject::RemoteIdentity;

use crate::authority::{Authenticated, Authority};

/// The principals that are remembered: many more than have workers at a time.
const PRINCIPALS: usize = 1024;
/// The certificates, or secrets of tokens, that are remembered of one principal.
const OF_PRINCIPAL: usize = 4;

/// Principals, each with what it has authenticated itself by, the newest last.
#[derive(Debug, Default)]
pub(crate) struct Known {
    clients: BTreeMap<RemoteIdentity, VecDeque<Authenticated>>,
    /// In the order of their last connections.
    order: VecDeque<RemoteIdentity>,
}

impl Known {
    /// Remembers a client. Forgets the one that has not connected for the longest time, if there are too many.
    pub(crate) fn add(&mut self, client: &Authenticated) {
        self.order.retain(|identity| *identity != client.identity);
        self.order.push_back(client.identity.clone());
        let own = self.clients.entry(client.identity.clone()).or_default();
        own.retain(|known| known.evidence != client.evidence);
        own.push_back(client.clone());
        if own.len() > OF_PRINCIPAL {
            own.pop_front();
        }
        if self.order.len() > PRINCIPALS {
            self.clients.remove(&self.order.pop_front().unwrap_or_else(|| client.identity.clone()));
        }
    }

    /// Takes the principals that none of their certificates and tokens admits.
    pub(crate) fn take_not_admitted(&mut self, authority: &Authority) -> Vec<RemoteIdentity> {
        let is_admitted = |clients: &VecDeque<Authenticated>| {
            clients.iter().any(|client| authority.judge_again(client).is_ok())
        };
        let ended = self.clients.extract_if(.., |_, clients| !is_admitted(clients));
        let ended: Vec<_> = ended.map(|(identity, _)| identity).collect();
        self.order.retain(|identity| !ended.contains(identity));
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::authority::Evidence;

    #[test]
    fn few_principals_and_secrets_are_remembered() {
        let client = |name: usize, secret: u8| Authenticated {
            identity: RemoteIdentity::Token { name: name.to_string(), rules: None },
            evidence: Evidence::Token([secret; 32], IpAddr::V4(Ipv4Addr::LOCALHOST)),
            until: None,
        };
        let mut known = Known::default();
        for name in 0..=PRINCIPALS {
            known.add(&client(name, 0));
            // It has connected last.
            known.add(&client(1, 1));
        }
        assert_eq!((known.clients.len(), known.order.len()), (PRINCIPALS, PRINCIPALS));
        assert!(!known.clients.contains_key(&client(0, 0).identity));
        for secret in 0..10 {
            known.add(&client(1, secret));
        }
        let own = &known.clients[&client(1, 0).identity];
        assert_eq!(own.len(), OF_PRINCIPAL);
    }
}
