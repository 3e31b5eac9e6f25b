//! The process that reads the captures of this worker (`sockbroker_monitor::reader`).
//!
//! The monitor starts it at the first capture. It ends some time after the last one.

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use sockbroker_monitor::capture::{Counts, Event};
use sockbroker_monitor::channel::ChannelError;
use sockbroker_monitor::message::{Build, ReaderRefusal};
use sockbroker_monitor::reader::message::{ReaderAnswer, ReaderChannel, ToReader};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::inbox::Inbox;
use super::linked::{Commands, KeptCaptures};
use super::totals::Totals;
use crate::table::readiness::register;

/// How long the process may take to start.
const START: Duration = Duration::from_secs(10);
/// How often, and how long after each other, a process is started that continues captures.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);

/// The worker's end of the channel, or why there is no process.
pub type Started = Result<OwnedFd, ReaderRefusal>;
/// Asks the monitor to start the process.
type Starter = Box<dyn Fn() -> oneshot::Receiver<Started> + Send + Sync>;

/// Why there is no process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Refused(ReaderRefusal),
    Ended,
}

/// The process, started when it is needed.
pub struct Reader {
    start: Starter,
    link: tokio::sync::Mutex<Option<Arc<Link>>>,
    /// The captures that another process continues when this one ends.
    pub(super) kept: Arc<KeptCaptures>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reader")
    }
}

impl Reader {
    pub fn new(start: impl Fn() -> oneshot::Receiver<Started> + Send + Sync + 'static) -> Self {
        let (link, kept) = (tokio::sync::Mutex::new(None), Arc::default());
        Self { start: Box::new(start), link, kept }
    }

    /// The process, which is started if it does not run, and whose captures are counted there.
    pub(super) async fn link(self: &Arc<Self>, totals: &Arc<Totals>) -> Result<Arc<Link>, Missing> {
        let mut running = self.link.lock().await;
        if let Some(link) = running.as_ref().filter(|link| !link.is_lost()) {
            link.note_use();
            return Ok(link.clone());
        }
        *running = None;
        let started = (self.start)().await.map_err(|_ended| Missing::Ended)?;
        let link = Link::begin(started.map_err(Missing::Refused)?, totals.clone(), self);
        let (link, continued) = link.await.map_err(|error| {
            tracing::error!(error, "the process that reads captures did not start");
            Missing::Ended
        })?;
        let link = running.insert(Arc::new(link)).clone();
        let commands: Arc<dyn Commands> = link.clone();
        self.kept.link(&continued, &commands);
        Ok(link)
    }

    /// Starts a process for the captures that no process reads.
    pub(super) fn resume(self: &Arc<Self>, totals: Arc<Totals>) {
        if self.kept.is_empty() {
            return;
        }
        let reader = Arc::downgrade(self);
        #[expect(
            clippy::disallowed_methods,
            reason = "it belongs to no session, and ends by itself"
        )]
        tokio::spawn(async move {
            for _ in 0..ATTEMPTS {
                let Some(reader) = reader.upgrade() else { return };
                match reader.link(&totals).await {
                    Ok(_) => return,
                    Err(reason) => tracing::warn!(?reason, "cannot continue captures yet"),
                }
                tokio::time::sleep(PAUSE).await;
            }
            if let Some(reader) = reader.upgrade() {
                reader.kept.lose_all();
            }
        });
    }

    /// Whether the process runs, or is about to.
    pub(super) fn is_running(&self) -> bool {
        self.link.try_lock().map_or(true, |running| running.is_some())
    }

    /// Ends the process if it had nothing to do for this time.
    pub(super) fn end_idle(&self, longest: Duration) {
        // A call that holds the lock uses the process.
        if let Ok(mut running) = self.link.try_lock()
            && running.as_ref().is_some_and(|link| link.is_idle(longest))
        {
            *running = None;
        }
    }
}

/// The channel to a running process.
#[derive(Debug)]
pub(super) struct Link {
    channel: Arc<ReaderChannel>,
    pub(super) inbox: Arc<Inbox>,
    lost: Arc<AtomicBool>,
    used: Mutex<Instant>,
    /// Dropped with the link: the task that follows the process then ends, and the process with it.
    _kept: oneshot::Sender<()>,
}

