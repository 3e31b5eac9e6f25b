//! Judges requests of one worker with other sockets and calls than those of the kernel, for the fuzzer.
//!
//! Nothing else is replaced: connections, rights and judgement are those of the opener.

use sockbroker_policy::Policy;

use super::answer::{Client, answer};
use super::workers::{InForce, Named, Worker};
use crate::message::WorkerPeer;
use crate::request::{Answer, OpenerRequest};
use crate::socket_facts::KernelSocket;
use crate::subject::Connection;

pub use super::answer::Outcome;
pub use super::calls::{OutgoingMessage, SystemCalls};
pub use super::namespaces::Found;

/// An opener with one worker.
#[derive(Debug)]
pub struct Opener {
    worker: Worker,
    in_force: InForce,
}

impl Opener {
    /// An opener whose worker serves this principal.
    pub fn new(policy: Policy, peer: WorkerPeer) -> Self {
        Self { worker: Worker::new(1, peer), in_force: InForce::new(policy, 1) }
    }

    /// Puts another policy in force.
    pub fn replace(&mut self, policy: Policy, generation: u64) {
        self.in_force = InForce::new(policy, generation);
    }

    /// The monitor passes a connection to the worker.
    pub fn accepted(&mut self, cookie: u64) {
        self.worker.add(cookie);
    }

    /// A connection of the worker has ended.
    pub fn closed(&mut self, cookie: u64) {
        self.worker.remove(cookie);
    }

    /// Judges a request, and makes its call.
    pub fn serve<S: KernelSocket, C: Connection>(
        &mut self,
        calls: &impl SystemCalls<S, C>,
        opener_request: OpenerRequest,
        connection: C,
        socket: Option<S>,
    ) -> Outcome {
        let Ok(cookie) = connection.cookie() else {
            return Outcome::Nonsense("it named a file as a connection");
        };
        match self.worker.rights(connection, cookie, &self.in_force) {
            Named::Connection(rights) => {
                let client = Client { rights: &rights, connection };
                answer(calls, client, opener_request, socket)
            }
            Named::HungUp | Named::Unknown => Outcome::Answer(Answer::HungUp),
            Named::Nonsense(reason) => Outcome::Nonsense(reason),
        }
    }
}
