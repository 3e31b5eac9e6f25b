//! The channels of a socket: which directions they have taken, and why they end.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, watch};

/// The directions of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Directions {
    pub receives: bool,
    pub sends: bool,
}

/// Why a channel ends, apart from its own ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelEnd {
    /// The handle was closed.
    Closed,
    /// The session has ended.
    Session,
    /// The policy no longer grants the socket.
    Revoked,
    /// The broker stops.
    Stopping,
}

impl ChannelEnd {
    /// The error number and the text of the last frame.
    pub fn describe(self) -> (i32, &'static str) {
        match self {
            Self::Closed => (libc::EBADF, "the handle was closed"),
            Self::Session => (libc::ECANCELED, "the session has ended"),
            Self::Revoked => (libc::EACCES, "the policy no longer grants the socket"),
            Self::Stopping => (libc::ECANCELED, "the broker stops"),
        }
    }
}

/// The channels of an entry. Most have none.
#[derive(Debug, Default)]
pub struct Channels(OnceLock<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    taken: Mutex<Directions>,
    end: watch::Sender<Option<ChannelEnd>>,
    /// Calls of `connect` and `listen`.
    changing: Notify,
    /// Whether the end of a channel closes the handle.
    closing: AtomicBool,
    /// The channels that move data.
    running: AtomicU32,
    /// Whether one has ended with an earlier process, and none was opened since.
    interrupted: AtomicBool,
}

impl Shared {
    fn new() -> Self {
        let none = Directions { receives: false, sends: false };
        Self {
            taken: Mutex::new(none),
            end: watch::Sender::new(None),
            changing: Notify::new(),
            closing: AtomicBool::new(false),
            running: AtomicU32::new(0),
            interrupted: AtomicBool::new(false),
        }
    }
}

/// The directions that a channel has taken, until this is dropped.
#[derive(Debug)]
pub struct ChannelClaim {
    shared: Arc<Shared>,
    directions: Directions,
    is_running: bool,
}

/// Learns why the channels of a socket end, after a channel has given its directions back.
#[derive(Debug)]
pub struct ReleasedClaim(Arc<Shared>);

impl Channels {
    /// Takes directions for a channel; `None` if another channel has one of them.
    pub fn claim(&self, directions: Directions) -> Option<ChannelClaim> {
        let shared = self.shared();
        let mut taken = shared.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.receives && directions.receives || taken.sends && directions.sends {
            return None;
        }
        taken.receives |= directions.receives;
        taken.sends |= directions.sends;
        Some(ChannelClaim { shared: shared.clone(), directions, is_running: false })
    }

    fn shared(&self) -> &Arc<Shared> {
        self.0.get_or_init(|| Arc::new(Shared::new()))
    }

    /// Whether a channel moves data, which ends if this process does.
    pub fn is_running(&self) -> bool {
        self.0.get().is_some_and(|shared| shared.running.load(Ordering::Relaxed) > 0)
    }

    /// Notes that a channel has ended with an earlier process.
    pub fn note_interrupted(&self) {
        self.shared().interrupted.store(true, Ordering::Relaxed);
    }

    /// Whether a channel has ended with an earlier process, and none has begun since.
    pub fn is_interrupted(&self) -> bool {
        self.0.get().is_some_and(|shared| shared.interrupted.load(Ordering::Relaxed))
    }

    /// Whether a channel receives.
    pub fn receives(&self) -> bool {
        let taken = |shared: &Arc<Shared>| {
            shared.taken.lock().unwrap_or_else(PoisonError::into_inner).receives
        };
        self.0.get().is_some_and(taken)
    }

    /// Whether the end of a channel closes the handle: the socket then belongs to the descriptor of the channel.
    pub fn is_closing(&self) -> bool {
        self.0.get().is_some_and(|shared| shared.closing.load(Ordering::Relaxed))
    }

    /// Ends the channels. The first reason counts.
    pub fn end(&self, reason: ChannelEnd) {
        if let Some(shared) = self.0.get() {
            shared.end.send_if_modified(|end| {
                let first = end.is_none();
                if first {
                    *end = Some(reason);
                }
                first
            });
        }
    }

    /// Notes that `connect` or `listen` was called: channels check the state of the socket.
    pub fn note_change(&self) {
        if let Some(shared) = self.0.get() {
            shared.changing.notify_waiters();
        }
    }
}

