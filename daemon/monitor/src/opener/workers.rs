//! The workers as the opener knows them: their principals and their connections.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use sockbroker_policy::Policy;
use sockbroker_policy::rights::Rights;
use sockbroker_sys::socket;

use crate::channel::Channel;
use crate::message::WorkerPeer;
use crate::request::{Answer, Request};
use crate::subject::Connection;

/// The rights of a connection's subject under the policy of a generation.
#[derive(Debug)]
struct Selected {
    generation: u64,
    rights: Rights,
}

/// A worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) channel: Channel<Answer, Request>,
    peer: WorkerPeer,
    /// Its connections by their cookies.
    connections: BTreeMap<u64, Option<Selected>>,
    /// Whether it has named a connection that it does not have.
    pub(super) has_strayed: bool,
}

/// The policy in force.
#[derive(Debug)]
pub(super) struct InForce {
    pub(super) policy: Policy,
    pub(super) generation: u64,
    /// Whether a rule names units or control groups.
    by_control_group: bool,
}

/// What a descriptor is that a worker named as the connection of a client.
pub(super) enum Named<'a> {
    /// A connection of this worker.
    Connection(&'a Rights),
    /// The client has closed it.
    HungUp,
    /// The worker does not have it.
    Unknown,
    /// The worker breaks the rules.
    Nonsense(&'static str),
}

impl InForce {
    pub(super) fn new(policy: Policy, generation: u64) -> Self {
        let by_control_group = policy
            .rules()
            .iter()
            .any(|rule| !rule.subject.units.is_empty() || !rule.subject.cgroups.is_empty());
        Self { policy, generation, by_control_group }
    }
}

impl Worker {
    pub(super) fn new(channel: OwnedFd, mut peer: WorkerPeer) -> Self {
        peer.groups.sort_unstable();
        let connections = BTreeMap::new();
        Self { channel: Channel::over(channel), peer, connections, has_strayed: false }
    }

    pub(super) fn uid(&self) -> u32 {
        self.peer.uid
    }

    pub(super) fn add(&mut self, cookie: u64) {
        self.connections.insert(cookie, None);
    }

    pub(super) fn remove(&mut self, cookie: u64) {
        self.connections.remove(&cookie);
    }

    /// Whether a descriptor is a connection that the monitor passed to this worker.
    pub(super) fn has(&self, connection: BorrowedFd<'_>) -> bool {
        socket::cookie(connection).is_ok_and(|cookie| self.connections.contains_key(&cookie))
    }

    /// The rights at the other end of a connection.
    pub(super) fn rights(&mut self, connection: impl Connection, in_force: &InForce) -> Named<'_> {
        let Ok(cookie) = connection.cookie() else {
            return Named::Nonsense("it named a file as a connection");
        };
        let Some(known) = self.connections.get_mut(&cookie) else { return Named::Unknown };
        // A client that is gone lends its name to nobody.
        if connection.is_hung_up().unwrap_or(true) {
            return Named::HungUp;
        }
        let is_current = |known: &Selected| known.generation == in_force.generation;
        if !known.as_ref().is_some_and(is_current) {
            let Ok(subject) = connection.subject(in_force.by_control_group) else {
                return Named::Nonsense("it named a socket without a peer as a connection");
            };
            let peer = &self.peer;
            let own = (subject.uid, subject.gid) == (peer.uid, peer.gid)
                && *subject.groups == *peer.groups;
            if !own {
                return Named::Nonsense("it has a connection of another principal");
            }
            let rights = in_force.policy.select(&subject, Vec::new());
            *known = Some(Selected { generation: in_force.generation, rights });
        }
        match known {
            Some(known) => Named::Connection(&known.rights),
            None => Named::Unknown,
        }
    }
}

/// Whether a descriptor is a socket. Closing any other file can wait for its file system.
pub(super) fn is_socket(descriptor: &OwnedFd) -> bool {
    socket::cookie(descriptor.as_fd()).is_ok()
}
