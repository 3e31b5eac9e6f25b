//! How many bytes each TCP stream has sent, as the program knows it, and the timeouts of sockets.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;
use sockbroker_proto::handle::Handle;

use super::call_facts::{CallFacts, CallKind};
use super::position::Position;
use super::readers::Readers;
use crate::error::Error;

/// Families, types and protocols of Linux.
const AF_INET: i64 = 2;
const AF_INET6: i64 = 10;
const SOCK_STREAM: i64 = 1;
const IPPROTO_TCP: i64 = 6;

/// Whether a socket is of TCP.
pub(crate) fn is_tcp(socket: &Value) -> bool {
    let number = |name: &str| socket.get(name).and_then(Value::as_i64).unwrap_or(-1);
    matches!(number("family"), AF_INET | AF_INET6)
        && number("type") == SOCK_STREAM
        && matches!(number("proto"), 0 | IPPROTO_TCP)
}

/// What a response shows of the sockets that it concerns.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    created: Vec<Value>,
    /// How many bytes were sent or received.
    count: Option<u64>,
}

impl Observed {
    /// Takes the number of bytes, which is recorded now.
    pub(crate) fn take_count(&mut self) -> u64 {
        self.count.take().unwrap_or_default()
    }

    /// Reads the result of a call.
    pub(crate) fn of(facts: &CallFacts, result: &str) -> Self {
        let mut observed = Self::default();
        if !matches!(
            facts.kind,
            CallKind::Create | CallKind::Accept | CallKind::Send | CallKind::Receive
        ) {
            return observed;
        }
        match serde_json::from_str(result).unwrap_or_default() {
            Value::Number(count) => observed.count = count.as_u64(),
            Value::Array(sockets) => observed.created = sockets,
            value if value.get("handle").is_some() => observed.created.push(value),
            value => observed.count = value.get("n").and_then(Value::as_u64),
        }
        observed
    }
}

/// A stream whose position was known when it was made.
#[derive(Debug, Default)]
struct Stream {
    /// What the kernel counted as sent before the first byte.
    base: u64,
    sent: u64,
    /// The sends in progress, and how many bytes they carry.
    sends: u32,
    sending: u64,
    /// The position after the last change of the process, and the number of that process.
    found: Option<(u64, Position)>,
}

/// The sockets of a session that outlives processes of the broker.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    known: HashMap<Handle, Stream>,
    /// What it has received.
    pub(crate) readers: Readers,
    timeouts: HashMap<Handle, Option<f64>>,
}

impl Streams {
    /// Records that a call begins. [`Streams::end`] must follow.
    pub(crate) fn begin(&mut self, facts: &CallFacts) {
        if matches!(facts.method.as_str(), "session.attach" | "session.clone") {
            self.known.clear();
            self.readers.clear();
        }
        let Some(handle) = facts.handle else { return };
        // Others can use the socket from now on, or it has data outside of the stream.
        if facts.is_special
            || matches!(facts.method.as_str(), "socket.fileno" | "socket.detach" | "socket.dup")
        {
            self.known.remove(&handle);
            self.readers.remove(handle);
        }
        if facts.kind == CallKind::Connect {
            self.readers.begin(handle);
            self.known.entry(handle).or_insert(Stream { base: 1, ..Stream::default() });
        }
        if let Some(stream) = self.known.get_mut(&handle).filter(|_| facts.kind == CallKind::Send) {
            stream.sends += 1;
            stream.sending = stream.sending.saturating_add(facts.length);
        }
    }