impl ChannelClaim {
    /// Notes that the end of the channel closes the handle.
    pub fn note_closing(&self) {
        self.shared.closing.store(true, Ordering::Relaxed);
    }

    pub fn directions(&self) -> Directions {
        self.directions
    }

    /// Notes that the channel begins to move data.
    pub fn begin(&mut self) {
        if !std::mem::replace(&mut self.is_running, true) {
            self.shared.running.fetch_add(1, Ordering::Relaxed);
        }
        self.shared.interrupted.store(false, Ordering::Relaxed);
    }

    /// Why the channel has to end, if it has to.
    pub fn end(&self) -> Option<ChannelEnd> {
        *self.shared.end.borrow()
    }

    /// Waits until the channel has to end.
    pub async fn ended(&self) -> ChannelEnd {
        self.shared.ended().await
    }

    /// Gives the directions back.
    pub fn release(self) -> ReleasedClaim {
        ReleasedClaim(self.shared.clone())
    }

    /// The next call of `connect` or `listen`. It must be polled or enabled before the state of the socket is read.
    pub fn next_change(&self) -> Notified<'_> {
        self.shared.changing.notified()
    }
}

impl ReleasedClaim {
    /// Waits until the channels have to end.
    pub async fn ended(&self) -> ChannelEnd {
        self.0.ended().await
    }
}

impl Shared {
    async fn ended(&self) -> ChannelEnd {
        let mut end = self.end.subscribe();
        let reason = end.wait_for(Option::is_some).await.ok().and_then(|reason| *reason);
        // The sender lives as long as this.
        reason.unwrap_or(ChannelEnd::Closed)
    }
}

impl Drop for ChannelClaim {
    fn drop(&mut self) {
        if self.is_running {
            self.shared.running.fetch_sub(1, Ordering::Relaxed);
        }
        let mut taken = self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.receives &= !self.directions.receives;
        taken.sends &= !self.directions.sends;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    const BOTH: Directions = Directions { receives: true, sends: true };
    const RECEIVE: Directions = Directions { receives: true, sends: false };
    const SEND: Directions = Directions { receives: false, sends: true };

    #[test]
    fn each_direction_has_one_channel_until_it_ends() {
        let channels = Channels::default();
        assert!(!channels.receives());
        let receiving = channels.claim(RECEIVE).unwrap();
        assert!(channels.receives());
        assert!(channels.claim(RECEIVE).is_none() && channels.claim(BOTH).is_none());
        let sending = channels.claim(SEND).unwrap();
        drop(receiving);
        assert!(!channels.receives());
        assert!(channels.claim(BOTH).is_none());
        drop(sending);
        let both = channels.claim(BOTH).unwrap();
        let released = both.release();
        assert!(channels.claim(BOTH).is_some());
        assert!(released.ended().now_or_never().is_none());
        channels.end(ChannelEnd::Session);
        assert_eq!(released.ended().now_or_never(), Some(ChannelEnd::Session));
    }

    #[test]
    fn interruption_is_known_until_a_further_channel_begins() {
        let channels = Channels::default();
        assert!(!channels.is_running() && !channels.is_interrupted());
        channels.note_interrupted();
        let mut claims = [channels.claim(RECEIVE).unwrap(), channels.claim(SEND).unwrap()];
        assert!(!channels.is_running() && channels.is_interrupted());
        for claim in &mut claims {
            claim.begin();
            claim.begin();
        }
        assert!(channels.is_running() && !channels.is_interrupted());
        let [first, second] = claims;
        drop(first);
        assert!(channels.is_running());
        drop(second);
        assert!(!channels.is_running());
    }

    #[test]
    fn the_first_reason_ends_every_channel() {
        let channels = Channels::default();
        channels.end(ChannelEnd::Closed);
        let claims = [channels.claim(RECEIVE).unwrap(), channels.claim(SEND).unwrap()];
        assert!(claims[0].ended().now_or_never().is_none());
        channels.end(ChannelEnd::Revoked);
        channels.end(ChannelEnd::Closed);
        for claim in claims {
            assert_eq!(claim.ended().now_or_never(), Some(ChannelEnd::Revoked));
            assert_eq!(claim.end(), Some(ChannelEnd::Revoked));
        }
    }
}
