//! The one connection of a broker: who waits for which answer, and the task that reads and writes.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::json;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};

use super::dropped::Orphan;
use super::send_queue::SendQueue;
use crate::error::{Error, Result};
use crate::request::Call;
use crate::wire::framing::Framing;
use crate::wire::receive_buffer::ReceiveBuffer;
use crate::wire::request_buffer::{RequestBuffer, RequestParts};
use crate::wire::response::{Envelope, OwnedResponse};
use crate::wire::unix;

/// Payload from this size on is sent from where it lies, and buffers of this size are used again.
const LARGE: usize = 64 << 10;
/// Large buffers that are kept to be used again.
const SPARES: usize = 4;

/// What the callers and the task of a connection share.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    framing: Framing,
    state: Mutex<State>,
    /// Something stands in the queue.
    written: Notify,
    spares: Mutex<Vec<Vec<u8>>>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    slots: HashMap<u64, Slot>,
    outgoing: RequestBuffer,
    queue: SendQueue,
    /// Why nothing will come any more.
    ended: Option<Error>,
}

/// Who gets an answer.
#[derive(Debug)]
enum Slot {
    Waiting(oneshot::Sender<OwnedResponse>),
    Orphan(Orphan),
}

impl Connection {
    pub(crate) fn over(
        stream: std::os::unix::net::UnixStream,
        framing: Framing,
    ) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: UnixStream::from_std(stream)?,
            framing,
            state: Mutex::new(State { outgoing: RequestBuffer::new(framing), ..State::default() }),
            written: Notify::new(),
            spares: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Sends a call, or puts it into the queue; where its answer will come, and its number.
    pub(crate) fn begin<P: Serialize, F>(
        &self,
        call: &Call<'_, P, F>,
    ) -> Result<(u64, oneshot::Receiver<OwnedResponse>)> {
        let descriptors = call.descriptors()?;
        let mut state = self.state();
        if let Some(error) = &state.ended {
            return Err(error.clone());
        }
        state.next += 1;
        let id = state.next;
        let parts = call.parts.as_slice();
        let beside = RequestParts { parts, descriptors: descriptors.len() };
        state.outgoing.write(Some(id), call.method, &call.params, beside)?;
        let (sender, receiver) = oneshot::channel();
        let alone = state.slots.is_empty();
        self.put(&mut state, parts.unwrap_or_default(), &descriptors, alone)?;
        state.slots.insert(id, Slot::Waiting(sender));
        Ok((id, receiver))
    }

    /// Sends a notification, or puts it into the queue.
    pub(crate) fn notify(&self, method: &str, params: &impl Serialize) {
        let mut state = self.state();
        let beside = RequestParts { parts: None, descriptors: 0 };
        if state.ended.is_none() && state.outgoing.write(None, method, params, beside).is_ok() {
            // Without descriptors nothing can go wrong here that the task would not see too.
            drop(self.put(&mut state, &[], &[], false));
        }
    }

    /// Asks the broker to cancel a call. With HTTP it would not read that before the answer.
    pub(crate) fn cancel(&self, id: u64) {
        if self.framing == Framing::Http {
            return;
        }
        self.notify("$/cancelRequest", &json!({ "id": id }));
    }

    /// Says what is to become of the answer to a call that nobody waits for any more. If it has come
    /// already, or will not, the orphan comes back, with the answer if there is one.
    pub(crate) fn leave(
        &self,
        id: u64,
        orphan: Orphan,
        receiver: &mut oneshot::Receiver<OwnedResponse>,
    ) -> Option<(Orphan, Option<OwnedResponse>)> {
        let mut state = self.state();
        match state.slots.get_mut(&id) {
            Some(slot) => {
                *slot = Slot::Orphan(orphan);
                None
            }
            // Answers are handed over while the state is locked, so it is there by now.
            None => Some((orphan, receiver.try_recv().ok())),
        }
    }

    /// Forgets a call: its answer will be dropped, descriptors included.
    pub(crate) fn forget(&self, id: u64) {
        self.state().slots.remove(&id);
    }

    /// Why the connection has ended.
    pub(crate) fn end_reason(&self) -> Error {
        let ended = self.state().ended.clone();
        ended.unwrap_or_else(|| Error::disconnected("the connection was dropped"))
    }