impl Link {
    /// Waits until the process is confined. Returns also the captures that it continues.
    async fn begin(
        channel: OwnedFd,
        totals: Arc<Totals>,
        reader: &Arc<Reader>,
    ) -> Result<(Self, Vec<u64>), String> {
        let text = |error: io::Error| error.to_string();
        let copy = channel.as_fd().try_clone_to_owned().map_err(text)?;
        let ready = register(copy, Interest::READABLE).map_err(text)?;
        let channel = Arc::new(ReaderChannel::over(channel));
        let greeted = tokio::time::timeout(START, greet(&channel, &ready)).await;
        let continued = greeted.unwrap_or_else(|_late| Err("it took too long".to_owned()))?;
        let inbox = Arc::new(Inbox::new(totals.clone()));
        let (kept_captures, reader) = (reader.kept.clone(), Arc::downgrade(reader));
        kept_captures.expect(&continued, &inbox);
        let continued = continued.into_iter().map(|(number, _)| number).collect();
        let lost = Arc::new(AtomicBool::new(false));
        let (kept, dropped) = oneshot::channel::<()>();
        let (own, for_task, flag) = (channel.clone(), inbox.clone(), lost.clone());
        #[expect(
            clippy::disallowed_methods,
            reason = "it belongs to no session, and ends with the link"
        )]
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = follow(&own, &ready, &for_task) => ended,
                _ = dropped => Ok(()),
            };
            match ended {
                Err(ChannelError::Closed) | Ok(()) => {}
                Err(error) => tracing::error!(%error, "ending the process that reads captures"),
            }
            flag.store(true, Ordering::Release);
            for_task.lose_all(|number, outcome, held| kept_captures.unlink(number, outcome, held));
            if let Some(reader) = Weak::upgrade(&reader) {
                reader.resume(totals);
            }
        });
        let used = Mutex::new(Instant::now());
        Ok((Self { channel, inbox, lost, used, _kept: kept }, continued))
    }

    /// Whether the process has ended.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    fn note_use(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn is_idle(self: &Arc<Self>, longest: Duration) -> bool {
        let used = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::strong_count(self) == 1 && used.elapsed() >= longest
    }
}

impl Commands for Link {
    fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    fn send(&self, message: &ToReader) -> bool {
        self.note_use();
        let sent = self.channel.send(message, &[]);
        if let Err(error) = &sent
            && !matches!(error, ChannelError::Closed)
        {
            tracing::error!(%error, "the process that reads captures does not read its channel");
        }
        sent.is_ok()
    }
}

/// Returns the captures that the process continues.
async fn greet(
    channel: &ReaderChannel,
    ready: &AsyncFd<OwnedFd>,
) -> Result<Vec<(u64, Counts)>, String> {
    let (mut greeted, mut continued) = (false, Vec::new());
    loop {
        match channel.receive() {
            Ok((ReaderAnswer::Hello(build), _)) if build == Build::OWN => greeted = true,
            Ok((ReaderAnswer::Resumed { capture, counts }, _)) if greeted => {
                continued.push((capture, counts));
            }
            Ok((ReaderAnswer::Ready, _)) if greeted => return Ok(continued),
            Ok(_) => return Err("it is of another build".to_owned()),
            Err(ChannelError::NotReady) => {
                ready.readable().await.map_err(|error| error.to_string())?.clear_ready();
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Delivers what the process reports, until it ends.
async fn follow(
    channel: &ReaderChannel,
    ready: &AsyncFd<OwnedFd>,
    inbox: &Inbox,
) -> Result<(), ChannelError<ReaderAnswer>> {
    loop {
        let mut guard = ready.readable().await.map_err(ChannelError::System)?;
        guard.clear_ready();
        loop {
            let (answer, stream) = match channel.receive() {
                Ok((answer, descriptors)) => (answer, descriptors.into_iter().next()),
                Err(ChannelError::NotReady) => break,
                // The stream is lost, and with it the capture.
                Err(ChannelError::LostDescriptors { message, .. }) => (message, None),
                Err(error) => return Err(error),
            };
            inbox.deliver(event(answer, stream)?);
        }
    }
}

fn event(
    answer: ReaderAnswer,
    stream: Option<OwnedFd>,
) -> Result<Event, ChannelError<ReaderAnswer>> {
    Ok(match (answer, stream) {
        (ReaderAnswer::Live { capture, live }, Some(stream)) => {
            Event::Live { capture, live, stream }
        }
        (ReaderAnswer::Live { capture, .. }, None) => {
            let error = io::Error::from_raw_os_error(libc::EMFILE);
            Event::NotLive { capture, failure: error.into() }
        }
        (ReaderAnswer::NotLive { capture, failure }, _) => Event::NotLive { capture, failure },
        (ReaderAnswer::Counts { request, counts }, _) => Event::Counts { request, counts },
        (ReaderAnswer::Filter { request, result }, _) => Event::Filter { request, result },
        (ReaderAnswer::Kept { request, result }, _) => Event::Kept { request, result },
        (ReaderAnswer::Ended { capture, ended }, _) => Event::Ended { capture, ended },
        (ReaderAnswer::Resumed { .. } | ReaderAnswer::Hello(_) | ReaderAnswer::Ready, _) => {
            let reason = "it began twice";
            return Err(ChannelError::Nonsense { reason, descriptors: Vec::new() });
        }
    })
}
