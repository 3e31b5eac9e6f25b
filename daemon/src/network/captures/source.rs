//! Opens captures.

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sockbroker_monitor::capture::{Captures, Failure, Opened, Order, begin, open};
use sockbroker_monitor::message::ReaderRefusal;
use sockbroker_monitor::request::Request;
use sockbroker_policy::Permit;
use sockbroker_policy::action::{OpenCapture, ScopedCapture};
use sockbroker_policy::capture_scope::CaptureScope;
use sockbroker_policy::namespace::Namespace;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::ask::{ask, lost};
use super::capture::{Capture, CaptureRecord, Judged, RECORD};
use super::inbox::Inbox;
use super::linked::{KeptCaptures, Linked, Way};
use super::outcome::Outcome;
use super::reader::{Missing, Reader};
use super::totals::{Sums, Totals};
use crate::config::limits::Limits;
use crate::error::{During, OpError, OpResult};
use crate::network::caller_identity::CallerIdentity;
use crate::network::other_namespace::{self, Selection};
use crate::quota::{Share, User};

/// How long the reader may take to begin.
const BEGIN: Duration = Duration::from_secs(10);
const CALL: &str = "capture.open";

/// Where the captures of this process are read.
#[derive(Debug)]
pub struct CaptureSource {
    /// The threads of this process, for captures that it opens itself.
    own: OnceLock<(Arc<Captures>, Arc<Inbox>)>,
    /// The process for those of the opener.
    reader: Option<Arc<Reader>>,
    totals: Arc<Totals>,
}

/// A capture that has begun, and the client's end of its stream.
#[derive(Debug)]
pub struct Opening {
    pub capture: Capture,
    pub stream: OwnedFd,
}

impl CaptureSource {
    /// Captures are read by this process, or by one that it starts.
    pub fn new(reader: Option<Reader>) -> Self {
        Self { own: OnceLock::new(), reader: reader.map(Arc::new), totals: Arc::default() }
    }

    /// Waits until the captures that run now have ended.
    pub async fn ended(&self) {
        for outcome in self.totals.running() {
            outcome.ended().await;
        }
    }

    /// The sums of all captures, with the counts of running ones that [`Capture::counts`] has read last.
    pub fn sums(&self) -> Sums {
        self.totals.sums()
    }

    /// Ends the process that reads captures if it had nothing to do for this time.
    pub fn end_idle(&self, longest: Duration) {
        if let Some(reader) = &self.reader {
            reader.end_idle(longest);
        }
    }

    /// Whether that process runs.
    pub fn is_running(&self) -> bool {
        self.reader.as_ref().is_some_and(|reader| reader.is_running())
    }

    /// Opens a capture. Returns when its ring is live.
    pub async fn open(
        &self,
        permit: Permit<ScopedCapture>,
        order: Order,
        selection: Selection,
        caller: &CallerIdentity,
        (user, limits): (&Arc<User>, &Limits),
    ) -> OpResult<Opening> {
        let namespace = permit.namespace().clone();
        let held =
            (user.take(Share::Captures, 1)?, user.take(Share::CaptureBytes, order.buffer_bytes)?);
        let direct = caller.privileged().is_direct();
        let made = if direct && namespace != Namespace::Broker {
            Some(other_namespace::capture_socket(&permit, &selection, caller.privileged())?)
        } else {
            None
        };
        let lines = permit.request().lines();
        let (OpenCapture { interfaces, snaplen, promiscuous }, scopes) =
            permit.into_request().into_parts();
        let order = Order { interfaces, snaplen, promiscuous, ..order };
        let kept = Order { program: Vec::new(), ..order.clone() };
        let way = match &self.reader {
            Some(reader) if !direct => {
                Way::Reader(reader.link(&self.totals).await.map_err(missing)?)
            }
            Some(_) | None => Way::Own(self.own()),
        };
        let (number, outcome, begun) = way.inbox().expect(held);
        // Until the capture has begun, an error or a cancellation forgets it.
        let mut expected = Expected { way: Some(way), number };
        let mut interfaces = Vec::new();
        match &expected.way {
            Some(Way::Own((captures, _))) => {
                let (socket, opened) = begin_on_thread(made, order, scopes).await?;
                interfaces = opened.interfaces();
                captures.start(number, opened, socket);
            }
            Some(Way::Reader(_)) => {
                let request = Request::Capture { capture: number, order };
                ask(caller, (&namespace, selection.passed), request, limits).await?;
            }
            None => {}
        }
        let begun = timeout(BEGIN, begun).await.map_err(|_late| lost())?;
        let (live, stream) = begun
            .map_err(|_ended| lost())?
            .map_err(|Failure(errno)| OpError::Os { call: CALL, errno })?;
        let way = expected.way.take().ok_or_else(lost)?;
        let judged = Judged { namespace, order: kept, interfaces, lines };
        let linked = Linked::new(number, outcome, self.totals.clone(), Some(way));
        Ok(Opening { capture: Capture::new(linked, self.kept(), live, judged), stream })
    }

