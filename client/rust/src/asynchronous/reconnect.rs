//! The connection of a session that outlives its process, after it was lost.

use std::io::IoSlice;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use tokio::net::UnixStream;

use super::connection::{Connection, Slot, until};
use super::persistent::{Next, Persistent, Recovered};
use crate::error::{Error, Result};
use crate::wire::response::OwnedResponse;

impl Connection {
    /// Connects again, ends the calls whose result is known, and sends the others once more.
    pub(super) async fn reconnect(&self, persistent: &Persistent) -> Result<()> {
        {
            let mut state = self.state();
            state.is_away = true;
            state.queue.clear();
        }
        let mut recovery = persistent.recover(persistent.give_up());
        let recovered = loop {
            tokio::select! {
                recovered = &mut recovery => {
                    break recovered.map_err(|_ended| Error::disconnected("the client cannot start a thread"))??;
                }
                () = until(persistent.next_expiry()) => {
                    for (id, result) in persistent.expired() {
                        self.finish(id, result);
                    }
                }
                // A new call may expire earlier.
                () = self.queued.notified() => {}
            }
        };
        self.resume(persistent, recovered)
    }

    fn resume(&self, persistent: &Persistent, (attached, verdicts): Recovered) -> Result<()> {
        let identity = (attached.number, attached.epoch);
        let stream = attached.connection.into_stream();
        stream.set_nonblocking(true).map_err(Error::disconnected)?;
        let stream = UnixStream::from_std(stream).map_err(Error::disconnected)?;
        let mut finished = Vec::new();
        {
            let mut state = self.state();
            state.stream = Arc::new(stream);
            state.is_away = false;
            for (id, next) in persistent.reconnected(identity, verdicts) {
                let is_wanted = match state.slots.get(&id) {
                    Some(Slot::Waiting(_)) => true,
                    Some(Slot::Dropped(_)) => persistent.outlives_its_future(id),
                    None => false,
                };
                match next {
                    Next::Finish(result) => finished.push((id, result)),
                    Next::Send if is_wanted => persistent.with_frame(id, |frame, descriptors| {
                        let descriptors: Vec<_> = descriptors.iter().map(|fd| fd.as_fd()).collect();
                        // Only duplicating descriptors can fail; the call then waits for its deadline.
                        drop(state.queue.push(&[IoSlice::new(frame)], &descriptors));
                    }),
                    Next::Send => {
                        finished.push((id, Err(Error::disconnected("the call was dropped"))));
                    }
                }
            }
        }
        for (id, result) in finished {
            if matches!(&result, Err(Error::Disconnected { .. })) {
                persistent.forget(id);
            }
            self.finish(id, result);
        }
        Ok(())
    }

    /// Ends a call with a result that no response carried.
    fn finish(&self, id: u64, result: Result<OwnedResponse>) {
        let slot = self.state().slots.remove(&id);
        match (slot, result) {
            (None, _) => {}
            (Some(Slot::Waiting(sender)), result) => drop(sender.send(result)),
            (Some(Slot::Dropped(dropped)), Ok(response)) => self.settle(dropped, response),
            (Some(Slot::Dropped(dropped)), Err(_)) => dropped.abandon(),
        }
    }
}
