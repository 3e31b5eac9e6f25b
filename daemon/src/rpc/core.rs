//! The calls of one connection: messages in, answers out, independent of the transport.
//!
//! Calls start in the order of arrival. Each is polled once as it arrives, and only those that have to wait
//! go into a set. Every request with an id gets exactly one response.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::future::{AbortHandle, Abortable};
use futures_util::stream::{FuturesUnordered, StreamExt};
use jsonrpsee_types::Id;
use serde_json::value::RawValue;
use sockbroker_proto::api::session::RequestId;
use sockbroker_proto::error::ErrorKind;

use crate::config::limits::size;
use crate::error::LimitExceeded;
pub use crate::rpc::answer::{Answer, Message};
use crate::rpc::answer::{Refusal, Started, conclude, keep, refused, without_id};
use crate::rpc::batch::{self, Batches, Slot};
use crate::rpc::bounds::admit;
use crate::rpc::call::{Call, RequestParts, ResponseParts};
use crate::rpc::envelope::{Envelope, EnvelopeError, request_id};
use crate::rpc::error::RpcError;
use crate::rpc::methods::outcome;
use crate::rpc::methods::{Method, MethodTable};
use crate::rpc::waiting::{
    Ended, First, Guarded, Held, Shares, Waiting, check_connection, first_poll,
};
use crate::session::connection::Connection;
use crate::session::finished::{KeptAnswer, LastCalls};

/// The calls of one connection.
#[derive(Debug)]
pub struct Core {
    connection: Arc<Connection>,
    methods: MethodTable,
    waiting: FuturesUnordered<Waiting>,
    /// Calls that wait, by id. These can be cancelled.
    calls: HashMap<RequestId, (AbortHandle, Call)>,
    batches: Batches,
    held: Held,
    last: Option<(RequestId, KeptAnswer)>,
}

impl Core {
    pub fn new(connection: Arc<Connection>, methods: MethodTable) -> Self {
        Self {
            batches: Batches::new(connection.user()),
            connection,
            methods,
            waiting: FuturesUnordered::new(),
            calls: HashMap::new(),
            held: Held::default(),
            last: None,
        }
    }

    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Whether no call waits.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Starts the calls of a message. `None` if the answer comes later, or if there is none.
    pub fn receive(&mut self, message: Message) -> Option<Answer> {
        self.last = None;
        let Ok(text) = std::str::from_utf8(&message.json) else {
            return Some(without_id(&RpcError::plain(
                ErrorKind::Parse,
                "the message is not UTF-8",
            )));
        };
        if text.trim_start().starts_with('[') {
            return self.receive_batch(text);
        }
        match self.start(text, message.parts, Slot::Alone) {
            Started::Answered(id, json, response_parts) => {
                Some(self.finish(&id, json, response_parts))
            }
            Started::Waiting | Started::Silent => None,
        }
    }

    fn receive_batch(&mut self, text: &str) -> Option<Answer> {
        let limits = &self.connection.broker().limits;
        let entries = match batch::entries(text, limits) {
            Ok(entries) => entries,
            Err(error) => return Some(without_id(&error)),
        };
        if self.batches.held() >= size(limits.output_bytes) {
            let exceeded = LimitExceeded { name: "output_bytes", value: limits.output_bytes };
            return Some(without_id(&RpcError::limit(exceeded, 0)));
        }
        let batch = self.batches.begin(entries.len(), size(limits.frame_bytes));
        for (index, entry) in entries.into_iter().enumerate() {
            let slot = Slot::InBatch { batch, index };
            match self.start(entry.get(), RequestParts::default(), slot) {
                Started::Answered(id, json, _) => self.collect(batch, index, &id, json),
                Started::Silent => self.batches.silent(batch),
                Started::Waiting => {}
            }
        }
        self.end_batch(batch)
    }

