//! Waiting for responses on a shared connection.

use std::io;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::connection::Connection;
use crate::error::{Error, Result};
use crate::lock::lock;
use crate::wire::receive_buffer::ReceiveBuffer;
use crate::wire::response::{Envelope, OwnedResponse, Response, ResultReader};
use crate::wire::unix::{self, Interest, Readiness};

/// How long the broker may take to answer a request to cancel a call.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);

impl Connection {
    /// Waits for the response to a call and reads its result. `None` if the deadline passes first.
    pub(super) fn finish<T>(
        &self,
        id: u64,
        deadline: Option<Instant>,
        read: ResultReader<'_, T>,
    ) -> Option<Result<T>> {
        let mut calls = lock(&self.calls);
        while calls.is_reading || calls.ended.is_some() || calls.has_response(id) {
            if let Some(mut response) = calls.take_response(id) {
                drop(calls);
                return Some(response.read(read));
            }
            if let Some(error) = calls.ended.clone() {
                calls.slots.retain(|slot| slot.id != id);
                return Some(Err(error));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            calls = match left {
                None => self.calls_changed.wait(calls).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => return None,
                Some(left) => {
                    let waited = self.calls_changed.wait_timeout(calls, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        calls.is_reading = true;
        drop(calls);
        let result = self.read_until_response(id, deadline, read);
        if result.is_some() {
            self.forget(id);
        }
        self.stop_reading();
        result
    }

    /// Cancels a call whose time limit has expired. A result that arrives in spite of that is returned.
    pub(super) fn cancel_and_finish<T>(
        &self,
        id: u64,
        call: &str,
        read: ResultReader<'_, T>,
    ) -> Result<T> {
        self.cancel(id);
        let deadline = Some(Instant::now() + CANCEL_TIMEOUT);
        match self.finish(id, deadline, read) {
            Some(Err(Error::Cancelled { sent, .. })) => {
                Err(Error::Timeout { call: call.to_owned(), sent })
            }
            Some(result) => result,
            None => {
                self.forget(id);
                Err(Error::Timeout { call: call.to_owned(), sent: None })
            }
        }
    }

    /// Lets another thread read.
    pub(super) fn stop_reading(&self) {
        let mut calls = lock(&self.calls);
        calls.is_reading = false;
        if !calls.slots.is_empty() {
            self.calls_changed.notify_all();
        }
    }

    /// Reads for all threads until the response to call `id` arrives.
    fn read_until_response<T>(
        &self,
        id: u64,
        deadline: Option<Instant>,
        read: ResultReader<'_, T>,
    ) -> Option<Result<T>> {
        let mut received = lock(&self.received);
        loop {
            match self.deliver(&mut received, Some(id), read) {
                Ok(Some(result)) => return Some(result),
                Ok(None) => {}
                Err(error) => return Some(Err(self.end(error))),
            }
            let arrived = received.wait_and_receive(&self.stream, deadline);
            let is_early =
                arrived.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
            if is_early {
                // The stream may be one that does not block.
                match unix::wait(&self.stream, Interest::Readable, deadline) {
                    Ok(Readiness::TimedOut) => return None,
                    Ok(Readiness::Readable | Readiness::Writable) => {}
                    Err(error) => return Some(Err(self.end(Error::disconnected(error)))),
                }
            } else if let Err(error) = Self::check(&mut received, arrived) {
                return Some(Err(self.end(error)));
            }
        }
    }

    /// Reads available responses for the threads that wait for them.
    pub(super) fn read_for_others(&self) -> Result<()> {
        let mut received = lock(&self.received);
        self.receive(&mut received)?;
        self.deliver::<()>(&mut received, None, &mut |_| Ok(()))?;
        Ok(())
    }

    fn receive(&self, received: &mut ReceiveBuffer) -> Result<()> {
        let arrived = received.receive(&self.stream);
        Self::check(received, arrived)
    }

    fn check(received: &mut ReceiveBuffer, arrived: io::Result<usize>) -> Result<()> {
        match arrived {
            Ok(0) => Err(received.closed()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Error::protocol(error)),
            Err(error) => Err(received.failed(&error)),
        }
    }

    /// Delivers complete messages up to the response to call `own`, and returns its result. Puts other
    /// responses into the slots of their calls, and discards those of no call.
    fn deliver<T>(
        &self,
        received: &mut ReceiveBuffer,
        own: Option<u64>,
        read: ResultReader<'_, T>,
    ) -> Result<Option<Result<T>>> {
        while let Some(message) = received.next()? {
            let descriptors = received.take_descriptors(&message)?;
            let envelope = Envelope::parse(received.json(&message))?;
            envelope.check()?;
            let id = envelope.id();
            if id.is_some() && id == own {
                let result = envelope.outcome().and_then(|result| {
                    let attachments = received.attachments(&message);
                    let lengths = message.lengths.as_slice();
                    read(&mut Response { result, attachments, lengths, descriptors })
                });
                received.skip(&message);
                return Ok(Some(result));
            }
            let response = received.take_message(&message, descriptors, Vec::new);
            self.put_into_slot(id, response);
        }
        Ok(None)
    }

    fn put_into_slot(&self, id: Option<u64>, response: OwnedResponse) {
        let mut calls = lock(&self.calls);
        let slot = calls.slots.iter_mut().find(|slot| Some(slot.id) == id);
        if let Some(slot) = slot.filter(|slot| slot.response.is_none()) {
            slot.response = Some(response);
            self.calls_changed.notify_all();
        }
    }
}
