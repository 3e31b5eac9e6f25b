//! What the threads of the opener share: the channel to the monitor, the workers, and the policy in force.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;

use sockbroker_policy::Policy;
use sockbroker_sys::prompt_close::PromptClose;
use sockbroker_sys::{sealed, socket};

use super::calls::Kernel;
use super::captures::Captures;
use super::host::Host;
use super::namespaces::Namespaces;
use super::refusals::Refusals;
use super::workers::{InForce, Worker, WorkerChannel, lock};
use crate::channel::{Channel, ChannelError};
use crate::message::{FromOpener, ToOpener};

/// The bytes of the largest principal of a worker.
const PEER: usize = 1 << 20;
/// The stack of a thread that serves a worker, in bytes.
const STACK: usize = 256 << 10;

/// Why the opener cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{0}")]
    System(#[from] io::Error),
    #[error("{0}")]
    Host(String),
    #[error("the channel to the monitor: {0}")]
    Monitor(String),
}

pub(super) type MonitorEnd = Channel<FromOpener, ToOpener>;

/// What all threads share.
pub(super) struct Opener<H> {
    monitor: MonitorEnd,
    /// Held while messages of the monitor are handled, so that they are handled in their order.
    host: Mutex<H>,
    workers: Mutex<BTreeMap<u64, Known>>,
    in_force: RwLock<Arc<InForce>>,
    pub(super) kernel: Kernel,
    pub(super) refusals: Mutex<Refusals>,
    pub(super) captures: Captures,
    serve: Serve<H>,
}

/// What a thread does for a worker.
pub(super) type Serve<H> = fn(&Arc<Opener<H>>, &Worker, Arc<WorkerChannel>);

/// A worker, and the channels on which its threads serve it.
struct Known {
    worker: Arc<Worker>,
    channels: [Arc<WorkerChannel>; 2],
}

#[expect(clippy::needless_pass_by_value, reason = "reads well in map_err")]
pub(super) fn unsent(error: ChannelError) -> RunError {
    RunError::Monitor(error.to_string())
}

