//! A running capture.

use std::any::Any;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sockbroker_monitor::capture::{
    Captures, Command, Counts, Ended, Failure, Interface, Live, Order, Reason, joined,
};
use sockbroker_monitor::reader::message::ToReader;
use sockbroker_monitor::request::Request;
use sockbroker_policy::Permit;
use sockbroker_policy::action::{OpenCapture, ScopedCapture};
use sockbroker_policy::namespace::Namespace;
use sockbroker_sys::message;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use super::ask::{ask, lost};
use super::inbox::Inbox;
use super::outcome::Outcome;
use super::reader::Link;
use crate::config::limits::Limits;
use crate::descriptor::Descriptor;
use crate::error::{During, OpError, OpResult};
use crate::network::caller_identity::CallerIdentity;
use crate::table::stream::{Body, Stream};

/// How long a capture may take to answer. It does so within a millisecond.
const ANSWER: Duration = Duration::from_secs(10);

/// Where a capture is read.
#[derive(Debug)]
pub(super) enum Way {
    Own((Arc<Captures>, Arc<Inbox>)),
    Reader(Arc<Link>),
}

impl Way {
    pub(super) fn inbox(&self) -> &Arc<Inbox> {
        match self {
            Self::Own((_, inbox)) => inbox,
            Self::Reader(link) => &link.inbox,
        }
    }
}

/// What the policy judged.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) namespace: Namespace,
    /// Without the program.
    pub(super) order: Order,
    /// The interfaces that it names, if it is read by this process.
    pub(super) interfaces: Vec<Interface>,
}

/// A capture. It ends when its handle is closed, or when this is dropped.
#[derive(Debug)]
pub struct Capture {
    number: u64,
    way: Way,
    outcome: Arc<Outcome>,
    live: Live,
    judged: Judged,
    /// The client's end of the stream, if its descriptor was not passed.
    pull: tokio::sync::Mutex<Option<AsyncFd<Descriptor>>>,
    /// Why it ends when its handle is closed.
    last: Mutex<Reason>,
    /// Whether it was asked to end.
    is_closing: AtomicBool,
}

impl Body for Capture {
    fn revoked(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Reason::Policy;
        self.close(Reason::Policy);
    }

    fn closed(&self) {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.close(last);
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // It has no handle if its opening has failed.
        self.closed();
    }
}

impl Capture {
    pub(super) fn new(
        number: u64,
        way: Way,
        outcome: Arc<Outcome>,
        live: Live,
        judged: Judged,
    ) -> Self {
        let (pull, last) = (tokio::sync::Mutex::new(None), Mutex::new(Reason::Stopped));
        let is_closing = AtomicBool::new(false);
        Self { number, way, outcome, live, judged, pull, last, is_closing }
    }

    /// The capture of a stream, if it is one.
    pub fn of(stream: &Stream) -> Option<Arc<Self>> {
        let body: Arc<dyn Any + Send + Sync> = stream.body()?;
        body.downcast().ok()
    }

    /// What the client learns at the start.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// What was asked for, without the program.
    pub fn order(&self) -> &Order {
        &self.judged.order
    }

    /// The names of its interfaces, or `any`.
    pub fn interfaces(&self) -> String {
        match &*self.judged.order.interfaces {
            [] => "any".to_owned(),
            names => names.join(","),
        }
    }

    /// The network namespace of its socket.
    pub fn namespace(&self) -> &Namespace {
        &self.judged.namespace
    }

    /// Keeps the client's end of the stream for [`Self::read`].
    pub fn keep(&mut self, stream: AsyncFd<Descriptor>) {
        *self.pull.get_mut() = Some(stream);
    }

    /// How it has ended, if it has.
    pub fn outcome(&self) -> Option<Ended> {
        self.outcome.get()
    }

    /// The counts that were read last.
    pub fn latest(&self) -> Counts {
        self.outcome.highest()
    }

    /// Calls this when it has ended.
    pub fn at_end(&self, at_end: impl FnOnce(Ended) + Send + 'static) {
        self.outcome.at_end(at_end);
    }

    /// Waits until it has ended.
    pub fn ended(&self) -> impl Future<Output = Ended> + Send + use<> {
        let outcome = self.outcome.clone();
        async move { outcome.ended().await }
    }

