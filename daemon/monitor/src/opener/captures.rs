//! The captures of all workers: their limits, and the readers that get their sockets.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Mutex;
use std::thread;

use sockbroker_policy::namespace::Namespace;
use sockbroker_policy::rights::Rights;

use super::answer::{Client, Outcome, answer};
use super::calls::SystemCalls;
use super::host::CaptureLimits;
use super::judge;
use super::workers::lock;
use crate::capture::{Interface, Order, joined};
use crate::channel::ChannelError;
use crate::reader::message::{OrderChannel, ReaderOrder, ReaderReport};
use crate::request::{Answer, CaptureLimit, OpenerRequest, Request, SelectedNamespace};
use crate::socket_facts::KernelSocket;
use crate::subject::Connection;

/// The readers by their workers.
#[derive(Debug)]
pub(super) struct Captures {
    limits: CaptureLimits,
    readers: Mutex<BTreeMap<u64, Reader>>,
}

#[derive(Debug)]
struct Reader {
    channel: OrderChannel,
    /// The user for whom its captures count. A user in several network namespaces has a worker in each.
    account: u32,
    running: BTreeMap<u64, Running>,
}

/// A capture that was opened, or is being opened.
#[derive(Debug)]
struct Running {
    bytes: u64,
    opened: Option<Kept>,
}

/// What an open capture captures, for the judgement of its later filters.
#[derive(Debug)]
struct Kept {
    /// Without the program.
    order: Order,
    interfaces: Vec<Interface>,
    namespace: Namespace,
}

impl Reader {
    /// Forgets the captures that have ended. `false` if the reader has.
    fn follow(&mut self) -> bool {
        loop {
            match self.channel.receive() {
                Ok((ReaderReport::Ended { capture }, _)) => drop(self.running.remove(&capture)),
                Ok((ReaderReport::Resumed { capture, opened }, _)) => {
                    let interfaces = opened.interfaces();
                    let bytes = opened.order.buffer_bytes;
                    let order = opened.order;
                    // Those of other namespaces do not outlive a reader.
                    let namespace = Namespace::Broker;
                    let opened = Some(Kept { order, interfaces, namespace });
                    self.running.insert(capture, Running { bytes, opened });
                }
                Err(ChannelError::NotReady) => return true,
                Err(_) => return false,
            }
        }
    }

    fn bytes(&self) -> u64 {
        self.running.values().map(|running| running.bytes).sum()
    }
}

/// Drops a reader apart: sockets that it has not received are closed then, which takes some ten milliseconds for each.
fn drop_on_thread(reader: Option<Reader>) {
    if let Some(reader) = reader {
        thread::spawn(move || drop(reader));
    }
}

impl Captures {
    pub(super) fn new(limits: CaptureLimits) -> Self {
        Self { limits, readers: Mutex::default() }
    }

    /// Whether a worker has a reader that has not ended. After the end of one the monitor sends another.
    pub(super) fn has_reader(&self, worker: u64) -> bool {
        lock(&self.readers).get_mut(&worker).is_some_and(Reader::follow)
    }

    /// Takes the channel to the reader of a worker. The captures of an earlier one have ended.
    pub(super) fn add_reader(&self, worker: u64, account: u32, channel: OwnedFd) {
        let (channel, running) = (OrderChannel::over(channel), BTreeMap::new());
        let reader = Reader { channel, account, running };
        drop_on_thread(lock(&self.readers).insert(worker, reader));
    }

    /// Forgets a worker that has ended. Its reader ends without it.
    pub(super) fn forget(&self, worker: u64) {
        drop_on_thread(lock(&self.readers).remove(&worker));
    }

    pub(super) fn serve<S: KernelSocket, C: Connection>(
        &self,
        kernel: &impl SystemCalls<S, C>,
        worker: u64,
        client: Client<'_, C>,
        opener_request: OpenerRequest,
        passed: Option<S>,
    ) -> Outcome {
        match opener_request {
            OpenerRequest { network, request: Request::Capture { capture, order } } => {
                self.open(kernel, worker, client, (network, passed), (capture, order))
            }
            OpenerRequest {
                network: _,
                request: Request::SetCaptureFilter { request, capture, program },
            } => self.set_filter(worker, client.rights, (request, capture), program),
            other => answer(kernel, client, other, passed),
        }
    }