impl<H: Host + Send + 'static> Opener<H> {
    pub(super) fn new(
        monitor: MonitorEnd,
        host: H,
        (policy, generation): (Policy, u64),
        serve: Serve<H>,
    ) -> Self {
        let captures = Captures::new(host.capture_limits());
        let kernel = Kernel(Namespaces::new(host.network_folders()));
        Self {
            monitor,
            captures,
            kernel,
            host: Mutex::new(host),
            workers: Mutex::default(),
            in_force: RwLock::new(Arc::new(InForce::new(policy, generation))),
            refusals: Mutex::new(Refusals::new()),
            serve,
        }
    }

    /// Handles what the monitor has sent. `false` if it has ended.
    pub(super) fn follow_monitor(
        self: &Arc<Self>,
        closing: &mut PromptClose,
    ) -> Result<bool, RunError> {
        let mut host = lock(&self.host);
        loop {
            match self.monitor.receive() {
                Ok((message, descriptors)) => {
                    self.handle(&mut *host, &message, descriptors, closing)?;
                }
                Err(ChannelError::NotReady) => return Ok(true),
                Err(ChannelError::Closed) => return Ok(false),
                Err(error) => return Err(RunError::Monitor(error.to_string())),
            }
        }
    }

    fn handle(
        self: &Arc<Self>,
        host: &mut H,
        message: &ToOpener,
        descriptors: Vec<OwnedFd>,
        closing: &mut PromptClose,
    ) -> Result<(), RunError> {
        let mut descriptors = descriptors.into_iter();
        let mut next =
            || descriptors.next().ok_or(RunError::Monitor("a descriptor is missing".to_owned()));
        match *message {
            ToOpener::Worker { worker } => {
                let channels = [next()?, next()?].map(WorkerChannel::over).map(Arc::new);
                let peer = sealed::read(next()?.as_fd(), PEER)?;
                let peer = postcard::from_bytes(&peer)
                    .map_err(|error| RunError::Monitor(error.to_string()))?;
                self.begin_worker(&Arc::new(Worker::new(worker, peer)), channels);
            }
            ToOpener::Reader { worker } => {
                let reader = next()?;
                // One that has ended gets no reader.
                let known = lock(&self.workers).get(&worker).map(|known| known.worker.account());
                if let Some(account) = known {
                    self.captures.add_reader(worker, account, reader);
                }
            }
            ToOpener::Accepted { worker, cookie } => {
                if let Some(known) = lock(&self.workers).get(&worker) {
                    known.worker.add(cookie);
                }
            }
            ToOpener::Closed { worker, cookie } => {
                if let Some(known) = lock(&self.workers).get(&worker) {
                    known.worker.remove(cookie);
                }
            }
            ToOpener::Ended { worker } => {
                self.forget(worker, closing);
                self.notify(&FromOpener::Forgotten)?;
            }
            ToOpener::Policy { generation } => {
                let policy = host.policy(next()?).map_err(RunError::Host)?;
                host.replaced(&policy);
                let in_force = Arc::new(InForce::new(policy, generation));
                *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = in_force;
                self.notify(&FromOpener::InForce { generation })?;
            }
            ToOpener::Hello(_) | ToOpener::Begin { .. } => {
                return Err(RunError::Monitor("it began twice".to_owned()));
            }
        }
        Ok(())
    }

    /// Sends the monitor a message. If it has ended, the main thread finds the end of the channel.
    fn notify(&self, message: &FromOpener) -> Result<(), RunError> {
        match self.monitor.send(message, &[]) {
            Ok(()) | Err(ChannelError::Closed) => Ok(()),
            Err(error) => Err(unsent(error)),
        }
    }

    /// Starts the threads of a worker, one for each channel: what takes long on one does not delay the other.
    fn begin_worker(self: &Arc<Self>, worker: &Arc<Worker>, channels: [Arc<WorkerChannel>; 2]) {
        let known = Known { worker: worker.clone(), channels: channels.clone() };
        lock(&self.workers).insert(worker.number, known);
        for channel in channels {
            let (opener, worker, serve) = (self.clone(), worker.clone(), self.serve);
            let (number, uid) = (worker.number, worker.uid());
            let thread = thread::Builder::new().stack_size(STACK).name(format!("worker {number}"));
            let for_thread = channel.clone();
            let started = thread.spawn(move || serve(&opener, &worker, for_thread));
            if let Err(error) = started {
                // The worker ends when it asks for something.
                shut_down(&channel);
                tracing::error!(uid, worker = number, %error, "cannot start a thread for a worker");
            }
        }
    }

    /// The policy in force.
    pub(super) fn in_force(&self) -> Arc<InForce> {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends a worker that broke the rules.
    pub(super) fn end(&self, worker: &Worker, reason: &'static str, closing: &mut PromptClose) {
        let (uid, number) = (worker.uid(), worker.number);
        tracing::error!(uid, worker = number, reason, "a worker sent nonsense to the opener");
        self.forget(number, closing);
        if let Err(error) = self.notify(&FromOpener::Nonsense { worker: number }) {
            self.fail(&error);
        }
    }

    /// Ends this process, because a message of the monitor cannot be handled.
    pub(super) fn fail(&self, error: &RunError) {
        tracing::error!(%error, "the opener cannot follow the monitor");
        // The main thread finds the end of the channel.
        socket::shutdown(self.monitor.as_fd(), libc::SHUT_RDWR).ok();
    }

    /// Ends the threads of a worker once their calls have returned.
    fn forget(&self, number: u64, closing: &mut PromptClose) {
        let Some(Known { worker, channels }) = lock(&self.workers).remove(&number) else { return };
        worker.forget_connections();
        worker.interrupt_threads();
        self.captures.forget(number);
        for channel in channels {
            shut_down(&channel);
            close(channel, closing);
        }
    }
}

/// Ends a channel in both directions: requests of the worker fail at once.
pub(super) fn shut_down(channel: &WorkerChannel) {
    // One that has ended needs none.
    socket::shutdown(channel.as_fd(), libc::SHUT_RDWR).ok();
}

/// Closes a channel, if no other thread has it. Sockets that were not received are closed with it.
pub(super) fn close(channel: Arc<WorkerChannel>, closing: &mut PromptClose) {
    if let Some(channel) = Arc::into_inner(channel) {
        closing.close(vec![channel.into_socket()]);
    }
}