    /// Records that a call has ended. `skipped` of its bytes were sent by earlier attempts and are recorded; the
    /// result counts further `counted` bytes that are recorded too.
    pub(crate) fn end(
        &mut self,
        facts: &CallFacts,
        (skipped, counted): (u64, u64),
        observed: &Observed,
        error: Option<&Error>,
    ) {
        let rest = facts.length.saturating_sub(skipped);
        for socket in &observed.created {
            self.note_created(facts, socket);
        }
        if error.is_none() {
            self.note_success(facts);
        }
        let Some(handle) = facts.handle else { return };
        if facts.kind == CallKind::Receive && !facts.peeks {
            self.readers.add(handle, observed.count.unwrap_or_default());
        }
        let Some(stream) = self.known.get_mut(&handle) else { return };
        if facts.kind == CallKind::Send {
            stream.sends = stream.sends.saturating_sub(1);
            stream.sending = stream.sending.saturating_sub(rest.saturating_sub(counted));
            stream.sent += match error {
                None => observed.count.unwrap_or(rest).saturating_sub(counted),
                Some(error) => error.sent(),
            };
        }
    }

    fn note_created(&mut self, facts: &CallFacts, socket: &Value) {
        let handle = socket.get("handle").and_then(Value::as_u64).and_then(Handle::new);
        let Some(handle) = handle else { return };
        self.timeouts.insert(handle, socket.get("timeout").and_then(Value::as_f64));
        let base = match facts.method.as_str() {
            "socket.create_connection" => 1,
            "socket.accept" => 0,
            _ => return,
        };
        if is_tcp(socket) {
            self.known.insert(handle, Stream { base, ..Stream::default() });
            self.readers.remove(handle);
            self.readers.begin(handle);
        }
    }

    fn note_success(&mut self, facts: &CallFacts) {
        let Some(handle) = facts.handle else { return };
        if matches!(facts.kind, CallKind::Close | CallKind::Detach) {
            self.known.remove(&handle);
            self.readers.remove(handle);
            self.timeouts.remove(&handle);
        }
        if facts.method == "socket.settimeout" {
            self.timeouts.insert(handle, facts.timeout);
        }
    }

    /// Forgets how much a stream has sent, because the outcome of a call is not known.
    pub(crate) fn forget(&mut self, handle: Option<Handle>) {
        if let Some(handle) = handle {
            self.known.remove(&handle);
        }
    }

    /// The timeout of the call's socket, if it waits at most so long.
    pub(crate) fn timeout(&self, facts: &CallFacts) -> Option<Duration> {
        if let Some(limit) = facts.poll_limit() {
            return Some(limit);
        }
        let seconds = (*self.timeouts.get(&facts.handle?)?)?;
        let limit = Duration::try_from_secs_f64(seconds).ok();
        limit.filter(|limit| facts.kind.has_timeout() && !limit.is_zero())
    }

    /// Whether the position of a stream is to be found out after the change to the process `epoch`; `None` if it
    /// was not known before.
    pub(crate) fn needs_position(&self, handle: Handle, epoch: u64) -> Option<bool> {
        let stream = self.known.get(&handle)?;
        Some(stream.found.is_none_or(|(found, _)| found != epoch))
    }

    /// Records the position of a stream after the change to the process `epoch`.
    pub(crate) fn found(&mut self, handle: Handle, epoch: u64, position: Position) {
        if let Some(stream) = self.known.get_mut(&handle) {
            stream.found = Some((epoch, position));
        }
    }

    /// How many bytes of a send in progress were sent: `length` is what is left of it. `is_ordered` means that
    /// several sends are resolved in their order.
    pub(crate) fn sent(&mut self, handle: Handle, length: u64, is_ordered: bool) -> Option<u64> {
        let stream = self.known.get_mut(&handle)?;
        let (_, position) = stream.found?;
        let more = position.sent.checked_sub(stream.base + stream.sent);
        let more =
            more.map(|more| if position.is_closed { more.min(stream.sending) } else { more });
        let Some(more) =
            more.filter(|more| *more <= stream.sending && (is_ordered || stream.sends == 1))
        else {
            // Other programs or threads send too.
            self.known.remove(&handle);
            return None;
        };
        let share = more.min(length);
        stream.sent += share;
        stream.sending -= share;
        Some(share)
    }

    /// Adds what an ended process reported as sent by a call that it cancelled.
    pub(crate) fn add_sent(&mut self, handle: Option<Handle>, sent: u64) {
        if let Some(stream) = handle.and_then(|handle| self.known.get_mut(&handle)) {
            stream.sent += sent;
            stream.sending = stream.sending.saturating_sub(sent);
        }
    }
}