    fn open<S: KernelSocket, C: Connection>(
        &self,
        kernel: &impl SystemCalls<S, C>,
        worker: u64,
        client: Client<'_, C>,
        (network, passed): (SelectedNamespace, Option<S>),
        (capture, order): (u64, Order),
    ) -> Outcome {
        if let Err(refused) = self.reserve(worker, capture, order.buffer_bytes) {
            return refused;
        }
        let opener_request =
            OpenerRequest { network, request: Request::Capture { capture, order } };
        // Not under the lock: it takes some ten milliseconds.
        let outcome = match answer(kernel, client, opener_request, passed) {
            Outcome::Capture(socket, opened, namespace) => {
                let (order, interfaces) = (opened.order.clone(), opened.interfaces());
                let kept = Kept { order, interfaces, namespace };
                let order = ReaderOrder::Open { capture, opened: *opened };
                self.pass(worker, capture, &order, &socket, kept)
            }
            other => other,
        };
        if !matches!(outcome, Outcome::Answer(Answer::Done))
            && let Some(reader) = lock(&self.readers).get_mut(&worker)
        {
            reader.running.remove(&capture);
        }
        outcome
    }

    /// Counts a capture before it is opened.
    fn reserve(&self, worker: u64, capture: u64, bytes: u64) -> Result<(), Outcome> {
        let mut readers = lock(&self.readers);
        let ended: Vec<_> = readers
            .iter_mut()
            .filter_map(|(worker, one)| (!one.follow()).then_some(*worker))
            .collect();
        for worker in ended {
            drop_on_thread(readers.remove(&worker));
        }
        let sum = |counts: &dyn Fn(&Reader) -> bool| {
            let readers = readers.values().filter(|one| counts(one));
            readers.fold((0, 0), |(captures, bytes), one| {
                (captures + one.running.len() as u64, bytes + one.bytes())
            })
        };
        let account = readers.get(&worker).map(|reader| reader.account);
        let (of_user, bytes_of_user) = sum(&|one| Some(one.account) == account);
        let (in_all, bytes_in_all) = sum(&|_| true);
        let Some(reader) = readers.get_mut(&worker) else {
            return Err(Outcome::Answer(Answer::Failed(libc::ECONNRESET)));
        };
        let limit = if of_user >= self.limits.of_user {
            Some(CaptureLimit::OfUser)
        } else if in_all >= self.limits.in_all {
            Some(CaptureLimit::InAll)
        } else if bytes_of_user.saturating_add(bytes) > self.limits.bytes_of_user {
            Some(CaptureLimit::BytesOfUser)
        } else if bytes_in_all.saturating_add(bytes) > self.limits.bytes_in_all {
            Some(CaptureLimit::BytesInAll)
        } else {
            None
        };
        if let Some(limit) = limit {
            return Err(Outcome::Answer(Answer::Limit(limit)));
        }
        if reader.running.contains_key(&capture) {
            return Err(Outcome::Nonsense("it opened a capture twice"));
        }
        reader.running.insert(capture, Running { bytes, opened: None });
        Ok(())
    }

    /// Passes a socket to the reader.
    fn pass(
        &self,
        worker: u64,
        capture: u64,
        order: &ReaderOrder,
        socket: &OwnedFd,
        kept: Kept,
    ) -> Outcome {
        let mut readers = lock(&self.readers);
        let Some(reader) = readers.get_mut(&worker) else {
            return Outcome::Answer(Answer::Failed(libc::ECONNRESET));
        };
        if let Err(error) = reader.channel.send(order, &[socket.as_fd()]) {
            tracing::error!(worker, %error, "cannot pass a capture to its reader");
            return Outcome::Answer(Answer::Failed(libc::ECONNRESET));
        }
        if let Some(running) = reader.running.get_mut(&capture) {
            running.opened = Some(kept);
        }
        Outcome::Answer(Answer::Done)
    }

    /// Replaces the program of a capture that is still granted.
    fn set_filter(
        &self,
        worker: u64,
        rights: &Rights,
        (request, capture): (u64, u64),
        program: Vec<u8>,
    ) -> Outcome {
        let mut readers = lock(&self.readers);
        let Some(reader) = readers.get_mut(&worker) else {
            return Outcome::Answer(Answer::Failed(libc::ECONNRESET));
        };
        // It may have continued the capture of an earlier one.
        reader.follow();
        let opened = reader.running.get(&capture).and_then(|running| running.opened.as_ref());
        let Some(Kept { order, interfaces, namespace }) = opened else {
            return Outcome::Answer(Answer::Failed(libc::ESRCH));
        };
        let scoped = match judge::capture(rights.within(namespace), order) {
            Ok(permit) => permit.into_request(),
            Err(refusal) => return refusal.into(),
        };
        let order = Order { program, ..order.clone() };
        let Ok(program) = joined(&order, interfaces, scoped.scopes()) else {
            return Outcome::Answer(Answer::Failed(libc::EINVAL));
        };
        let order = ReaderOrder::SetFilter { request, capture, program };
        match reader.channel.send(&order, &[]) {
            Ok(()) => Outcome::Answer(Answer::Done),
            Err(_) => Outcome::Answer(Answer::Failed(libc::ECONNRESET)),
        }
    }
}
