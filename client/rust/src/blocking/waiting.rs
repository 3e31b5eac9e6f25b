//! Waiting for answers: one thread reads for all.

use std::io;
use std::sync::PoisonError;
use std::time::Instant;

use super::calls::lock;
use super::connection::Connection;
use crate::error::{Error, Result};
use crate::wire::receive_buffer::ReceiveBuffer;
use crate::wire::response::{Envelope, OwnedResponse, Response};
use crate::wire::unix::{self, Ready, Wanted};

/// Why a wait is over.
enum Waited<T> {
    Answered(Result<T>),
    Expired,
}

impl Connection {
    /// Waits for the answer to a call, and reads its result in place.
    pub(crate) fn finish<T>(
        &self,
        id: u64,
        deadline: Option<Instant>,
        read: &mut dyn FnMut(&mut Response<'_>) -> Result<T>,
    ) -> Option<Result<T>> {
        match self.wait(id, deadline, read) {
            Waited::Answered(result) => Some(result),
            Waited::Expired => None,
        }
    }

    fn wait<T>(
        &self,
        id: u64,
        deadline: Option<Instant>,
        read: &mut dyn FnMut(&mut Response<'_>) -> Result<T>,
    ) -> Waited<T> {
        let mut calls = lock(&self.calls);
        while calls.reading || calls.ended.is_some() || calls.has_answer(id) {
            if let Some(mut answer) = calls.take_answer(id) {
                drop(calls);
                return Waited::Answered(answer.read(read));
            }
            if let Some(error) = calls.ended.clone() {
                calls.slots.retain(|slot| slot.id != id);
                return Waited::Answered(Err(error));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            calls = match left {
                None => self.turn.wait(calls).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => return Waited::Expired,
                Some(left) => {
                    let waited = self.turn.wait_timeout(calls, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        calls.reading = true;
        drop(calls);
        let waited = self.lead(id, deadline, read);
        if let Waited::Answered(_) = waited {
            self.give_up(id);
        }
        self.stop_reading();
        waited
    }

    pub(super) fn stop_reading(&self) {
        let mut calls = lock(&self.calls);
        calls.reading = false;
        if !calls.slots.is_empty() {
            self.turn.notify_all();
        }
    }

    /// Reads for everybody until the answer to one's own call has come.
    fn lead<T>(
        &self,
        id: u64,
        deadline: Option<Instant>,
        read: &mut dyn FnMut(&mut Response<'_>) -> Result<T>,
    ) -> Waited<T> {
        let mut received = lock(&self.received);
        loop {
            match self.deliver(&mut received, Some(id), read) {
                Ok(Some(result)) => return Waited::Answered(result),
                Ok(None) => {}
                Err(error) => return Waited::Answered(Err(self.end(error))),
            }
            match unix::wait(&self.stream, Wanted::Input, deadline) {
                Ok(Ready::Nothing) => return Waited::Expired,
                Ok(_) => {}
                Err(error) => return Waited::Answered(Err(self.end(Error::disconnected(error)))),
            }
            if let Err(error) = self.receive(&mut received) {
                return Waited::Answered(Err(self.end(error)));
            }
        }
    }

    /// Reads what has come, for whoever waits for it.
    pub(super) fn read_for_others(&self) -> Result<()> {
        let mut received = lock(&self.received);
        self.receive(&mut received)?;
        self.deliver::<()>(&mut received, None, &mut |_| Ok(()))?;
        Ok(())
    }

    fn receive(&self, received: &mut ReceiveBuffer) -> Result<()> {
        match received.receive(&self.stream) {
            Ok(0) => Err(Error::disconnected("it closed the connection")),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Error::protocol(error)),
            Err(error) => Err(Error::disconnected(error)),
        }
    }

    /// Takes every whole message up to the answer to `own`, whose result it gives. Answers to others
    /// go into their slots, those to nobody are dropped.
    fn deliver<T>(
        &self,
        received: &mut ReceiveBuffer,
        own: Option<u64>,
        read: &mut dyn FnMut(&mut Response<'_>) -> Result<T>,
    ) -> Result<Option<Result<T>>> {
        while let Some(message) = received.next()? {
            let descriptors = received.descriptors(&message)?;
            let envelope = Envelope::read(received.json(&message))?;
            envelope.check()?;
            let id = envelope.id();
            if id.is_some() && id == own {
                let result = envelope.outcome().and_then(|result| {
                    let (tail, lengths) = (received.tail(&message), message.lengths.as_slice());
                    read(&mut Response { result, tail, lengths, descriptors })
                });
                received.pass(&message);
                return Ok(Some(result));
            }
            self.keep(id, received.take(&message, descriptors, Vec::new));
        }
        Ok(None)
    }

    fn keep(&self, id: Option<u64>, answer: OwnedResponse) {
        let mut calls = lock(&self.calls);
        let slot = calls.slots.iter_mut().find(|slot| Some(slot.id) == id);
        if let Some(slot) = slot.filter(|slot| slot.answer.is_none()) {
            slot.answer = Some(answer);
            self.turn.notify_all();
        }
    }
}
