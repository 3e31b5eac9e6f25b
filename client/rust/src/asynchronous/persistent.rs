//! The calls of a session that outlives its process, as they have to be sent once more.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Instant;

use serde_json::Value;
use tokio::sync::oneshot;

use crate::blocking::attach::{Attached, Link, ends_connection};
use crate::blocking::recovery::{LostCall, Verdict, settle, settle_repeated};
use crate::error::{Error, Result};
use crate::lock::lock;
use crate::recovery::{Backoff, CallFacts, CallKind, Observed, Streams};
use crate::request::Request;
use crate::wire::framing::Framing;
use crate::wire::request_buffer::RequestBuffer;
use crate::wire::response::OwnedResponse;

/// What repeats the calls of a session.
#[derive(Debug)]
pub(super) struct Persistent {
    link: Arc<Link>,
    streams: Arc<Mutex<Streams>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The calls without a response, by their ids.
    calls: BTreeMap<u64, Entry>,
    /// The number of the connection, and of the process that serves it.
    identity: (u64, u64),
    /// When repeated calls expire.
    deadlines: BTreeSet<(Instant, u64)>,
}

/// A call without a response.
#[derive(Debug)]
struct Entry {
    facts: Arc<CallFacts>,
    /// The whole request.
    frame: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// When the timeout of the socket ends. The broker observes it in the first attempt.
    deadline: Option<Instant>,
    /// The connection and the process that the request was sent to.
    sent_to: Option<(u64, u64)>,
    /// What became of it, if the process said so before its end.
    verdict: Option<Verdict>,
    is_repeated: bool,
    is_cancelled: bool,
    is_expired: bool,
    skipped: u64,
    counted: u64,
}

/// A call whose fate has to be found out.
#[derive(Debug)]
pub(super) struct Lost {
    id: u64,
    facts: Arc<CallFacts>,
    sent_to: (u64, u64),
    skipped: u64,
}

/// A new connection, and what became of the calls of the earlier one.
pub(super) type Recovered = (Attached, Vec<(u64, Result<Verdict>)>);

/// What happens to a call after the return of the broker.
#[derive(Debug)]
pub(super) enum Next {
    Send,
    Finish(Result<OwnedResponse>),
}