/// The part of a send that its process has sent, as the result of the call; `None` for `sendall`, which goes on.
pub(crate) fn send_result(facts: &CallFacts, sent: u64, is_all: bool) -> Option<String> {
    match facts.method.as_str() {
        "socket.sendall" if is_all => Some("null".to_owned()),
        "socket.sendall" => None,
        _ => Some(sent.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::request::{Attachments, Request};

    fn handle() -> Handle {
        Handle::new(5).unwrap()
    }

    fn connected() -> Streams {
        let mut streams = Streams::default();
        let facts =
            CallFacts::of(&Request::new("socket.create_connection", json!({ "address": 1 })));
        let made =
            json!({ "handle": 5, "family": 2, "type": 1, "proto": 6, "timeout": 2.5 }).to_string();
        streams.begin(&facts);
        streams.end(&facts, (0, 0), &Observed::of(&facts, &made), None);
        streams
    }

    fn send(data: &[u8]) -> CallFacts {
        let request = Request::new("socket.sendall", (5, Value::Null));
        CallFacts::of(&request.with_attachments(Attachments::One([data])))
    }

    fn position(sent: u64) -> Position {
        Position { sent, is_closed: false }
    }

    #[test]
    fn sends_in_progress_share_what_was_sent_in_their_order() {
        let mut streams = connected();
        for data in [&b"first"[..], b"second", b"third"] {
            streams.begin(&send(data));
        }
        streams.found(handle(), 9, position(1 + 5 + 2));
        let shares = [5, 6, 5].map(|length| streams.sent(handle(), length, true));
        assert_eq!(shares, [Some(5), Some(2), Some(0)]);
        // The first is answered with its length, and the rest of the second follows.
        streams.end(&send(b"first"), (0, 5), &Observed::default(), None);
        streams.end(&send(b"second"), (2, 0), &Observed::default(), None);
        streams.found(handle(), 10, position(1 + 5 + 6));
        assert_eq!(streams.sent(handle(), 5, true), Some(0));
    }

    #[test]
    fn sends_without_an_order_or_of_others_are_not_resolved() {
        for (sends, sent, expected) in [(1, 3, Some(3)), (2, 3, None), (1, 6, None)] {
            let mut streams = connected();
            (0..sends).for_each(|_| streams.begin(&send(b"abcde")));
            streams.found(handle(), 9, position(1 + sent));
            assert_eq!(streams.sent(handle(), 5, false), expected, "{sends} {sent}");
            assert_eq!(streams.needs_position(handle(), 9), expected.map(|_| false));
        }
    }

    #[test]
    fn sockets_that_others_can_use_have_no_known_position() {
        for method in ["socket.fileno", "socket.dup", "socket.detach"] {
            let mut streams = connected();
            assert_eq!(streams.needs_position(handle(), 9), Some(true));
            streams.begin(&CallFacts::of(&Request::new(method, (5,))));
            assert_eq!(streams.needs_position(handle(), 9), None, "{method}");
            assert!(!streams.readers.contains(handle()), "{method}");
        }
    }

    #[test]
    fn timeouts_bound_calls_that_wait() {
        let mut streams = connected();
        let receive = CallFacts::of(&Request::new("socket.recv", (5, 9, 0)));
        let name = CallFacts::of(&Request::new("socket.getsockname", (5,)));
        assert_eq!(streams.timeout(&receive), Some(Duration::from_millis(2500)));
        assert_eq!(streams.timeout(&name), None);
        for (seconds, limit) in
            [(json!(4), Some(Duration::from_secs(4))), (json!(0), None), (json!(null), None)]
        {
            let set = CallFacts::of(&Request::new("socket.settimeout", (5, seconds)));
            streams.begin(&set);
            streams.end(&set, (0, 0), &Observed::default(), None);
            assert_eq!(streams.timeout(&receive), limit);
        }
    }
}
