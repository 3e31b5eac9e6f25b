//! A connection that threads share: the first thread that waits reads for all of them.
//!
//! A single thread writes, reads and parses without passing anything to another thread. If several wait,
//! one of them reads. It puts the responses of the others into their slots, and when it has its own
//! response, another thread continues to read. See `waiting.rs`.

use std::io;
use std::net::Shutdown;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;

use crate::error::{Error, Result};
use crate::lock::lock;
use crate::request::Request;
use crate::wire::framing::Framing;
use crate::wire::receive_buffer::ReceiveBuffer;
use crate::wire::request_buffer::{RequestBuffer, RequestParts};
use crate::wire::response::OwnedResponse;
use crate::wire::unix::{self, Interest, Readiness};

/// How long sending a request to cancel a call may take.
const CANCEL_SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// How often [`Connection::cancel`] tries to lock the request buffer.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(1);

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(super) stream: UnixStream,
    framing: Framing,
    next_id: AtomicU64,
    /// Locked while a request is written.
    request: Mutex<RequestBuffer>,
    /// Locked by the thread that reads.
    pub(super) received: Mutex<ReceiveBuffer>,
    pub(super) calls: Mutex<Calls>,
    /// Notified when a response has arrived or no thread reads.
    pub(super) calls_changed: Condvar,
    /// Its number in the broker, and the process that serves it.
    identity: OnceLock<(u64, u64)>,
}

/// The calls in progress on a connection.
#[derive(Debug, Default)]
pub(super) struct Calls {
    pub(super) slots: Vec<Slot>,
    /// Whether a thread reads.
    pub(super) is_reading: bool,
    /// Why the connection has ended.
    pub(super) ended: Option<Error>,
}

/// A call in progress, and its response if another thread has read it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: u64,
    pub(super) response: Option<OwnedResponse>,
}

impl Calls {
    pub(super) fn has_response(&self, id: u64) -> bool {
        self.slots.iter().any(|slot| slot.id == id && slot.response.is_some())
    }

    pub(super) fn take_response(&mut self, id: u64) -> Option<OwnedResponse> {
        let has_response = |slot: &Slot| slot.id == id && slot.response.is_some();
        let index = self.slots.iter().position(has_response)?;
        self.slots.swap_remove(index).response
    }
}

impl Connection {
    pub(super) fn over(stream: UnixStream, framing: Framing) -> Self {
        Self {
            stream,
            framing,
            next_id: AtomicU64::new(1),
            request: Mutex::new(RequestBuffer::new(framing)),
            received: Mutex::new(ReceiveBuffer::new(framing)),
            calls: Mutex::default(),
            calls_changed: Condvar::new(),
            identity: OnceLock::new(),
        }
    }

    /// Records the number of the connection in the broker, and of the process that serves it.
    pub(super) fn identify(&self, number: u64, epoch: u64) {
        self.identity.get_or_init(|| (number, epoch));
    }

    /// What [`Connection::identify`] has recorded.
    pub(super) fn identity(&self) -> (u64, u64) {
        self.identity.get().copied().unwrap_or_default()
    }

    /// Whether the peer has not closed the connection, which no call uses now.
    pub(super) fn is_alive(&self) -> bool {
        !self.is_ended() && unix::is_open(&self.stream)
    }

    /// The stream, after the last response was read.
    #[cfg(feature = "tokio")]
    pub(crate) fn into_stream(self) -> UnixStream {
        self.stream
    }

    /// Lets other text precede the first response.
    pub(super) fn expect_preamble(&self) {
        lock(&self.received).expect_preamble();
    }

    /// Whether the connection has ended. It can only be dropped then.
    pub(super) fn is_ended(&self) -> bool {
        lock(&self.calls).ended.is_some()
    }

    /// Whether the broker has closed the idle connection, as it does with HTTP.
    pub(super) fn is_stale(&self) -> bool {
        self.framing == Framing::Http
            && !matches!(
                unix::wait(&self.stream, Interest::Readable, Some(Instant::now())),
                Ok(Readiness::TimedOut)
            )
    }

    /// A new id for a call.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends a request. [`Connection::finish`] or [`Connection::forget`] must follow if it succeeds.
    pub(super) fn begin<P: Serialize>(
        &self,
        id: u64,
        request: &Request<'_, P>,
        deadline: Option<Instant>,
    ) -> Result<()> {
        let descriptors = request.descriptors()?;
        {
            let mut calls = lock(&self.calls);
            if let Some(error) = &calls.ended {
                return Err(error.clone());
            }
            calls.slots.push(Slot { id, response: None });
        }
        let mut buffer = lock(&self.request);
        let parts = request.parts(descriptors.len());
        let written = buffer.write(Some(id), request.method, &request.params, parts);
        let sent = written
            .and_then(|()| self.send(&buffer, request.attachments(), &descriptors, deadline));
        if sent.is_err() {
            self.forget(id);
        }
        sent
    }