    /// Stores the response of a call until its batch is complete.
    fn collect(&mut self, batch: u64, index: usize, id: &Id<'_>, json: bytes::Bytes) {
        if let Err(exceeded) = self.batches.answer(batch, index, id, json) {
            self.connection.broker().metrics.limit_exceeded(exceeded.name);
        }
    }

    fn end_batch(&mut self, batch: u64) -> Option<Answer> {
        let json = self.batches.take_complete(batch)?;
        Some(Answer { json, ..Answer::default() })
    }

    fn start(&mut self, text: &str, parts: RequestParts, slot: Slot) -> Started {
        let (envelope, id) = match Envelope::read(text) {
            Ok(read) => read,
            Err((EnvelopeError::NotJson(text), id)) => {
                return refused(Some(id), &RpcError::plain(ErrorKind::Parse, text));
            }
            Err((EnvelopeError::NotRequest(text), id)) => {
                return refused(Some(id), &RpcError::plain(ErrorKind::Request, text));
            }
        };
        if envelope.method == "$/cancelRequest" {
            return self.cancel(envelope.params, id);
        }
        let Some(method) = self.methods.get(&envelope.method).cloned() else {
            let text = format!("no method {}: see rpc.discover", envelope.method);
            return refused(id.map(Id::into_owned), &RpcError::plain(ErrorKind::Method, text));
        };
        self.connection.count_call();
        let key = id.as_ref().and_then(request_id);
        if key.as_ref().is_some_and(|key| self.calls.contains_key(key)) {
            let error = RpcError::plain(ErrorKind::Request, "a call with this id is in flight");
            return refused(id.map(Id::into_owned), &error);
        }
        let items = match admit(&method, text, envelope.params, self.connection.broker()) {
            Ok(admitted) => admitted,
            Err(error) => return refused(id.map(Id::into_owned), &error),
        };
        let alone = matches!(slot, Slot::Alone);
        let held = Held::of(text, &parts, items);
        let call = Call::new(&self.connection, (method.name, key), parts, alone);
        self.run(method, call, id, envelope.params, slot, held)
    }

    /// Runs a method to its first wait.
    fn run(
        &mut self,
        method: Arc<Method>,
        call: Call,
        id: Option<Id<'_>>,
        params: Option<&RawValue>,
        slot: Slot,
        held: Held,
    ) -> Started {
        let outcome = match first_poll(&method, &call, params) {
            First::Ended(outcome) => outcome,
            First::Waits(future) => {
                let id = id.map(Id::into_owned);
                let ended = Ended { id, method, call, slot, held, shares: None, outcome: None };
                return self.wait(future, ended);
            }
        };
        let answered = id.is_some();
        let id = id.map_or(Id::Null, Id::into_owned);
        let (json, response_parts) = conclude(&method, &call, &id, outcome);
        if answered { Started::Answered(id, json, response_parts) } else { Started::Silent }
    }

    /// Puts a call into the set of those that wait, within the limits of the connection and the user.
    fn wait(&mut self, future: Guarded, mut ended: Ended) -> Started {
        let limits = &self.connection.broker().limits;
        let sum = self.held.plus(ended.held);
        let shares = check_connection(limits, self.waiting.len(), sum)
            .and_then(|()| Shares::take(self.connection.user(), ended.held));
        match shares {
            Ok(shares) => ended.shares = Some(shares),
            Err(exceeded) => {
                drop(future);
                ended.method.outcomes.count(outcome(Some(ErrorKind::Limit)));
                self.connection.broker().metrics.limit_exceeded(exceeded.name);
                return refused(ended.id, &RpcError::limit(exceeded, ended.call.sent()));
            }
        }
        self.held = sum;
        let (abort, registration) = AbortHandle::new_pair();
        if let Some(key) = ended.id.as_ref().and_then(request_id) {
            self.calls.insert(key, (abort, ended.call.clone()));
        }
        self.waiting.push(Waiting::new(Abortable::new(future, registration), ended));
        Started::Waiting
    }