    fn kept(&self) -> Arc<KeptCaptures> {
        self.reader.as_ref().map(|reader| reader.kept.clone()).unwrap_or_default()
    }

    /// Whether a capture runs that outlives this process.
    pub fn has_kept(&self) -> bool {
        !self.kept().is_empty()
    }

    /// A capture that an earlier process has left with this record. [`Self::resume`] MUST follow.
    pub fn recover(&self, record: &[u8], user: &Arc<User>) -> Result<Capture, String> {
        let (version, rest) = record.split_first().ok_or("it is empty")?;
        if *version != RECORD {
            return Err(format!(
                "it has version {version}, and this broker reads version {RECORD}"
            ));
        }
        let record = postcard::from_bytes(rest).map_err(|error| error.to_string())?;
        let CaptureRecord { number, order, live, lines } = record;
        let outcome = Arc::new(Outcome::default());
        let linked = Linked::new(number, outcome.clone(), self.totals.clone(), None);
        let bytes = user.take_back(Share::CaptureBytes, order.buffer_bytes);
        linked.note_recovered((user.take_back(Share::Captures, 1), bytes));
        self.totals.begin(outcome);
        let kept = self.kept();
        kept.add(&linked);
        let (namespace, interfaces) = (Namespace::Broker, Vec::new());
        let judged = Judged { namespace, order, interfaces, lines };
        Ok(Capture::new(linked, kept, live, judged))
    }

    /// Continues the captures that were recovered.
    pub fn resume(&self) {
        if let Some(reader) = &self.reader {
            reader.resume(self.totals.clone());
        }
    }

    fn own(&self) -> (Arc<Captures>, Arc<Inbox>) {
        let own = self.own.get_or_init(|| {
            let inbox = Arc::new(Inbox::new(self.totals.clone()));
            let reports = inbox.clone();
            (Arc::new(Captures::new(Arc::new(move |event| reports.deliver(event)))), inbox)
        });
        own.clone()
    }
}

/// A capture that has not begun.
struct Expected {
    way: Option<Way>,
    number: u64,
}

impl Drop for Expected {
    fn drop(&mut self) {
        if let Some(way) = &self.way {
            way.inbox().forget(self.number);
        }
    }
}

/// Begins on a thread, because it takes some ten milliseconds; on a new socket, unless one was made elsewhere.
async fn begin_on_thread(
    made: Option<OwnedFd>,
    order: Order,
    scopes: Vec<CaptureScope>,
) -> OpResult<(OwnedFd, Opened)> {
    let opened = spawn_blocking(move || match made {
        Some(socket) => begin(socket, order, &scopes),
        None => open(order, &scopes),
    });
    match opened.await {
        Ok(opened) => opened.during(CALL),
        Err(error) => std::panic::resume_unwind(Box::new(error.to_string())),
    }
}

fn missing(missing: Missing) -> OpError {
    match missing {
        Missing::Ended => lost(),
        Missing::Refused(ReaderRefusal::NoOpener) => OpError::Os { call: CALL, errno: libc::EPERM },
        Missing::Refused(ReaderRefusal::Starts | ReaderRefusal::Ids) => {
            OpError::Os { call: CALL, errno: libc::EAGAIN }
        }
        Missing::Refused(ReaderRefusal::Failed(errno)) => OpError::Os { call: CALL, errno },
    }
}
