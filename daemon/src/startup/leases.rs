//! What a worker has asked the monitor to lease, and the calls that wait for it.

use std::collections::HashMap;

use sockbroker_monitor::message::{MemoryLimit, SessionLimit, ToMonitor};
use tokio::sync::oneshot;

use crate::session::broker::Broker;

/// Where a call waits for a lease.
type Waiting<L> = oneshot::Sender<Result<(), L>>;

/// Requests by their numbers.
#[derive(Debug, Default)]
pub(super) struct Leases {
    sessions: HashMap<u64, Waiting<SessionLimit>>,
    /// With the number of bytes.
    memory: HashMap<u64, (u64, Waiting<MemoryLimit>)>,
}

impl Leases {
    /// A request for sessions.
    pub(super) fn of_sessions(&mut self, request: u64, waiting: Waiting<SessionLimit>) {
        self.sessions.insert(request, waiting);
    }

    /// A request for this number of bytes.
    pub(super) fn of_memory(&mut self, request: u64, bytes: u64, waiting: Waiting<MemoryLimit>) {
        self.memory.insert(request, (bytes, waiting));
    }

    /// The answer to a request for sessions. What no call takes is given back later.
    pub(super) fn sessions_leased(
        &mut self,
        broker: &Broker,
        request: u64,
        sessions: Result<u64, SessionLimit>,
    ) {
        let leased = sessions.map(|sessions| broker.lease_sessions(sessions));
        if let Some(waiting) = self.sessions.remove(&request) {
            waiting.send(leased).ok();
        }
    }

    /// The answer to a request for memory.
    pub(super) fn memory_leased(
        &mut self,
        broker: &Broker,
        request: u64,
        leased: Result<(), MemoryLimit>,
    ) {
        if let Some((bytes, waiting)) = self.memory.remove(&request) {
            let leased = leased.map(|()| broker.memory_leased(bytes));
            waiting.send(leased).ok();
        }
    }
}

/// Takes what is leased and not used, to be given back.
pub(super) fn unused(broker: &Broker) -> impl Iterator<Item = ToMonitor> + use<> {
    let (sessions, bytes) = (broker.give_back_sessions(), broker.give_back_memory());
    let sessions = (sessions > 0).then_some(ToMonitor::Return { sessions });
    let memory = (bytes > 0).then_some(ToMonitor::ReturnMemory { bytes });
    [sessions, memory].into_iter().flatten()
}