impl Persistent {
    pub(super) fn new(link: Link) -> Self {
        Self { link: Arc::new(link), streams: Arc::default(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Records the session, which can be attached to from now on.
    pub(super) fn opened(&self, token: String, identity: (u64, u64)) {
        // It is opened once.
        drop(self.link.token.set(token));
        let mut state = self.state();
        state.identity = identity;
        for call in state.calls.values_mut() {
            call.sent_to = Some(identity);
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.link.token.get().is_some()
    }

    /// Records a call. `is_sent` is whether its request is sent at once.
    pub(super) fn begin<P: serde::Serialize>(
        &self,
        id: u64,
        request: &Request<'_, P>,
        buffers: &[IoSlice<'_>],
        descriptors: &[BorrowedFd<'_>],
        is_sent: bool,
    ) -> Result<()> {
        let facts = Arc::new(CallFacts::of(request));
        let duplicates = descriptors.iter().map(BorrowedFd::try_clone_to_owned);
        let descriptors = duplicates.collect::<std::io::Result<_>>();
        let descriptors = descriptors.map_err(|error| Error::native(&facts.call(), &error))?;
        let epoch = self.state().identity.1;
        let timeout = {
            let mut streams = lock(&self.streams);
            if let (CallKind::Receive, Some(handle)) = (facts.kind, facts.handle) {
                if let Some(error) = streams.readers.take_error(handle) {
                    return Err(error);
                }
                streams.readers.used(handle, epoch);
            }
            streams.begin(&facts);
            streams.timeout(&facts)
        };
        let mut state = self.state();
        let entry = Entry {
            frame: buffers.iter().flat_map(|buffer| buffer.iter().copied()).collect(),
            descriptors,
            deadline: timeout.map(|timeout| Instant::now() + timeout),
            sent_to: is_sent.then_some(state.identity),
            verdict: None,
            is_repeated: false,
            is_cancelled: false,
            is_expired: false,
            skipped: 0,
            counted: 0,
            facts,
        };
        state.calls.insert(id, entry);
        Ok(())
    }

    /// Records that the program or a deadline cancels a call.
    pub(super) fn note_cancelled(&self, id: u64) {
        if let Some(entry) = self.state().calls.get_mut(&id) {
            entry.is_cancelled = true;
        }
    }

    /// Forgets a call whose outcome nobody waits for.
    pub(super) fn forget(&self, id: u64) {
        let entry = self.state().calls.remove(&id);
        if let Some(entry) = entry {
            let mut streams = lock(&self.streams);
            let unknown = Error::disconnected("forgotten");
            streams.end(&entry.facts, (entry.skipped, 0), &Observed::default(), Some(&unknown));
            if !matches!(entry.facts.kind, CallKind::Close | CallKind::Receive) {
                streams.forget(entry.facts.handle);
            }
        }
    }

    /// Takes the response to a call; `None` if the broker is about to end and has cancelled the call for that reason.
    pub(super) fn finish(&self, id: u64, response: OwnedResponse) -> Option<Result<OwnedResponse>> {
        let mut state = self.state();
        let Some(entry) = state.calls.get_mut(&id) else { return Some(Ok(response)) };
        let error = response.error();
        match &error {
            Some(Error::Cancelled { sent, .. }) if !entry.is_cancelled => {
                let lost = lost_call(&entry.facts, (0, 0), id, entry.skipped);
                entry.verdict = Some(lost.stopped(sent.unwrap_or_default(), &self.streams));
                return None;
            }
            _ => {}
        }
        let entry = state.calls.remove(&id)?;
        drop(state);
        let result = match error {
            Some(Error::Cancelled { sent, .. }) if entry.is_expired => {
                Err(Error::Timeout { call: entry.facts.call(), sent })
            }
            Some(error) if entry.is_repeated => Err(error),
            _ => Ok(response),
        };
        Some(self.end(&entry, result))
    }

    /// Records the end of a call.
    fn end(&self, entry: &Entry, result: Result<OwnedResponse>) -> Result<OwnedResponse> {
        let result = if entry.is_repeated {
            settle_repeated(&entry.facts, result, |response| {
                Ok(std::mem::replace(response, OwnedResponse::of_result("null")))
            })
        } else {
            result
        };
        let mut streams = lock(&self.streams);
        let progress = (entry.skipped, entry.counted);
        match result.as_ref().map(OwnedResponse::result) {
            Ok(Ok(value)) => {
                streams.end(&entry.facts, progress, &Observed::of(&entry.facts, value), None);
            }
            Ok(Err(error)) => {
                streams.end(&entry.facts, progress, &Observed::default(), Some(&error));
            }
            Err(error) => streams.end(&entry.facts, progress, &Observed::default(), Some(error)),
        }
        if entry.facts.kind != CallKind::Receive
            && matches!(result, Err(Error::Timeout { sent: None, .. } | Error::Disconnected { .. }))
        {
            streams.forget(entry.facts.handle);
        }
        result
    }

    /// Finds the broker again, on a thread of its own, which ends when the receiver is dropped.
    pub(super) fn recover(&self, give_up: Instant) -> oneshot::Receiver<Result<Recovered>> {
        let mut lost = Vec::new();
        for (id, entry) in &self.state().calls {
            if let (Some(sent_to), None) = (entry.sent_to, &entry.verdict) {
                let (facts, skipped) = (Arc::clone(&entry.facts), entry.skipped);
                lost.push(Lost { id: *id, facts, sent_to, skipped });
            }
        }
        let (sender, receiver) = oneshot::channel();
        let (link, streams) = (Arc::clone(&self.link), Arc::clone(&self.streams));
        thread::spawn(move || {
            let recovered = recover(&link, &streams, &lost, give_up, &|| sender.is_closed());
            drop(sender.send(recovered));
        });
        receiver
    }

    pub(super) fn give_up(&self) -> Instant {
        Instant::now() + self.link.reconnect
    }

    /// When the next call expires while the broker is away.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.state().calls.values().filter_map(|entry| entry.deadline).min()
    }

    /// The calls that have expired while the broker is away, with their results.
    pub(super) fn expired(&self) -> Vec<(u64, Result<OwnedResponse>)> {
        let now = Instant::now();
        let mut state = self.state();
        let is_expired = |entry: &Entry| entry.deadline.is_some_and(|deadline| deadline <= now);
        let ids: Vec<_> =
            state.calls.iter().filter(|(_, entry)| is_expired(entry)).map(|(id, _)| *id).collect();
        let entries: Vec<_> =
            ids.into_iter().filter_map(|id| Some((id, state.calls.remove(&id)?))).collect();
        drop(state);
        let expire = |(id, mut entry): (u64, Entry)| {
            entry.is_repeated = true;
            let timeout = Err(Error::Timeout { call: entry.facts.call(), sent: None });
            (id, self.end(&entry, timeout))
        };
        entries.into_iter().map(expire).collect()
    }

    /// Records the new connection and what became of the calls. Returns what to do with each, in their order.
    pub(super) fn reconnected(
        &self,
        identity: (u64, u64),
        verdicts: Vec<(u64, Result<Verdict>)>,
    ) -> Vec<(u64, Next)> {
        let mut verdicts: BTreeMap<_, _> = verdicts.into_iter().collect();
        let mut state = self.state();
        state.identity = identity;
        let mut ended = Vec::new();
        let mut next = Vec::new();
        for (id, entry) in &mut state.calls {
            let verdict = entry.verdict.take().map(Ok).or_else(|| verdicts.remove(id));
            match verdict {
                None => {}
                Some(Ok(Verdict::Repeat)) => entry.is_repeated = true,
                Some(Ok(Verdict::Continue(sent))) => {
                    entry.is_repeated = true;
                    entry.skipped += sent;
                }
                Some(Ok(Verdict::Answered(response, counted))) => {
                    entry.counted = counted;
                    ended.push((*id, Ok(response)));
                    continue;
                }
                Some(Err(error)) => {
                    ended.push((*id, Err(error)));
                    continue;
                }
            }
            entry.sent_to = Some(identity);
            next.push((*id, Next::Send));
        }
        let repeated = state.calls.iter().filter(|(_, entry)| entry.is_repeated);
        let deadlines = repeated.filter_map(|(id, entry)| Some((entry.deadline?, *id))).collect();
        state.deadlines = deadlines;
        let ended: Vec<_> = ended
            .into_iter()
            .filter_map(|(id, result)| Some((id, state.calls.remove(&id)?, result)))
            .collect();
        drop(state);
        let finish = |(id, entry, result)| (id, Next::Finish(self.end(&entry, result)));
        next.extend(ended.into_iter().map(finish));
        next.sort_by_key(|(id, _)| *id);
        next
    }

    /// Whether a call whose future was dropped is still to be sent.
    pub(super) fn outlives_its_future(&self, id: u64) -> bool {
        self.state().calls.get(&id).is_some_and(|entry| entry.facts.kind == CallKind::Close)
    }

    /// Passes the frame of a call to a function, which sends it.
    pub(super) fn with_frame(&self, id: u64, send: impl FnOnce(&[u8], &[OwnedFd])) {
        let state = self.state();
        let Some(entry) = state.calls.get(&id) else { return };
        if entry.skipped == 0 {
            send(&entry.frame, &entry.descriptors);
            return;
        }
        // What is left of a `sendall`: its data are the last bytes of the frame.
        let left = usize::try_from(entry.facts.length - entry.skipped).unwrap_or(0);
        let data = entry.frame.get(entry.frame.len().saturating_sub(left)..).unwrap_or_default();
        let request = Request::of_rest(entry.facts.handle, data);
        let mut buffer = RequestBuffer::new(Framing::Lsp);
        let parts = request.parts(0);
        if buffer.write(Some(id), request.method, &request.params, parts).is_ok() {
            let frame: Vec<u8> =
                buffer.buffers(&[data]).iter().flat_map(|part| part.iter().copied()).collect();
            send(&frame, &[]);
        }
    }

    /// When the next repeated call expires.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let mut state = self.state();
        loop {
            let (deadline, id) = *state.deadlines.first()?;
            if state.calls.contains_key(&id) {
                return Some(deadline);
            }
            state.deadlines.pop_first();
        }
    }

    /// The repeated calls that have expired, to be cancelled.
    pub(super) fn take_expired(&self) -> Vec<u64> {
        let now = Instant::now();
        let mut state = self.state();
        let mut expired = Vec::new();
        while let Some((deadline, id)) = state.deadlines.first().copied() {
            if deadline > now {
                break;
            }
            state.deadlines.pop_first();
            if let Some(entry) = state.calls.get_mut(&id) {
                entry.is_expired = true;
                expired.push(id);
            }
        }
        expired
    }

    /// The error of a call whose connection cannot be had again.
    pub(super) fn clear(&self) {
        self.state().calls.clear();
    }
}

fn lost_call(
    facts: &CallFacts,
    (connection, epoch): (u64, u64),
    id: u64,
    skipped: u64,
) -> LostCall<'_> {
    LostCall { facts, connection, id, epoch, skipped, is_ordered: true }
}

/// Attaches to the session again, and finds out what became of the calls, in their order.
fn recover(
    link: &Link,
    streams: &Mutex<Streams>,
    lost: &[Lost],
    give_up: Instant,
    is_abandoned: &dyn Fn() -> bool,
) -> Result<Recovered> {
    let mut verdicts: Vec<(u64, Result<Verdict>)> = Vec::new();
    let mut backoff = Backoff::default();
    loop {
        let attached = link.attach_again(&mut None, None, give_up, is_abandoned)?;
        if settle_all(&attached, streams).is_err() {
            thread::park_timeout(backoff.next());
            continue;
        }
        let resolved = lost.iter().skip(verdicts.len()).try_for_each(|lost| {
            let call = lost_call(&lost.facts, lost.sent_to, lost.id, lost.skipped);
            match call.resolve(&attached.connection, attached.epoch, streams) {
                Err(error) if ends_connection(&error) => Err(()),
                verdict => {
                    verdicts.push((lost.id, verdict));
                    Ok(())
                }
            }
        });
        if resolved.is_ok() {
            return Ok((attached, verdicts));
        }
        thread::park_timeout(backoff.next());
    }
}

/// The parameters of the call that opens the session.
pub(super) fn open_params(is_relayed: bool) -> Value {
    let mut params = serde_json::json!({ "persist": true, "exactly_once": true });
    if is_relayed {
        params["descriptors"] = Value::Bool(false);
    }
    params
}

/// Reports to the process how much the program has received from each connection. No response is on its way.
fn settle_all(attached: &Attached, streams: &Mutex<Streams>) -> Result<()> {
    let (connection, epoch) = (&attached.connection, attached.epoch);
    let unsettled = lock(streams).readers.unsettled(epoch);
    for handle in unsettled {
        let received = lock(streams).readers.received(handle);
        match settle(connection, (handle, received), epoch, streams) {
            // The receive in progress reports it, or the next one.
            Err(error @ Error::Interrupted { .. }) => {
                lock(streams).readers.report_later(handle, error);
            }
            other => other?,
        }
    }
    Ok(())
}
