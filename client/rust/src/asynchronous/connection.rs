//! The connection of a broker: which call waits for which response, and the task that reads and writes.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard};

use serde::Serialize;
use serde_json::json;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};

use super::dropped::DroppedCall;
use super::send_queue::SendQueue;
use crate::error::{Error, Result};
use crate::lock::lock;
use crate::request::Request;
use crate::wire::framing::Framing;
use crate::wire::receive_buffer::ReceiveBuffer;
use crate::wire::request_buffer::{RequestBuffer, RequestParts};
use crate::wire::response::{Envelope, OwnedResponse};
use crate::wire::unix;

/// The size in bytes from which attachments are sent without a copy and buffers are reused.
const LARGE: usize = 64 << 10;
/// The most buffers that are kept for reuse.
const SPARE_BUFFERS_MAX: usize = 4;

/// What the callers and the task of a connection share.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    framing: Framing,
    /// Whether other text may precede the first response.
    expects_preamble: bool,
    state: Mutex<State>,
    /// Wakes the task when the queue has bytes.
    queued: Notify,
    spare_buffers: Mutex<Vec<Vec<u8>>>,
}

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    slots: HashMap<u64, Slot>,
    request: RequestBuffer,
    queue: SendQueue,
    /// Why the connection has ended.
    ended: Option<Error>,
}

/// What happens to a response.
#[derive(Debug)]
enum Slot {
    Waiting(oneshot::Sender<OwnedResponse>),
    Dropped(DroppedCall),
}

impl Connection {
    /// Must be called in a tokio runtime.
    pub(super) fn over(
        stream: std::os::unix::net::UnixStream,
        framing: Framing,
        expects_preamble: bool,
    ) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: UnixStream::from_std(stream)?,
            framing,
            expects_preamble,
            state: Mutex::new(State { request: RequestBuffer::new(framing), ..State::default() }),
            queued: Notify::new(),
            spare_buffers: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Sends or queues a request. Returns its id and the receiver of its response.
    pub(super) fn begin<P: Serialize>(
        &self,
        request: &Request<'_, P>,
    ) -> Result<(u64, oneshot::Receiver<OwnedResponse>)> {
        let descriptors = request.descriptors()?;
        let mut state = self.state();
        if let Some(error) = &state.ended {
            return Err(error.clone());
        }
        state.last_id += 1;
        let id = state.last_id;
        let parts = request.parts(descriptors.len());
        state.request.write(Some(id), request.method, &request.params, parts)?;
        let (sender, receiver) = oneshot::channel();
        let is_only_call = state.slots.is_empty();
        self.send_or_queue(&mut state, request.attachments(), &descriptors, is_only_call)?;
        state.slots.insert(id, Slot::Waiting(sender));
        Ok((id, receiver))
    }

    /// Queues a notification.
    pub(super) fn notify(&self, method: &str, params: &impl Serialize) {
        let mut state = self.state();
        let parts = RequestParts::default();
        if state.ended.is_none() && state.request.write(None, method, params, parts).is_ok() {
            // Only duplicating descriptors can fail, and there are none.
            drop(self.send_or_queue(&mut state, &[], &[], false));
        }
    }

    /// Asks the broker to cancel a call. Does nothing with HTTP, where the broker reads the next request
    /// after it has answered.
    pub(super) fn cancel(&self, id: u64) {
        if self.framing == Framing::Http {
            return;
        }
        self.notify("$/cancelRequest", &json!({ "id": id }));
    }

    /// Cancels a call whose future was dropped. `dropped` takes its response, which can already be in
    /// `receiver`.
    pub(super) fn drop_call(
        &self,
        id: u64,
        dropped: DroppedCall,
        receiver: &mut oneshot::Receiver<OwnedResponse>,
    ) {
        dropped.begin();
        let mut state = self.state();
        if let Some(slot) = state.slots.get_mut(&id) {
            *slot = Slot::Dropped(dropped);
            drop(state);
            self.cancel(id);
            return;
        }
        drop(state);
        // A response enters its channel while the state is locked, so it is there by now.
        match receiver.try_recv() {
            Ok(response) => self.settle(dropped, response),
            Err(_ended) => dropped.abandon(),
        }
    }

    fn settle(&self, dropped: DroppedCall, response: OwnedResponse) {
        for handle in dropped.settle(response) {
            self.notify("socket.close", &(handle,));
        }
    }

    /// Forgets a call: its response is discarded and its descriptors are closed.
    pub(super) fn forget(&self, id: u64) {
        self.state().slots.remove(&id);
    }

