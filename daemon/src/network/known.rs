//! The network namespaces in which a session has been given sockets without a handle, so that calls on these sockets are
//! judged by the name under which the namespace was selected.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sockbroker_policy::namespace::Namespace;
use sockbroker_sys::namespace;

/// The most namespaces of a session. The one that was used longest ago is forgotten first.
const KNOWN_MAX: usize = 64;

/// Network namespaces by their cookie, which the kernel never assigns again.
#[derive(Debug, Default)]
pub struct KnownNetworks(Mutex<VecDeque<(u64, Namespace)>>);

impl KnownNetworks {
    fn known(&self) -> MutexGuard<'_, VecDeque<(u64, Namespace)>> {
        // The list is valid after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the namespace of a socket that was made in `namespace`.
    pub fn note(&self, made: BorrowedFd<'_>, namespace: &Namespace) {
        if *namespace == Namespace::Broker {
            return;
        }
        if let Ok(cookie) = namespace::cookie(made) {
            self.insert(cookie, namespace.clone());
        }
    }

    fn insert(&self, cookie: u64, namespace: Namespace) {
        let mut known = self.known();
        known.retain(|(other, _)| *other != cookie);
        known.push_back((cookie, namespace));
        if known.len() > KNOWN_MAX {
            known.pop_front();
        }
    }

    /// The namespace with this cookie, as a socket was made in it.
    pub(super) fn find(&self, cookie: u64) -> Option<Namespace> {
        let known = self.known();
        known.iter().find(|(other, _)| *other == cookie).map(|(_, namespace)| namespace.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_name_counts_and_the_oldest_namespace_is_forgotten() {
        let known = KnownNetworks::default();
        let named = |name: &str| Namespace::from(&name.parse().unwrap());
        known.insert(1, named("lab1"));
        known.insert(1, named("lab2"));
        assert_eq!(known.find(1), Some(named("lab2")));
        assert_eq!(known.find(2), None);
        let most = KNOWN_MAX as u64;
        (2..=most).for_each(|cookie| known.insert(cookie, named("lab3")));
        assert_eq!(known.find(1), Some(named("lab2")));
        known.insert(most + 1, named("lab4"));
        assert_eq!(known.find(1), None);
        assert_eq!(known.find(2), Some(named("lab3")));
    }
}
