//! The channels to a running process.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sockbroker_monitor::caller::message::{
    CallChannel, FromCaller, Outgoing, UnixAnswer, UnixCall,
};
use sockbroker_monitor::channel::{AskError, ChannelError};
use sockbroker_monitor::message::Build;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use super::call::{Descriptors, Failure, Reply};
use super::follower::{Follower, Queued};
use super::sends::Sends;
use crate::table::readiness::register;

/// How long the process may take to start.
const START: Duration = Duration::from_secs(10);

/// The channels to a running process.
#[derive(Debug)]
pub(crate) struct Link {
    sends: Mutex<Sends>,
    calls: mpsc::UnboundedSender<Queued>,
    lost: AtomicBool,
    numbers: AtomicU64,
    used: Mutex<Instant>,
}

impl Link {
    /// Waits until the process has the ids of the caller.
    pub(super) async fn begin(calls: OwnedFd, sends: OwnedFd) -> Result<Self, String> {
        let text = |error: io::Error| error.to_string();
        let copy = calls.as_fd().try_clone_to_owned().map_err(text)?;
        let ready = register(copy, Interest::READABLE | Interest::WRITABLE).map_err(text)?;
        let channel = CallChannel::over(calls);
        let greeted = tokio::time::timeout(START, greet(&channel, &ready)).await;
        greeted.unwrap_or_else(|_late| Err("it took too long".to_owned()))?;
        let sends = Mutex::new(Sends::new(sends).map_err(text)?);
        #[expect(clippy::disallowed_methods, reason = "bounded by the limits on jobs")]
        let (queue, queued) = mpsc::unbounded_channel();
        let mut follower = Follower::new(channel, ready, queued);
        #[expect(
            clippy::disallowed_methods,
            reason = "it belongs to no session, and ends with the link"
        )]
        tokio::spawn(async move {
            match follower.follow().await {
                Err(ChannelError::Closed) | Ok(()) => {}
                Err(error) => tracing::error!(%error, "ending the process that acts as the caller"),
            }
            follower.fail_unsent();
        });
        let (lost, numbers) = (AtomicBool::new(false), AtomicU64::new(0));
        Ok(Self { sends, calls: queue, lost, numbers, used: Mutex::new(Instant::now()) })
    }

    /// Whether the process can get no further call.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed) || self.calls.is_closed()
    }

    pub(super) fn note_use(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub(super) fn is_idle(self: &Arc<Self>, longest: Duration) -> bool {
        let used = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::strong_count(self) == 1 && used.elapsed() >= longest
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes a call that may wait. If the future is dropped, the process makes the call all the same, and `held` lives
    /// until then.
    pub(crate) async fn call(
        &self,
        call: UnixCall,
        descriptors: Descriptors,
        held: Arc<dyn Send + Sync>,
    ) -> Result<Reply, Failure> {
        let (reply, result) = oneshot::channel();
        let queued = Queued { number: self.number(), call, descriptors, reply, held };
        self.calls.send(queued).map_err(|_closed| Failure::NotSent)?;
        result.await.map_err(|_ended| Failure::Ended)?
    }

    /// Sends a message to the peer of a socket at once, within one poll: cancelling cannot separate its effect from its
    /// result.
    pub(crate) fn send_now(
        &self,
        outgoing: Outgoing,
        data: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<UnixAnswer, Failure> {
        self.note_use();
        let mut sends = self.sends.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_lost() {
            return Err(Failure::NotSent);
        }
        let attached = outgoing.attached;
        let asked = sends
            .place(data)
            .and_then(|data| sends.ask(self.number(), UnixCall::Send(outgoing, data), descriptors));
        match asked {
            Ok(answer) => return Ok(answer),
            // Too many descriptors of this process are on their way.
            Err(AskError::NotSent(ChannelError::System(error))) if !attached => {
                return Err(Failure::Failed(error.raw_os_error().unwrap_or(libc::ENOMEM)));
            }
            Err(AskError::NotSent(_)) => {
                self.lost.store(true, Ordering::Relaxed);
                return Err(Failure::NotSent);
            }
            Err(AskError::NotAnswered(ChannelError::Closed)) => {}
            Err(error) => {
                tracing::error!(%error, "the process that acts as the caller does not answer");
            }
        }
        self.lost.store(true, Ordering::Relaxed);
        Err(Failure::Ended)
    }
}

async fn greet(channel: &CallChannel, ready: &AsyncFd<OwnedFd>) -> Result<(), String> {
    let mut greeted = false;
    loop {
        match channel.receive() {
            Ok((FromCaller::Hello(build), _)) if build == Build::OWN => greeted = true,
            Ok((FromCaller::Ready, _)) if greeted => return Ok(()),
            Ok(_) => return Err("it is of another build".to_owned()),
            Err(ChannelError::NotReady) => {
                ready.readable().await.map_err(|error| error.to_string())?.clear_ready();
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}