    /// Sends a notification if that is possible without waiting; whether it is.
    pub(super) fn try_notify(&self, method: &str, params: &impl Serialize) -> bool {
        let Ok(mut buffer) = self.request.try_lock() else { return false };
        if self.is_ended() || buffer.write(None, method, params, RequestParts::default()).is_err() {
            return false;
        }
        let buffers = buffer.buffers(&[]);
        let length: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        match unix::send(&self.stream, &buffers, &[]) {
            Ok(n) if n == length => true,
            // A part was sent, so the broker would take what follows for the rest.
            Ok(_) => {
                self.end(Error::disconnected("a notification was sent only in part"));
                true
            }
            Err(_) => false,
        }
    }

    /// Sends a notification, and waits until that is possible.
    pub(super) fn notify(
        &self,
        method: &str,
        params: &impl Serialize,
        deadline: Option<Instant>,
    ) -> Result<()> {
        let mut buffer = lock(&self.request);
        buffer.write(None, method, params, RequestParts::default())?;
        self.send(&buffer, &[], &[], deadline)
    }

    /// Asks the broker to cancel a call, and does not wait for its response.
    ///
    /// If the broker cannot be asked, the connection ends, which cancels the call too: with HTTP the broker
    /// reads nothing while a request waits, and another thread may be unable to send its request.
    pub(super) fn cancel(&self, id: u64) {
        let deadline = Instant::now() + CANCEL_SEND_TIMEOUT;
        let cancelled = || Error::Cancelled { call: String::new(), sent: None };
        if self.framing == Framing::Http {
            self.end(cancelled());
            return;
        }
        let mut buffer = loop {
            match self.request.try_lock() {
                Ok(buffer) => break buffer,
                Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    thread::park_timeout(LOCK_RETRY_INTERVAL);
                }
                Err(TryLockError::WouldBlock) => {
                    self.end(cancelled());
                    return;
                }
            }
        };
        let params = json!({ "id": id });
        let written = buffer.write(None, "$/cancelRequest", &params, RequestParts::default());
        // An error of sending has ended the connection.
        drop(written.and_then(|()| self.send(&buffer, &[], &[], Some(deadline))));
    }

    /// Forgets a call: its response is discarded and its descriptors are closed.
    pub(super) fn forget(&self, id: u64) {
        lock(&self.calls).slots.retain(|slot| slot.id != id);
    }

    fn send(
        &self,
        buffer: &RequestBuffer,
        attachments: &[&[u8]],
        descriptors: &[BorrowedFd<'_>],
        deadline: Option<Instant>,
    ) -> Result<()> {
        let mut buffers = buffer.buffers(attachments);
        let mut rest = buffers.as_mut_slice();
        let mut unsent_descriptors = descriptors;
        while !rest.is_empty() {
            match unix::send(&self.stream, rest, unsent_descriptors) {
                Ok(n) => {
                    io::IoSlice::advance_slices(&mut rest, n);
                    unsent_descriptors = &[];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait_until_writable(deadline)?;
                }
                Err(error) => return Err(self.end(self.send_failed(&error))),
            }
        }
        Ok(())
    }

    /// The error when sending has failed. Another thread that reads reports what it receives.
    fn send_failed(&self, error: &io::Error) -> Error {
        match self.received.try_lock() {
            Ok(mut received) => received.send_failed(&self.stream, error),
            Err(_) => Error::disconnected(error),
        }
    }

    /// Waits for space in the send buffer. A broker whose responses are not read stops reading requests,
    /// so this thread reads meanwhile, unless another thread does.
    fn wait_until_writable(&self, deadline: Option<Instant>) -> Result<()> {
        let reads = !std::mem::replace(&mut lock(&self.calls).is_reading, true);
        let interest = if reads { Interest::Either } else { Interest::Writable };
        let ready = unix::wait(&self.stream, interest, deadline).map_err(Error::disconnected);
        let result = match ready {
            Ok(Readiness::Readable) if reads => self.read_for_others(),
            Ok(Readiness::Readable | Readiness::Writable) => Ok(()),
            // A part of the request may have been sent, so the connection is unusable.
            Ok(Readiness::TimedOut) => {
                Err(Error::disconnected("the broker does not read the request"))
            }
            Err(error) => Err(error),
        };
        if reads {
            self.stop_reading();
        }
        result.map_err(|error| self.end(error))
    }

    /// Ends the connection for all threads. Returns the reason of its end, which an earlier error can be.
    pub(super) fn end(&self, error: Error) -> Error {
        let mut calls = lock(&self.calls);
        let first = calls.ended.get_or_insert(error).clone();
        self.calls_changed.notify_all();
        drop(calls);
        // It fails only if the peer has closed the connection.
        drop(self.stream.shutdown(Shutdown::Both));
        first
    }
}
