//! How many bytes of each TCP connection the program has received, so that none is lost with a process of the broker, and
//! none comes twice (`socket.resume`).

use std::collections::HashMap;

use serde_json::Value;
use sockbroker_proto::handle::Handle;

use crate::error::Error;

/// What has to happen before a call uses a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settling {
    /// Nothing.
    Done,
    /// Calls that an earlier process served have to end: their responses may have data.
    Wait,
    /// The client reports how many bytes the program has received; `None` if it is not known.
    Ask(Option<u64>),
}

/// A connection that nobody else receives from.
#[derive(Debug, Default)]
struct Reader {
    /// `None` after a loss.
    received: Option<u64>,
    /// The process that knows the position; `None` before the first receive.
    settled: Option<u64>,
    /// The receives in progress.
    attempts: u32,
    /// Why the position was lost, until a receive has reported it.
    error: Option<Error>,
}

/// The connections of a session.
#[derive(Debug, Default)]
pub(crate) struct Readers(HashMap<Handle, Reader>);

impl Readers {
    /// Records a connection from its beginning.
    pub(crate) fn begin(&mut self, handle: Handle) {
        self.0.entry(handle).or_insert(Reader { received: Some(0), ..Reader::default() });
    }

    /// Records that a connection is closed, or that others receive from it.
    pub(crate) fn remove(&mut self, handle: Handle) {
        self.0.remove(&handle);
    }

