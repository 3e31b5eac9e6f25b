//! A running capture.

use std::any::Any;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sockbroker_monitor::capture::{
    Command, Counts, Ended, Failure, Interface, Live, Order, Reason, joined,
};
use sockbroker_monitor::reader::message::ToReader;
use sockbroker_monitor::request::Request;
use sockbroker_policy::Permit;
use sockbroker_policy::action::{OpenCapture, ScopedCapture};
use sockbroker_policy::namespace::Namespace;
use sockbroker_policy::rights::Rights;
use sockbroker_sys::message;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use super::ask::{ask, lost};
use super::linked::{KeptCaptures, Linked, Way};
use crate::config::limits::Limits;
use crate::descriptor::Descriptor;
use crate::error::{During, OpError, OpResult};
use crate::network::caller_identity::CallerIdentity;
use crate::table::stream::{Body, Granted, Keeping, Stream};

/// How long a capture may take to answer. It does so within a millisecond.
const ANSWER: Duration = Duration::from_secs(10);
/// The processes that are asked for the counts of a capture, one after the end of the other.
const ATTEMPTS: usize = 4;

/// What the policy judged.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) namespace: Namespace,
    /// Without the program.
    pub(super) order: Order,
    /// The interfaces that it names, if it is read by this process.
    pub(super) interfaces: Vec<Interface>,
    /// What rules let through.
    pub(super) lines: Vec<String>,
}

/// The version of [`CaptureRecord`] that is written and read.
pub(super) const RECORD: u8 = 1;

/// What the next process has to know of a capture, besides what the one that reads it knows.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CaptureRecord {
    pub(super) number: u64,
    pub(super) order: Order,
    pub(super) live: Live,
    pub(super) lines: Vec<String>,
}

/// A capture. It ends when its handle is closed, or when this is dropped.
#[derive(Debug)]
pub struct Capture {
    linked: Arc<Linked>,
    kept: Arc<KeptCaptures>,
    live: Live,
    judged: Judged,
    /// The client's end of the stream, if its descriptor was not passed.
    pull: tokio::sync::Mutex<Option<AsyncFd<Descriptor>>>,
    /// Why it ends when its handle is closed.
    last: Mutex<Reason>,
}

impl Body for Capture {
    fn revoked(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Reason::Policy;
        self.close(Reason::Policy);
    }

    fn keep(self: Arc<Self>) -> Keeping {
        Box::pin(async move { self.keep_alive().await })
    }

