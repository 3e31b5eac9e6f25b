//! The workers as the opener knows them: their principals and their connections.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sockbroker_policy::Policy;
use sockbroker_policy::rights::Rights;
use sockbroker_policy::subject::Subject;
use sockbroker_sys::prompt_close::Interrupter;
use sockbroker_sys::{namespace, socket};

use crate::channel::Channel;
use crate::message::WorkerPeer;
use crate::request::{Answer, OpenerRequest};
use crate::subject::Connection;

/// The rights of a connection's subject under the policy of a generation.
#[derive(Debug)]
struct Selected {
    generation: u64,
    rights: Arc<Rights>,
}

/// The opener's end of a channel to a worker.
pub(super) type WorkerChannel = Channel<Answer, OpenerRequest>;

/// A worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) number: u64,
    peer: WorkerPeer,
    /// Its connections by their cookies.
    connections: Mutex<BTreeMap<u64, Option<Selected>>>,
    /// Whether it has named a connection that it does not have.
    has_strayed: AtomicBool,
    threads: Mutex<Threads>,
}

/// The threads that serve a worker.
#[derive(Debug, Default)]
struct Threads {
    interrupters: Vec<Interrupter>,
    /// Whether the worker has ended.
    over: bool,
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
pub(super) enum Named {
    /// A connection of this worker.
    Connection(Arc<Rights>),
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
    pub(super) fn new(number: u64, mut peer: WorkerPeer) -> Self {
        peer.groups.sort_unstable();
        Self {
            number,
            peer,
            connections: Mutex::default(),
            has_strayed: AtomicBool::new(false),
            threads: Mutex::default(),
        }
    }

    pub(super) fn uid(&self) -> u32 {
        self.peer.uid
    }

    /// The user for whom its captures count.
    pub(super) fn account(&self) -> u32 {
        self.peer.account
    }

    pub(super) fn add(&self, cookie: u64) {
        lock(&self.connections).insert(cookie, None);
    }

    pub(super) fn remove(&self, cookie: u64) {
        lock(&self.connections).remove(&cookie);
    }

    pub(super) fn forget_connections(&self) {
        lock(&self.connections).clear();
    }

    /// Notes that it has named a connection that it does not have. Whether it did so before.
    pub(super) fn strays(&self) -> bool {
        self.has_strayed.swap(true, Ordering::Relaxed)
    }

    /// Whether this is the cookie of a connection that the monitor passed to this worker.
    pub(super) fn has(&self, cookie: u64) -> bool {
        lock(&self.connections).contains_key(&cookie)
    }

    /// Notes what interrupts a thread that serves it.
    pub(super) fn add_thread(&self, interrupter: Interrupter) {
        let mut threads = lock(&self.threads);
        if threads.over {
            interrupter.interrupt();
        }
        threads.interrupters.push(interrupter);
    }

    /// Ends closes of its threads that wait, also later ones.
    pub(super) fn interrupt_threads(&self) {
        let mut threads = lock(&self.threads);
        threads.over = true;
        threads.interrupters.iter().for_each(Interrupter::interrupt);
    }

    /// The subject of a connection. The gateway made those of a remote principal, so that the kernel reports nothing
    /// about their clients.
    fn subject(
        &self,
        connection: impl Connection,
        in_force: &InForce,
    ) -> Result<Subject, &'static str> {
        let peer = &self.peer;
        if let Some(remote) = &peer.remote {
            return Ok(Subject::remote(peer.uid, remote.clone()));
        }
        let subject = connection
            .subject(in_force.by_control_group)
            .map_err(|_unknown| "it named a socket without a peer as a connection")?;
        let own =
            (subject.uid, subject.gid) == (peer.uid, peer.gid) && *subject.groups == *peer.groups;
        if own { Ok(subject) } else { Err("it has a connection of another principal") }
    }

    /// The rights at the other end of a connection with this cookie.
    pub(super) fn rights(
        &self,
        connection: impl Connection,
        cookie: u64,
        in_force: &InForce,
    ) -> Named {
        let mut connections = lock(&self.connections);
        let Some(known) = connections.get_mut(&cookie) else { return Named::Unknown };
        // A client that is gone lends its name to nobody.
        if connection.is_hung_up().unwrap_or(true) {
            return Named::HungUp;
        }
        if let Some(known) = known
            && known.generation == in_force.generation
        {
            return Named::Connection(known.rights.clone());
        }
        let subject = match self.subject(connection, in_force) {
            Ok(subject) => subject,
            Err(reason) => return Named::Nonsense(reason),
        };
        let rights = Arc::new(in_force.policy.select(&subject, Vec::new()));
        *known = Some(Selected { generation: in_force.generation, rights: rights.clone() });
        Named::Connection(rights)
    }
}

/// The value of a mutex. Every change of such a value is one step, so a panic of another thread does not spoil it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The cookie of a descriptor that is a socket. Closing any other file can wait for its file system.
pub(super) fn cookie(descriptor: &OwnedFd) -> Option<u64> {
    socket::cookie(descriptor.as_fd()).ok()
}

/// Whether a descriptor is a network namespace, whose close does not wait either.
pub(super) fn is_network(descriptor: &OwnedFd) -> bool {
    namespace::is_network(descriptor.as_fd())
}