    fn close(&self, reason: Reason) {
        if self.outcome.get().is_some() || self.is_closing.swap(true, Ordering::Relaxed) {
            return;
        }
        match &self.way {
            Way::Own((captures, _)) => captures.command(self.number, Command::Close(reason)),
            Way::Reader(link) => {
                // Without the process the capture has ended.
                link.send(&ToReader::Close { capture: self.number, reason });
            }
        }
    }

    /// Its counts so far, also after its end.
    pub async fn counts(&self) -> OpResult<Counts> {
        if let Some(ended) = self.outcome.get() {
            return Ok(ended.counts);
        }
        let (request, counted) = self.way.inbox().expect_counts();
        match &self.way {
            Way::Own((captures, _)) => captures.command(self.number, Command::Counts { request }),
            Way::Reader(link) => {
                if !link.send(&ToReader::Counts { request, capture: self.number }) {
                    return Err(lost());
                }
            }
        }
        let answered = timeout(ANSWER, counted).await.map_err(|_late| lost())?;
        match answered.ok().flatten() {
            Some(counts) => {
                self.outcome.note(counts);
                Ok(counts)
            }
            // It has ended meanwhile.
            None => Ok(self.outcome.ended().await.counts),
        }
    }

    /// Replaces the program of the client. Returns between which times. The permit is one for this capture.
    pub async fn set_filter(
        &self,
        permit: Permit<ScopedCapture>,
        program: Vec<u8>,
        caller: &CallerIdentity,
        limits: &Limits,
    ) -> OpResult<(u64, u64)> {
        const CALL: &str = "capture.set_filter";
        let (request, replaced) = self.way.inbox().expect_filter();
        match &self.way {
            Way::Own((captures, _)) => {
                let (OpenCapture { interfaces, snaplen, promiscuous }, scopes) =
                    permit.into_request().into_parts();
                let order = self.judged.order.clone();
                let order = Order { program, interfaces, snaplen, promiscuous, ..order };
                let program = joined(&order, &self.judged.interfaces, &scopes);
                let program = program.map_err(|error| OpError::value(error.to_string()))?;
                captures.command(self.number, Command::SetFilter { request, program });
            }
            Way::Reader(_) => {
                let capture = self.number;
                let request = Request::SetCaptureFilter { request, capture, program };
                // The opener knows the namespace of the capture.
                ask(caller, (&Namespace::Broker, None), request, limits).await?;
            }
        }
        let answered = timeout(ANSWER, replaced).await.map_err(|_late| lost())?;
        match answered.ok().flatten() {
            Some(Ok(times)) => Ok(times),
            Some(Err(Failure(errno))) => Err(OpError::Os { call: CALL, errno }),
            None => Err(OpError::Plain("capture: it has ended".to_owned())),
        }
    }

    /// Ends it after some time, and waits until it has ended.
    pub async fn stop(&self, linger: Duration) -> OpResult<Ended> {
        let milliseconds = u32::try_from(linger.as_millis()).unwrap_or(u32::MAX);
        let sent = match &self.way {
            _ if self.outcome.get().is_some() => true,
            Way::Own((captures, _)) => {
                captures.command(self.number, Command::Stop { linger: milliseconds });
                true
            }
            Way::Reader(link) => {
                link.send(&ToReader::Stop { capture: self.number, linger: milliseconds })
            }
        };
        if !sent {
            return Err(lost());
        }
        timeout(ANSWER + linger, self.outcome.ended()).await.map_err(|_late| lost())
    }

    /// Reads at most `length` bytes of the stream; none at its end. Waits until there is something.
    pub async fn read(&self, length: usize) -> OpResult<Vec<u8>> {
        const CALL: &str = "capture.read";
        let pull = self.pull.lock().await;
        let Some(stream) = &*pull else {
            return Err(OpError::value("the descriptor of the stream was passed: read from it"));
        };
        loop {
            let mut ready = stream.readable().await.during(CALL)?;
            match message::receive(stream.get_ref().as_fd(), length, libc::MSG_DONTWAIT) {
                Ok(received) => return Ok(received.data),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) => return Err(OpError::os(CALL, error)),
            }
        }
    }
}