    /// Takes a large buffer back, to be used again.
    pub(crate) fn recycle(&self, answer: OwnedResponse) {
        let mut spares = lock(&self.spares);
        if answer.buffer.len() >= LARGE && spares.len() < SPARES {
            spares.push(answer.buffer);
        }
    }

    fn spare(&self) -> Vec<u8> {
        lock(&self.spares).pop().unwrap_or_default()
    }

    /// Sends what was just written if nothing is before it: a call alone, or a large one, whose
    /// payload is not copied then. Small calls among others gather in the queue and leave together.
    fn put(
        &self,
        state: &mut State,
        parts: &[&[u8]],
        descriptors: &[BorrowedFd<'_>],
        alone: bool,
    ) -> Result<()> {
        let State { outgoing, queue, .. } = state;
        let mut buffers = outgoing.buffers(parts);
        let mut rest = buffers.as_mut_slice();
        let mut beside = descriptors;
        let large = parts.iter().any(|part| part.len() >= LARGE);
        while (alone || large) && queue.is_empty() && !rest.is_empty() {
            let send = || unix::send(self.stream.as_fd(), rest, beside);
            match self.stream.try_io(Interest::WRITABLE, send) {
                Ok(n) => {
                    IoSlice::advance_slices(&mut rest, n);
                    beside = &[];
                }
                // Whatever it is, the task will see it too.
                Err(_) => break,
            }
        }
        if !rest.is_empty() {
            queue.push(rest, beside).map_err(Error::disconnected)?;
            self.written.notify_one();
        }
        Ok(())
    }

    /// Reads and writes until the connection ends.
    pub(crate) async fn serve(&self) {
        let error = self.carry().await;
        let slots = {
            let mut state = self.state();
            state.queue.clear();
            state.ended = Some(error);
            std::mem::take(&mut state.slots)
        };
        for slot in slots.into_values() {
            if let Slot::Orphan(orphan) = slot {
                orphan.never_comes();
            }
        }
    }

    /// Gives the reason for which it cannot go on.
    async fn carry(&self) -> Error {
        let mut received = ReceiveBuffer::new(self.framing);
        loop {
            let waiting = match self.flush() {
                Ok(waiting) => waiting,
                Err(error) => return Error::disconnected(error),
            };
            let interest =
                if waiting { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            tokio::select! {
                ready = self.stream.ready(interest) => match ready {
                    Ok(ready) if ready.is_readable() || ready.is_read_closed() || ready.is_error() => {
                        if let Err(error) = self.receive(&mut received) {
                            return error;
                        }
                    }
                    Ok(_) => {}
                    Err(error) => return Error::disconnected(error),
                },
                () = self.written.notified(), if !waiting => {}
            }
        }
    }

    /// Sends what stands in the queue; whether something is left of it.
    fn flush(&self) -> io::Result<bool> {
        let mut state = self.state();
        while !state.queue.is_empty() {
            let send = |buffers: &[IoSlice<'_>], descriptors: &[BorrowedFd<'_>]| {
                let send = || unix::send(self.stream.as_fd(), buffers, descriptors);
                self.stream.try_io(Interest::WRITABLE, send)
            };
            match state.queue.send(send) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    fn receive(&self, received: &mut ReceiveBuffer) -> Result<()> {
        let receive = || received.receive(self.stream.as_fd());
        match self.stream.try_io(Interest::READABLE, receive) {
            Ok(0) => return Err(Error::disconnected("it closed the connection")),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(Error::protocol(error));
            }
            Err(error) => return Err(Error::disconnected(error)),
        }
        while let Some(message) = received.next()? {
            let descriptors = received.descriptors(&message)?;
            let envelope = Envelope::read(received.json(&message))?;
            envelope.check()?;
            let id = envelope.id();
            let mut state = self.state();
            match id.and_then(|id| state.slots.remove(&id)) {
                // An answer to nobody, or one that comes twice.
                None => received.pass(&message),
                Some(Slot::Waiting(waiter)) => {
                    let answer = received.take(&message, descriptors, || self.spare());
                    // A receiver leaves its slot before it goes, so there is one.
                    drop(waiter.send(answer));
                }
                Some(Slot::Orphan(orphan)) => {
                    drop(state);
                    orphan.comes(self, received.take(&message, descriptors, Vec::new));
                }
            }
        }
        Ok(())
    }
}

/// A task that panicked leaves nothing half done behind these locks.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
