//! Lets the periodic work of a process rest while nothing happens in it.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Whether anything happens in this process.
#[derive(Debug, Default)]
pub struct Activity {
    /// Whether the periodic work waits for something to happen.
    resting: AtomicBool,
    begun: Notify,
}

impl Activity {
    /// Notes that something happens. While the periodic work does not rest, this is one read of a flag.
    pub fn note(&self) {
        if self.resting.load(Ordering::Relaxed) && self.resting.swap(false, Ordering::AcqRel) {
            self.begun.notify_one();
        }
    }

    /// Begins to rest: from then on the first event wakes the work.
    pub fn rest(&self) {
        self.resting.store(true, Ordering::SeqCst);
    }

    /// Whether nothing has happened since [`Activity::rest`].
    pub fn rests(&self) -> bool {
        self.resting.load(Ordering::SeqCst)
    }

    /// Waits until something has happened since [`Activity::rest`].
    pub async fn begun(&self) {
        self.begun.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn only_the_first_event_after_a_rest_wakes_the_work() {
        let activity = Activity::default();
        activity.note();
        assert_eq!(activity.begun().now_or_never(), None, "it did not rest");
        activity.rest();
        assert_eq!(activity.begun().now_or_never(), None, "nothing has happened");
        assert!(activity.rests());
        activity.note();
        assert!(!activity.rests());
        activity.note();
        assert_eq!(activity.begun().now_or_never(), Some(()));
        assert_eq!(activity.begun().now_or_never(), None, "it does not rest again by itself");
    }
}