    fn left(&self) {
        self.linked.leave();
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
        linked: Arc<Linked>,
        kept: Arc<KeptCaptures>,
        live: Live,
        judged: Judged,
    ) -> Self {
        let (pull, last) = (tokio::sync::Mutex::new(None), Mutex::new(Reason::Stopped));
        Self { linked, kept, live, judged, pull, last }
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

    /// Whether rights still let the packets through that they did at the start.
    pub fn granted(&self) -> Box<Granted> {
        let Judged { namespace, order, lines, .. } = &self.judged;
        let (namespace, lines) = (namespace.clone(), lines.clone());
        let wanted = OpenCapture {
            interfaces: order.interfaces.clone(),
            snaplen: order.snaplen,
            promiscuous: order.promiscuous,
        };
        Box::new(move |rights: &Rights| {
            let permit = rights.within(&namespace).authorize_capture(wanted.clone());
            permit.is_ok_and(|permit| permit.request().lines() == lines)
        })
    }

    /// Keeps the client's end of the stream for [`Self::read`].
    pub fn keep(&mut self, stream: AsyncFd<Descriptor>) {
        *self.pull.get_mut() = Some(stream);
    }

    /// How it has ended, if it has.
    pub fn outcome(&self) -> Option<Ended> {
        self.linked.outcome.get()
    }

    /// The counts that were read last.
    pub fn latest(&self) -> Counts {
        self.linked.outcome.highest()
    }

    /// Calls this when it has ended.
    pub fn at_end(&self, at_end: impl FnOnce(Ended) + Send + 'static) {
        self.linked.outcome.at_end(at_end);
    }

    /// Waits until it has ended.
    pub fn ended(&self) -> impl Future<Output = Ended> + Send + use<> {
        let outcome = self.linked.outcome.clone();
        async move { outcome.ended().await }
    }

    fn close(&self, reason: Reason) {
        if !self.linked.close(reason) {
            return;
        }
        let capture = self.linked.number;
        match &*self.linked.way.borrow() {
            Some(Way::Own((captures, _))) => captures.command(capture, Command::Close(reason)),
            // Without the process the capture has ended, or the next one gets the command.
            Some(Way::Reader(link)) => drop(link.send(&ToReader::Close { capture, reason })),
            None => {}
        }
    }

    /// Where it is read, once it is; `None` if it has ended.
    async fn way(&self) -> OpResult<Option<Way>> {
        let mut ways = self.linked.way.subscribe();
        let linked = async {
            let way = ways.wait_for(Option::is_some).await;
            way.ok().and_then(|way| way.clone())
        };
        let ended = self.linked.outcome.ended();
        let wait = async {
            tokio::select! {
                // Its reader can be linked still.
                biased;
                _ = ended => None,
                way = linked => way,
            }
        };
        timeout(ANSWER, wait).await.map_err(|_late| lost())
    }

    /// Its counts so far, also after its end.
    pub async fn counts(&self) -> OpResult<Counts> {
        for _ in 0..ATTEMPTS {
            if let Some(ended) = self.linked.outcome.get() {
                return Ok(ended.counts);
            }
            let mut ways = self.linked.way.subscribe();
            let Some(way) = self.way().await? else { continue };
            let (request, counted) = way.inbox().expect_counts();
            let capture = self.linked.number;
            let sent = match &way {
                Way::Own((captures, _)) => {
                    captures.command(capture, Command::Counts { request });
                    true
                }
                Way::Reader(link) => link.send(&ToReader::Counts { request, capture }),
            };
            if sent && let Ok(answered) = timeout(ANSWER, counted).await.map_err(|_late| lost())? {
                return match answered {
                    Some(counts) => {
                        self.linked.outcome.note(counts);
                        Ok(counts)
                    }
                    // It has ended meanwhile.
                    None => Ok(self.linked.outcome.ended().await.counts),
                };
            }
            // The process has ended. Another one continues what outlives it.
            let changed = async {
                tokio::select! {
                    _ = ways.changed() => {}
                    _ = self.linked.outcome.ended() => {}
                }
            };
            timeout(ANSWER, changed).await.map_err(|_late| lost())?;
        }
        Err(lost())
    }

    /// Lets it outlive this process and the one that reads it. Returns what the next process has to know; `None` if it
    /// cannot, or has ended.
    async fn keep_alive(&self) -> OpResult<Option<Vec<u8>>> {
        let is_read_here = self.pull.lock().await.is_some();
        if is_read_here || self.judged.namespace != Namespace::Broker {
            return Ok(None);
        }
        let Some(Way::Reader(link)) = self.way().await? else { return Ok(None) };
        if !self.linked.is_kept() {
            let (request, kept) = link.inbox().expect_kept();
            if !link.send(&ToReader::Keep { request, capture: self.linked.number }) {
                return Err(lost());
            }
            let kept = timeout(ANSWER, kept).await.map_err(|_late| lost())?;
            match kept.map_err(|_ended| lost())? {
                Some(Ok(())) => self.kept.add(&self.linked),
                Some(Err(Failure(errno))) => {
                    return Err(OpError::Os { call: "capture.open", errno });
                }
                None => return Ok(None),
            }
        }
        let Judged { order, lines, .. } = &self.judged;
        let (order, live, lines) = (order.clone(), self.live.clone(), lines.clone());
        let record = CaptureRecord { number: self.linked.number, order, live, lines };
        let record = postcard::to_stdvec(&(RECORD, record));
        record.map(Some).map_err(|error| OpError::Plain(error.to_string()))
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
        let over = || OpError::Plain("capture: it has ended".to_owned());
        let way = self.way().await?.ok_or_else(over)?;
        let (request, replaced) = way.inbox().expect_filter();
        match &way {
            Way::Own((captures, _)) => {
                let (OpenCapture { interfaces, snaplen, promiscuous }, scopes) =
                    permit.into_request().into_parts();
                let order = self.judged.order.clone();
                let order = Order { program, interfaces, snaplen, promiscuous, ..order };
                let program = joined(&order, &self.judged.interfaces, &scopes);
                let program = program.map_err(|error| OpError::value(error.to_string()))?;
                captures.command(self.linked.number, Command::SetFilter { request, program });
            }
            Way::Reader(_) => {
                let capture = self.linked.number;
                let request = Request::SetCaptureFilter { request, capture, program };
                // The opener knows the namespace of the capture.
                ask(caller, (&Namespace::Broker, None), request, limits).await?;
            }
        }
        let answered = timeout(ANSWER, replaced).await.map_err(|_late| lost())?;
        match answered.ok().flatten() {
            Some(Ok(times)) => Ok(times),
            Some(Err(Failure(errno))) => Err(OpError::Os { call: CALL, errno }),
            None => Err(over()),
        }
    }

    /// Ends it after some time, and waits until it has ended.
    pub async fn stop(&self, linger: Duration) -> OpResult<Ended> {
        let milliseconds = u32::try_from(linger.as_millis()).unwrap_or(u32::MAX);
        self.linked.note_stop(milliseconds);
        let (capture, way) = (self.linked.number, self.way().await?);
        let sent = match &way {
            // It has ended.
            None => true,
            Some(Way::Own((captures, _))) => {
                captures.command(capture, Command::Stop { linger: milliseconds });
                true
            }
            Some(Way::Reader(link)) => {
                // The next process gets the command, if this one has ended and the capture outlives it.
                link.send(&ToReader::Stop { capture, linger: milliseconds })
                    || self.linked.is_kept()
            }
        };
        if !sent {
            return Err(lost());
        }
        timeout(ANSWER + linger, self.linked.outcome.ended()).await.map_err(|_late| lost())
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
