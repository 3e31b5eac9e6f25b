//! The channels of one client. The connection of the client to the broker stays open until they have ended: the end of
//! the session would end them.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Counts the channels of one client.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenChannels(Arc<(Mutex<usize>, Condvar)>);

/// A channel, until this is dropped.
#[derive(Debug)]
pub(super) struct OpenChannel(OpenChannels);

impl OpenChannels {
    pub(super) fn begin(&self) -> OpenChannel {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        OpenChannel(self.clone())
    }

    /// Waits until all channels have ended.
    pub(super) fn wait(&self) {
        let count = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.0.1.wait_while(count, |count| *count > 0));
    }
}

impl Drop for OpenChannel {
    fn drop(&mut self) {
        *self.0.0.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.0.1.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_when_the_last_channel_has_ended() {
        let channels = OpenChannels::default();
        channels.wait();
        let open = [channels.begin(), channels.begin()];
        let waiter = std::thread::spawn(move || channels.wait());
        open.into_iter().for_each(drop);
        waiter.join().unwrap();
    }
}
