//! The addresses that a session's look-ups returned, to which a rule with `lookup` lets it connect.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sockbroker_policy::namespace::{Namespace, Other};
use sockbroker_proto::address::Address;
use tokio::time::Instant;

/// The name of the network namespace in which an address was looked up, and the address.
type Key = (Option<Arc<str>>, IpAddr);

/// Addresses with the time of their last look-up.
#[derive(Debug)]
pub struct Lookups {
    most: usize,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    /// The time and the ordinal number of the last look-up.
    addresses: HashMap<Key, (Instant, u64)>,
    count: u64,
}

impl Lookups {
    /// Keeps at most this number of addresses.
    pub fn new(most: usize) -> Self {
        Self { most, found: Mutex::default() }
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        // Consistent after every statement: a panic of another call does not spoil it.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the addresses that the look-up of a name returned. An address in place of a name is not a
    /// look-up.
    pub fn record(
        &self,
        namespace: &Namespace,
        host: &str,
        addresses: impl IntoIterator<Item = Address>,
    ) {
        if !is_name(host) {
            return;
        }
        let mut found = self.found();
        for ip in addresses.into_iter().filter_map(|address| ip_of(&address)) {
            let Some(key) = key(namespace, ip) else { return };
            if found.addresses.len() >= self.most && !found.addresses.contains_key(&key) {
                let oldest = found.addresses.iter().min_by_key(|(_, (_, count))| *count);
                let oldest = oldest.map(|(key, _)| key.clone());
                oldest.map(|key| found.addresses.remove(&key));
            }
            found.count += 1;
            let count = found.count;
            found.addresses.insert(key, (Instant::now(), count));
        }
    }

    /// The time since this address was found.
    pub fn age(&self, namespace: &Namespace, address: &Address) -> Option<Duration> {
        let key = key(namespace, ip_of(address)?)?;
        self.found().addresses.get(&key).map(|(at, _)| at.elapsed())
    }
}

/// Names are looked up in the broker's own namespace, and in those with names.
fn key(namespace: &Namespace, ip: IpAddr) -> Option<Key> {
    match namespace {
        Namespace::Broker => Some((None, ip)),
        Namespace::Other(Other { name, .. }) => name.clone().map(|name| (Some(name), ip)),
    }
}

fn ip_of(address: &Address) -> Option<IpAddr> {
    match address {
        Address::Inet { host, .. } => Some((*host).into()),
        Address::Inet6 { host, .. } => Some(host.to_canonical()),
        _ => None,
    }
}

/// Whether the C library takes a host for a name. The last part of an IPv4 address is a decimal or
/// hexadecimal number (`inet_aton(3)`), and an IPv6 address has a colon.
fn is_name(host: &str) -> bool {
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let number = last.bytes().all(|byte| byte.is_ascii_digit());
    let hexadecimal = last.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("0x"));
    !(number || hexadecimal || host.contains([':', '<', ' ']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        match text.parse().unwrap() {
            IpAddr::V4(host) => Address::Inet { host, port: 80 },
            IpAddr::V6(host) => Address::Inet6 { host, port: 80, flowinfo: 0, scope_id: 0 },
        }
    }

    #[test]
    fn only_names_are_looked_up() {
        for host in ["localhost", "example.org", "1.2.3.4.example", "a-1", "example.org."] {
            assert!(is_name(host), "{host}");
        }
        for host in ["", "127.0.0.1", "127.1", "2130706433", "0x7f.1", "0x7f000001", "::1", "1.2."]
        {
            assert!(!is_name(host), "{host}");
        }
        let lookups = Lookups::new(8);
        lookups.record(&Namespace::Broker, "10.0.0.1", [address("10.0.0.1")]);
        assert_eq!(lookups.age(&Namespace::Broker, &address("10.0.0.1")), None);
    }

    #[test]
    fn an_address_is_found_with_any_port_and_in_any_form() {
        let lookups = Lookups::new(8);
        lookups.record(&Namespace::Broker, "db.example", [address("10.0.0.1")]);
        assert!(lookups.age(&Namespace::Broker, &address("10.0.0.1")).is_some());
        assert!(lookups.age(&Namespace::Broker, &address("::ffff:10.0.0.1")).is_some());
        assert!(lookups.age(&Namespace::Broker, &address("10.0.0.2")).is_none());
    }

    #[test]
    fn the_oldest_address_is_replaced_at_the_limit() {
        let lookups = Lookups::new(2);
        for text in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
            lookups.record(&Namespace::Broker, "many.example", [address(text)]);
        }
        assert!(lookups.age(&Namespace::Broker, &address("10.0.0.1")).is_none());
        assert!(lookups.age(&Namespace::Broker, &address("10.0.0.3")).is_some());
    }

    #[test]
    fn an_address_counts_in_the_namespace_in_which_it_was_looked_up() {
        let lookups = Lookups::new(2);
        let named =
            |name: &str| Namespace::Other(Other { name: Some(name.into()), ..Other::default() });
        let (db, caller) = (address("10.0.0.1"), Other { is_callers: true, ..Other::default() });
        lookups.record(&named("lab1"), "db.example", [db.clone()]);
        assert!(lookups.age(&named("lab1"), &db).is_some());
        for namespace in [Namespace::Broker, named("lab2"), Namespace::Other(caller)] {
            assert!(lookups.age(&namespace, &db).is_none(), "{namespace:?}");
        }
    }
}
