//! One connection that any number of threads may use: whoever waits first reads for all.
//!
//! A thread alone writes, reads and parses without handing anything over. If several wait, one of
//! them reads; what it finds for others it puts into their slots, and when its own answer has come
//! another one goes on reading.

use std::io;
use std::net::Shutdown;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;

use super::calls::{Calls, Slot, lock};
use crate::error::{Error, Result};
use crate::request::Call;
use crate::wire::framing::Framing;
use crate::wire::receive_buffer::ReceiveBuffer;
use crate::wire::request_buffer::{RequestBuffer, RequestParts};
use crate::wire::unix::{self, Ready, Wanted};

/// How long the broker may take to make room for a request to cancel.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How often somebody who wants to cancel looks whether it is his turn to write.
const STEP: Duration = Duration::from_millis(1);

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(super) stream: UnixStream,
    framing: Framing,
    next: AtomicU64,
    outgoing: Mutex<RequestBuffer>,
    pub(super) received: Mutex<ReceiveBuffer>,
    pub(super) calls: Mutex<Calls>,
    pub(super) turn: Condvar,
}

impl Connection {
    pub(crate) fn over(stream: UnixStream, framing: Framing) -> Self {
        Self {
            stream,
            framing,
            next: AtomicU64::new(1),
            outgoing: Mutex::new(RequestBuffer::new(framing)),
            received: Mutex::new(ReceiveBuffer::new(framing)),
            calls: Mutex::default(),
            turn: Condvar::new(),
        }
    }

    /// Whether it has ended; then it can only be dropped.
    pub(crate) fn is_ended(&self) -> bool {
        lock(&self.calls).ended.is_some()
    }

    /// Whether the broker has closed it while it was idle, as it does with HTTP.
    pub(crate) fn is_stale(&self) -> bool {
        self.framing == Framing::Http
            && !matches!(
                unix::wait(&self.stream, Wanted::Input, Some(Instant::now())),
                Ok(Ready::Nothing)
            )
    }

    /// The number for a call that is about to begin.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends a request. Its answer has to be waited for, or given up.
    pub(crate) fn begin<P: Serialize, F>(
        &self,
        id: u64,
        call: &Call<'_, P, F>,
        deadline: Option<Instant>,
    ) -> Result<()> {
        let descriptors = call.descriptors()?;
        {
            let mut calls = lock(&self.calls);
            if let Some(error) = &calls.ended {
                return Err(error.clone());
            }
            calls.slots.push(Slot { id, answer: None });
        }
        let mut outgoing = lock(&self.outgoing);
        let parts = call.parts.as_slice();
        let beside = RequestParts { parts, descriptors: descriptors.len() };
        let sent = outgoing.write(Some(id), call.method, &call.params, beside);
        let parts = parts.unwrap_or_default();
        let sent = sent.and_then(|()| self.send(&outgoing, parts, &descriptors, deadline));
        if sent.is_err() {
            self.give_up(id);
        }
        sent
    }

    /// Sends a notification if that is possible without waiting.
    pub(crate) fn notify(&self, method: &str, params: &impl Serialize) -> bool {
        let Ok(mut outgoing) = self.outgoing.try_lock() else { return false };
        let beside = RequestParts { parts: None, descriptors: 0 };
        if self.is_ended() || outgoing.write(None, method, params, beside).is_err() {
            return false;
        }
        let buffers = outgoing.buffers(&[]);
        let length: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        match unix::send(&self.stream, &buffers, &[]) {
            Ok(n) if n == length => true,
            // A part of it has left: what comes next could not be told from the rest.
            Ok(_) => {
                self.end(Error::disconnected("a notification did not fit"));
                true
            }
            Err(_) => false,
        }
    }

    /// Sends a notification, waiting for its turn and for room.
    pub(crate) fn notify_waiting(
        &self,
        method: &str,
        params: &impl Serialize,
        deadline: Option<Instant>,
    ) -> Result<()> {
        let mut outgoing = lock(&self.outgoing);
        outgoing.write(None, method, params, RequestParts { parts: None, descriptors: 0 })?;
        self.send(&outgoing, &[], &[], deadline)
    }

    /// Asks the broker to cancel a call, without waiting for the answer. Where that cannot be asked the
    /// connection ends, which cancels it too: behind a request that waits HTTP reads nothing, and a
    /// broker may take no more of a request that is on its way.
    pub(crate) fn cancel(&self, id: u64) {
        let deadline = Instant::now() + LONGEST_WAIT;
        let cancelled = || Error::Cancelled { call: String::new(), sent: None };
        if self.framing == Framing::Http {
            self.end(cancelled());
            return;
        }
        let mut outgoing = loop {
            match self.outgoing.try_lock() {
                Ok(outgoing) => break outgoing,
                Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    thread::park_timeout(STEP);
                }
                Err(TryLockError::WouldBlock) => {
                    self.end(cancelled());
                    return;
                }
            }
        };
        let beside = RequestParts { parts: None, descriptors: 0 };
        let written = outgoing.write(None, "$/cancelRequest", &json!({ "id": id }), beside);
        // If it cannot be sent the connection has ended.
        drop(written.and_then(|()| self.send(&outgoing, &[], &[], Some(deadline))));
    }

    /// Forgets a call: its answer will be dropped, descriptors included.
    pub(crate) fn give_up(&self, id: u64) {
        lock(&self.calls).slots.retain(|slot| slot.id != id);
    }

    fn send(
        &self,
        outgoing: &RequestBuffer,
        parts: &[&[u8]],
        descriptors: &[BorrowedFd<'_>],
        deadline: Option<Instant>,
    ) -> Result<()> {
        let mut buffers = outgoing.buffers(parts);
        let mut rest = buffers.as_mut_slice();
        let mut beside = descriptors;
        while !rest.is_empty() {
            match unix::send(&self.stream, rest, beside) {
                Ok(n) => {
                    io::IoSlice::advance_slices(&mut rest, n);
                    beside = &[];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.make_room(deadline)?;
                }
                Err(error) => return Err(self.end(Error::disconnected(error))),
            }
        }
        Ok(())
    }

    /// Waits for room to send. A broker whose answers are not read stops reading: they are read
    /// meanwhile, unless somebody else does it.
    fn make_room(&self, deadline: Option<Instant>) -> Result<()> {
        let leads = !std::mem::replace(&mut lock(&self.calls).reading, true);
        let wanted = if leads { Wanted::Either } else { Wanted::Room };
        let ready = unix::wait(&self.stream, wanted, deadline).map_err(Error::disconnected);
        let result = match ready {
            Ok(Ready::Input) if leads => self.read_for_others(),
            Ok(Ready::Input | Ready::Room) => Ok(()),
            // A part of the request may have left, so the connection cannot go on.
            Ok(Ready::Nothing) => Err(Error::disconnected("the broker takes no request")),
            Err(error) => Err(error),
        };
        if leads {
            self.stop_reading();
        }
        result.map_err(|error| self.end(error))
    }

    /// Ends the connection for everybody; gives the reason back.
    pub(super) fn end(&self, error: Error) -> Error {
        let mut calls = lock(&self.calls);
        let first = calls.ended.get_or_insert(error).clone();
        self.turn.notify_all();
        drop(calls);
        // One that is closed already needs no end.
        drop(self.stream.shutdown(Shutdown::Both));
        first
    }
}