    /// Why the connection has ended.
    pub(super) fn end_reason(&self) -> Error {
        let ended = self.state().ended.clone();
        ended.unwrap_or_else(|| Error::disconnected("the connection was dropped"))
    }

    /// Takes the buffer of a response for reuse, if it is large.
    pub(super) fn recycle(&self, response: OwnedResponse) {
        let mut spare_buffers = lock(&self.spare_buffers);
        if response.buffer.len() >= LARGE && spare_buffers.len() < SPARE_BUFFERS_MAX {
            spare_buffers.push(response.buffer);
        }
    }

    fn spare_buffer(&self) -> Vec<u8> {
        lock(&self.spare_buffers).pop().unwrap_or_default()
    }

    /// Sends the request in `state`, or queues what cannot be sent.
    ///
    /// The only call in progress is sent at once. So is a large one, which avoids a copy. Small requests
    /// of several calls gather in the queue and leave in one system call. Nothing overtakes the queue.
    fn send_or_queue(
        &self,
        state: &mut State,
        attachments: &[&[u8]],
        descriptors: &[BorrowedFd<'_>],
        is_only_call: bool,
    ) -> Result<()> {
        let State { request, queue, .. } = state;
        let mut buffers = request.buffers(attachments);
        let mut rest = buffers.as_mut_slice();
        let mut unsent_descriptors = descriptors;
        let large = attachments.iter().any(|attachment| attachment.len() >= LARGE);
        while (is_only_call || large) && queue.is_empty() && !rest.is_empty() {
            let send = || unix::send(self.stream.as_fd(), rest, unsent_descriptors);
            match self.stream.try_io(Interest::WRITABLE, send) {
                Ok(n) => {
                    IoSlice::advance_slices(&mut rest, n);
                    unsent_descriptors = &[];
                }
                // The task meets the same error and reports it.
                Err(_) => break,
            }
        }
        if !rest.is_empty() {
            queue.push(rest, unsent_descriptors).map_err(Error::disconnected)?;
            self.queued.notify_one();
        }
        Ok(())
    }

    /// Reads and writes until the connection ends.
    pub(super) async fn serve(&self) {
        let error = self.serve_until_error().await;
        let slots = {
            let mut state = self.state();
            state.queue.clear();
            state.ended = Some(error);
            std::mem::take(&mut state.slots)
        };
        for slot in slots.into_values() {
            match slot {
                // Dropping the sender wakes the receiver.
                Slot::Waiting(_sender) => {}
                Slot::Dropped(dropped) => dropped.abandon(),
            }
        }
    }

    async fn serve_until_error(&self) -> Error {
        let mut received = ReceiveBuffer::new(self.framing);
        if self.expects_preamble {
            received.expect_preamble();
        }
        loop {
            let unsent = match self.send_queued() {
                Ok(unsent) => unsent,
                Err(error) => return received.send_failed(self.stream.as_fd(), &error),
            };
            let interest =
                if unsent { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
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
                () = self.queued.notified(), if !unsent => {}
            }
        }
    }

    /// Sends queued bytes; whether some remain.
    fn send_queued(&self) -> io::Result<bool> {
        let mut state = self.state();
        while !state.queue.is_empty() {
            let send = |buffers: &[IoSlice<'_>], descriptors: &[BorrowedFd<'_>]| {
                let send = || unix::send(self.stream.as_fd(), buffers, descriptors);
                self.stream.try_io(Interest::WRITABLE, send)
            };
            match state.queue.send_first(send) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Receives available bytes and delivers complete responses.
    fn receive(&self, received: &mut ReceiveBuffer) -> Result<()> {
        let receive = || received.receive(self.stream.as_fd());
        match self.stream.try_io(Interest::READABLE, receive) {
            Ok(0) => return Err(received.closed()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(Error::protocol(error));
            }
            Err(error) => return Err(received.failed(&error)),
        }
        while let Some(message) = received.next()? {
            let descriptors = received.take_descriptors(&message)?;
            let envelope = Envelope::parse(received.json(&message))?;
            envelope.check()?;
            let id = envelope.id();
            let mut state = self.state();
            match id.and_then(|id| state.slots.remove(&id)) {
                // A response to no call, or a second one.
                None => received.skip(&message),
                Some(Slot::Waiting(sender)) => {
                    let response =
                        received.take_message(&message, descriptors, || self.spare_buffer());
                    // A dropped receiver has replaced its slot, so this one exists.
                    drop(sender.send(response));
                }
                Some(Slot::Dropped(dropped)) => {
                    drop(state);
                    let response = received.take_message(&message, descriptors, Vec::new);
                    self.settle(dropped, response);
                }
            }
        }
        Ok(())
    }
}