    /// Records that others receive from every connection.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn contains(&self, handle: Handle) -> bool {
        self.0.contains_key(&handle)
    }

    /// Adds received bytes.
    pub(crate) fn add(&mut self, handle: Handle, received: u64) {
        if let Some(reader) = self.0.get_mut(&handle) {
            reader.received = reader.received.map(|before| before + received);
        }
    }

    /// Records that a receive is sent to the process `epoch`.
    pub(crate) fn used(&mut self, handle: Handle, epoch: u64) {
        if let Some(reader) = self.0.get_mut(&handle) {
            reader.settled = Some(epoch);
        }
    }

    /// The same, of a receive whose response other threads may wait for. Returns `false` and records nothing if something
    /// has to happen before ([`Readers::settling`]). Otherwise [`Readers::end_attempt`] must follow.
    pub(crate) fn begin_attempt(&mut self, handle: Handle, epoch: u64) -> bool {
        if self.settling(handle, epoch) != Settling::Done {
            return false;
        }
        self.used(handle, epoch);
        if let Some(reader) = self.0.get_mut(&handle) {
            reader.attempts += 1;
        }
        true
    }

    /// Records that the response to a receive was read, or that there is none.
    pub(crate) fn end_attempt(&mut self, handle: Handle) {
        if let Some(reader) = self.0.get_mut(&handle) {
            reader.attempts = reader.attempts.saturating_sub(1);
        }
    }

    /// What has to happen before a call of the process `epoch` uses the connection.
    pub(crate) fn settling(&self, handle: Handle, epoch: u64) -> Settling {
        match self.0.get(&handle) {
            Some(Reader { settled: Some(settled), received, attempts, .. })
                if *settled != epoch || (received.is_none() && *attempts == 0) =>
            {
                if *attempts > 0 {
                    Settling::Wait
                } else {
                    Settling::Ask(*received)
                }
            }
            _ => Settling::Done,
        }
    }

    /// How many bytes the program has received; `None` if that is not known.
    #[cfg(feature = "tokio")]
    pub(crate) fn received(&self, handle: Handle) -> Option<u64> {
        self.0.get(&handle)?.received
    }

    /// The connections whose position the process `epoch` does not know.
    pub(crate) fn unsettled(&self, epoch: u64) -> Vec<Handle> {
        let unsettled = |reader: &Reader| reader.settled.is_some_and(|settled| settled != epoch);
        self.0.iter().filter(|(_, reader)| unsettled(reader)).map(|(handle, _)| *handle).collect()
    }

    /// Records the answer of the process `epoch`. Returns the error of a call that wanted to use the connection.
    pub(crate) fn settle(
        &mut self,
        handle: Handle,
        epoch: u64,
        answer: Result<Value, Error>,
    ) -> Result<(), Error> {
        let Some(reader) = self.0.get_mut(&handle) else { return Ok(()) };
        reader.settled = Some(epoch);
        match answer {
            Ok(taken) => {
                if reader.received.is_none() {
                    reader.received = taken.as_u64();
                }
                Ok(())
            }
            Err(error @ Error::Interrupted { .. }) => {
                reader.received = None;
                Err(error)
            }
            // It is not a connection of TCP, or it is gone: the call itself finds that.
            Err(_) => {
                self.0.remove(&handle);
                Ok(())
            }
        }
    }

    /// Keeps an error for the next receive.
    pub(crate) fn report_later(&mut self, handle: Handle, error: Error) {
        if let Some(reader) = self.0.get_mut(&handle) {
            reader.error = Some(error);
        }
    }

    /// The error that was kept for this receive.
    pub(crate) fn take_error(&mut self, handle: Handle) -> Option<Error> {
        self.0.get_mut(&handle)?.error.take()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn handle() -> Handle {
        Handle::new(5).unwrap()
    }

    fn interrupted() -> Error {
        Error::Interrupted { call: "recv".to_owned(), handle: None, message: "lost".to_owned() }
    }

    fn received(epoch: u64) -> Readers {
        let mut readers = Readers::default();
        readers.begin(handle());
        assert!(readers.begin_attempt(handle(), epoch));
        readers.add(handle(), 7);
        readers.end_attempt(handle());
        readers
    }

    #[test]
    fn the_position_is_reported_to_a_new_process_once_and_after_earlier_receives() {
        let mut readers = received(1);
        assert_eq!(readers.settling(handle(), 1), Settling::Done);
        assert!(readers.begin_attempt(handle(), 1));
        assert_eq!(readers.settling(handle(), 2), Settling::Wait);
        readers.add(handle(), 3);
        readers.end_attempt(handle());
        assert_eq!(readers.settling(handle(), 2), Settling::Ask(Some(10)));
        assert_eq!(readers.unsettled(2), [handle()]);
        readers.settle(handle(), 2, Ok(json!(10))).unwrap();
        assert_eq!(readers.settling(handle(), 2), Settling::Done);
        assert!(readers.unsettled(2).is_empty());
    }

    #[test]
    fn a_receive_on_a_connection_to_an_earlier_process_does_not_begin() {
        let mut readers = received(1);
        readers.settle(handle(), 2, Ok(json!(7))).unwrap();
        assert!(readers.begin_attempt(handle(), 2));
        // Its thread had settled the position before the process ended.
        assert!(!readers.begin_attempt(handle(), 1));
        // Otherwise this call would wait for the first receive, which can wait for ever.
        assert_eq!(readers.settling(handle(), 2), Settling::Done);
    }

    #[test]
    fn the_position_after_a_loss_is_asked_for() {
        let mut readers = received(1);
        readers.settle(handle(), 2, Err(interrupted())).unwrap_err();
        assert_eq!(readers.settling(handle(), 2), Settling::Ask(None));
        readers.settle(handle(), 2, Ok(json!(99))).unwrap();
        assert_eq!(readers.settling(handle(), 2), Settling::Done);
        assert_eq!(readers.settling(handle(), 3), Settling::Ask(Some(99)));
    }

    #[test]
    fn a_loss_is_reported_once() {
        let mut readers = received(1);
        assert!(readers.settle(handle(), 2, Err(interrupted())).is_err());
        assert_eq!(readers.settling(handle(), 2), Settling::Ask(None));
        readers.report_later(handle(), interrupted());
        assert_eq!(readers.take_error(handle()), Some(interrupted()));
        assert_eq!(readers.take_error(handle()), None);
    }

    #[test]
    fn a_connection_that_was_not_used_has_nothing_to_settle() {
        let mut readers = Readers::default();
        readers.begin(handle());
        assert_eq!(readers.settling(handle(), 2), Settling::Done);
        assert!(readers.unsettled(2).is_empty());
        let gone = Error::Handle { call: String::new(), message: String::new() };
        let mut readers = received(1);
        readers.settle(handle(), 2, Err(gone)).unwrap();
        assert!(!readers.contains(handle()));
    }
}