    /// `$/cancelRequest {id}`: ends a call that waits. Any other id is ignored: its call has ended, or never
    /// began.
    fn cancel(&mut self, params: Option<&RawValue>, id: Option<Id<'_>>) -> Started {
        #[derive(serde::Deserialize)]
        struct Cancel {
            id: RequestId,
        }
        let cancel = params.and_then(|params| serde_json::from_str::<Cancel>(params.get()).ok());
        if let Some((abort, _)) = cancel.and_then(|cancel| self.calls.get(&cancel.id)) {
            abort.abort();
        }
        let error = RpcError::plain(
            ErrorKind::Request,
            "$/cancelRequest is a notification: send it without an id",
        );
        if id.is_some() { refused(id.map(Id::into_owned), &error) } else { Started::Silent }
    }

    /// Polls for the answer of a call that waited. `None` when no call waits.
    pub fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<Option<Answer>> {
        // Usually no call waits.
        while !self.waiting.is_empty() {
            let Some(ended) = ready!(self.waiting.poll_next_unpin(context)) else { break };
            self.held = self.held.minus(ended.held);
            if let Some(key) = ended.id.as_ref().and_then(request_id) {
                self.calls.remove(&key);
            }
            if let Some(answer) = self.conclude_waiting(ended) {
                return Poll::Ready(Some(answer));
            }
        }
        Poll::Ready(None)
    }

    /// Whether the answer that is kept for `call.resolve` has descriptors.
    pub fn keeps_descriptors(&self) -> bool {
        self.last.as_ref().is_some_and(|(_, kept)| !kept.descriptors.is_empty())
    }

    /// Drops the answer that is kept for `call.resolve`, because the peer has received it.
    pub fn forget_last(&mut self) {
        self.last = None;
    }

    fn conclude_waiting(&mut self, ended: Ended) -> Option<Answer> {
        let Ended { id, method, call, slot, outcome: ended, .. } = ended;
        call.broker().activity.note();
        let concluded = id.map(|id| {
            let (json, response_parts) = if let Some(ended) = ended {
                conclude(&method, &call, &id, ended)
            } else {
                method.outcomes.count(outcome(Some(ErrorKind::Cancelled)));
                (RpcError::cancelled(call.sent()).encode(&id), ResponseParts::default())
            };
            (id, json, response_parts)
        });
        match (slot, concluded) {
            (Slot::Alone, Some((id, json, response_parts))) => {
                Some(self.finish(&id, json, response_parts))
            }
            (Slot::Alone, None) => None,
            (Slot::InBatch { batch, index }, Some((id, json, _))) => {
                self.collect(batch, index, &id, json);
                self.end_batch(batch)
            }
            (Slot::InBatch { batch, .. }, None) => {
                self.batches.silent(batch);
                self.end_batch(batch)
            }
        }
    }

    /// Makes the answer, and keeps a copy for `call.resolve` if the session is open.
    fn finish(&mut self, id: &Id<'_>, json: bytes::Bytes, response_parts: ResponseParts) -> Answer {
        let passes = !response_parts.descriptors.is_empty();
        let refusal = passes.then(|| Refusal::new(id));
        let answer = Answer { json, response_parts, refusal };
        if let Some(request) = request_id(id)
            && self.connection.session().is_open()
            && let Some(kept) = keep(&answer, &self.connection)
        {
            self.last = Some((request, kept));
        }
        answer
    }

    /// Cancels all calls that wait. Their answers follow.
    pub fn cancel_all(&mut self) {
        for (abort, _) in self.calls.values() {
            abort.abort();
        }
    }

    /// Cancels all calls that wait, and ends the connection.
    pub fn end(mut self) {
        self.waiting.clear();
        let cancelled = self.calls.drain().map(|(request, (_, call))| (request, call.sent()));
        let (cancelled, answered) = (cancelled.collect(), self.last.take());
        self.connection.end(LastCalls::new(cancelled, answered, self.connection.user()));
    }
}
