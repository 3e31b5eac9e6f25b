//! The connection of a broker: which call waits for which response, and the task that reads and writes.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use serde::Serialize;
use serde_json::json;
use sockbroker_proto::handle::Handle;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};

use super::dropped::DroppedCall;
use super::persistent::Persistent;
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
    framing: Framing,
    /// Whether other text may precede the first response.
    expects_preamble: bool,
    state: Mutex<State>,
    /// Wakes the task when the queue has bytes.
    pub(super) queued: Notify,
    spare_buffers: Mutex<Vec<Vec<u8>>>,
    /// What repeats calls, if the session outlives its process.
    persistent: Option<Persistent>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) stream: Arc<UnixStream>,
    /// Whether the broker is away. Requests wait for its return.
    pub(super) is_away: bool,
    last_id: u64,
    pub(super) slots: HashMap<u64, Slot>,
    request: RequestBuffer,
    pub(super) queue: SendQueue,
    /// Why the connection has ended.
    ended: Option<Error>,
}

/// What happens to a response.
#[derive(Debug)]
pub(super) enum Slot {
    Waiting(oneshot::Sender<Result<OwnedResponse>>),
    Dropped(DroppedCall),
}

impl Connection {
    /// Must be called in a tokio runtime.
    pub(super) fn over(
        stream: std::os::unix::net::UnixStream,
        framing: Framing,
        expects_preamble: bool,
        persistent: Option<Persistent>,
    ) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let state = State {
            stream: Arc::new(UnixStream::from_std(stream)?),
            is_away: false,
            last_id: 0,
            slots: HashMap::new(),
            request: RequestBuffer::new(framing),
            queue: SendQueue::default(),
            ended: None,
        };
        Ok(Self {
            framing,
            expects_preamble,
            state: Mutex::new(state),
            queued: Notify::new(),
            spare_buffers: Mutex::default(),
            persistent,
        })
    }

    pub(super) fn persistent(&self) -> Option<&Persistent> {
        self.persistent.as_ref()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Sends or queues a request. Returns its id and the receiver of its response.
    pub(super) fn begin<P: Serialize>(
        &self,
        request: &Request<'_, P>,
    ) -> Result<(u64, oneshot::Receiver<Result<OwnedResponse>>)> {
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
        self.send_or_wait(&mut state, id, request, &descriptors)?;
        state.slots.insert(id, Slot::Waiting(sender));
        Ok((id, receiver))
    }

    /// Sends or queues the request in `state`, or keeps it until the broker returns.
    fn send_or_wait<P: Serialize>(
        &self,
        state: &mut State,
        id: u64,
        request: &Request<'_, P>,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<()> {
        if let Some(persistent) = &self.persistent {
            let buffers = state.request.buffers(request.attachments());
            persistent.begin(id, request, &buffers, descriptors, !state.is_away)?;
            if state.is_away {
                // The task observes its deadline.
                self.queued.notify_one();
                return Ok(());
            }
        }
        let is_only_call = state.slots.is_empty();
        self.send_or_queue(state, request.attachments(), descriptors, is_only_call)
    }

    /// Closes a handle. Nothing waits for the response, but the request is repeated if its connection is lost.
    pub(super) fn close(&self, handle: Handle) {
        if self.persistent.is_none() {
            self.notify("socket.close", &(handle,));
            return;
        }
        let request = Request::new("socket.close", (handle,));
        let mut state = self.state();
        if state.ended.is_some() {
            return;
        }
        state.last_id += 1;
        let id = state.last_id;
        let parts = request.parts(0);
        if state.request.write(Some(id), request.method, &request.params, parts).is_ok()
            && self.send_or_wait(&mut state, id, &request, &[]).is_ok()
        {
            state.slots.insert(id, Slot::Dropped(DroppedCall::Discard));
        }
    }

    /// Queues a notification.
    pub(super) fn notify(&self, method: &str, params: &impl Serialize) {
        let mut state = self.state();
        let parts = RequestParts::default();
        let is_open = state.ended.is_none() && !state.is_away;
        if is_open && state.request.write(None, method, params, parts).is_ok() {
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
        if let Some(persistent) = &self.persistent {
            persistent.note_cancelled(id);
        }
        self.notify("$/cancelRequest", &json!({ "id": id }));
    }

    /// Cancels a call whose future was dropped. `dropped` takes its response, which can already be in
    /// `receiver`.
    pub(super) fn drop_call(
        &self,
        id: u64,
        dropped: DroppedCall,
        receiver: &mut oneshot::Receiver<Result<OwnedResponse>>,
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
            Ok(Ok(response)) => self.settle(dropped, response),
            Ok(Err(_)) | Err(_) => dropped.abandon(),
        }
    }

    pub(super) fn settle(&self, dropped: DroppedCall, response: OwnedResponse) {
        for handle in dropped.settle(response) {
            self.notify("socket.close", &(handle,));
        }
    }

    /// Forgets a call: its response is discarded and its descriptors are closed.
    pub(super) fn forget(&self, id: u64) {
        self.state().slots.remove(&id);
        if let Some(persistent) = &self.persistent {
            persistent.forget(id);
        }
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
        let State { stream, request, queue, .. } = state;
        let mut buffers = request.buffers(attachments);
        let mut rest = buffers.as_mut_slice();
        let mut unsent_descriptors = descriptors;
        let large = attachments.iter().any(|attachment| attachment.len() >= LARGE);
        while (is_only_call || large) && queue.is_empty() && !rest.is_empty() {
            let send = || unix::send(stream.as_fd(), rest, unsent_descriptors);
            match stream.try_io(Interest::WRITABLE, send) {
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

    /// Reads and writes until the connection ends, and the session with it.
    pub(super) async fn serve(&self) {
        let mut error = self.serve_until_error().await;
        if let Some(persistent) = &self.persistent {
            while persistent.is_open() && matches!(error, Error::Disconnected { .. }) {
                match self.reconnect(persistent).await {
                    Ok(()) => error = self.serve_until_error().await,
                    Err(reason) => {
                        error = reason;
                        break;
                    }
                }
            }
            persistent.clear();
        }
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
        let stream = Arc::clone(&self.state().stream);
        loop {
            let unsent = match self.send_queued(&stream) {
                Ok(unsent) => unsent,
                Err(_) if self.persistent.is_some() => {
                    // The responses that were sent before the end count.
                    let mut state = self.state();
                    state.is_away = true;
                    state.queue.clear();
                    false
                }
                Err(error) => return received.send_failed(stream.as_fd(), &error),
            };
            let interest =
                if unsent { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            tokio::select! {
                ready = stream.ready(interest) => match ready {
                    Ok(ready) if ready.is_readable() || ready.is_read_closed() || ready.is_error() => {
                        if let Err(error) = self.receive(&stream, &mut received) {
                            return error;
                        }
                    }
                    Ok(_) => {}
                    Err(error) => return Error::disconnected(error),
                },
                () = self.queued.notified(), if !unsent => {}
                () = until(self.persistent.as_ref().and_then(Persistent::next_deadline)) => {
                    let expired = self.persistent.as_ref().map(Persistent::take_expired);
                    expired.into_iter().flatten().for_each(|id| self.cancel(id));
                }
            }
        }
    }

    /// Sends queued bytes; whether some remain.
    fn send_queued(&self, stream: &UnixStream) -> io::Result<bool> {
        let mut state = self.state();
        while !state.queue.is_empty() {
            let send = |buffers: &[IoSlice<'_>], descriptors: &[BorrowedFd<'_>]| {
                let send = || unix::send(stream.as_fd(), buffers, descriptors);
                stream.try_io(Interest::WRITABLE, send)
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
    fn receive(&self, stream: &UnixStream, received: &mut ReceiveBuffer) -> Result<()> {
        let receive = || received.receive(stream.as_fd());
        match stream.try_io(Interest::READABLE, receive) {
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
                Some(slot) => {
                    let spare = || match &slot {
                        Slot::Waiting(_) => self.spare_buffer(),
                        Slot::Dropped(_) => Vec::new(),
                    };
                    let response = received.take_message(&message, descriptors, spare);
                    let id = id.unwrap_or_default();
                    let finished = match &self.persistent {
                        None => Some(Ok(response)),
                        Some(persistent) => persistent.finish(id, response),
                    };
                    match (slot, finished) {
                        (slot, None) => {
                            state.slots.insert(id, slot);
                        }
                        // A dropped receiver has replaced its slot, so this one exists.
                        (Slot::Waiting(sender), Some(result)) => drop(sender.send(result)),
                        (Slot::Dropped(dropped), Some(Ok(response))) => {
                            drop(state);
                            self.settle(dropped, response);
                        }
                        (Slot::Dropped(dropped), Some(Err(_))) => dropped.abandon(),
                    }
                }
            }
        }
        Ok(())
    }
}

/// Waits until a time, or for ever.
pub(super) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
