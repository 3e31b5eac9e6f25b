//! A client with LSP framing: attachments and descriptors in both directions.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sockbroker_proto::frame::{FrameLimits, read_head, write_head};

use crate::message::{Answer, Client, notification, request};
use crate::wire::Wire;

/// What rides beside a frame.
#[derive(Debug, Default, Clone, Copy)]
pub struct RequestParts<'a> {
    /// Attachments; `None` leaves the head field out.
    pub attachments: Option<&'a [&'a [u8]]>,
    /// Descriptors.
    pub descriptors: &'a [BorrowedFd<'a>],
}

impl<'a> RequestParts<'a> {
    /// These attachments; none at all still ask for attachments in the answer.
    pub fn attachments(attachments: &'a [&'a [u8]]) -> Self {
        Self { attachments: Some(attachments), descriptors: &[] }
    }

    /// These descriptors.
    pub fn descriptors(descriptors: &'a [BorrowedFd<'a>]) -> Self {
        Self { attachments: None, descriptors }
    }
}

/// A connection with LSP framing.
#[derive(Debug)]
pub struct LspClient {
    /// The connection below.
    pub wire: Wire,
    next: u64,
    /// Answers that were read while another was waited for.
    early: Vec<Answer>,
}

impl LspClient {
    /// Connects to a broker.
    pub fn connect(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).unwrap())
    }

    /// Speaks over a connection.
    pub fn over(stream: UnixStream) -> Self {
        Self::on(Wire::socket(stream))
    }

    /// Speaks over any wire.
    pub fn on(wire: Wire) -> Self {
        Self { wire, next: 1, early: Vec::new() }
    }

    /// The bytes of a frame.
    pub fn frame(json: &str, attachments: Option<&[&[u8]]>, descriptors: usize) -> Vec<u8> {
        let lengths: Option<Vec<usize>> =
            attachments.map(|parts| parts.iter().map(|part| part.len()).collect());
        let mut bytes = Vec::new();
        write_head(&mut bytes, json.len(), lengths.as_deref(), descriptors);
        bytes.extend_from_slice(json.as_bytes());
        bytes.extend(attachments.unwrap_or_default().iter().copied().flatten());
        bytes
    }

    /// Sends a message with what rides beside it.
    pub fn send_with(&mut self, message: &Value, beside: RequestParts<'_>) {
        let json = message.to_string();
        let frame = Self::frame(&json, beside.attachments, beside.descriptors.len());
        self.wire.send(&frame, beside.descriptors).unwrap();
    }

    /// Sends a request; its id.
    pub fn send(&mut self, method: &str, params: Value) -> u64 {
        self.send_beside(method, params, RequestParts::default())
    }

    /// Sends a request with what rides beside it; its id.
    pub fn send_beside(&mut self, method: &str, params: Value, beside: RequestParts<'_>) -> u64 {
        let id = self.next;
        self.next += 1;
        self.send_with(&request(id, method, params), beside);
        id
    }

    /// Sends a request without an id.
    pub fn notify(&mut self, method: &str, params: Value) {
        self.send_json(&notification(method, params));
    }

    /// Cancels a call.
    pub fn cancel(&mut self, id: u64) {
        self.notify("$/cancelRequest", json!({ "id": id }));
    }

    /// Calls, and reads the answer with the same id.
    pub fn call(&mut self, method: &str, params: Value) -> Answer {
        let id = self.send(method, params);
        self.answer(id)
    }

    /// Calls with something beside the request.
    pub fn call_beside(&mut self, method: &str, params: Value, beside: RequestParts<'_>) -> Answer {
        let id = self.send_beside(method, params, beside);
        self.answer(id)
    }

    /// Calls, and asks for attachments in the answer.
    pub fn call_for_attachments(&mut self, method: &str, params: Value) -> Answer {
        self.call_beside(method, params, RequestParts::attachments(&[]))
    }

    /// Two connected sockets of the broker.
    pub fn pair(&mut self) -> (u64, u64) {
        self.call("socket.socketpair", Value::Null).handles()
    }

    /// Two connected sockets of the broker, of this type.
    pub fn pair_of(&mut self, kind: &str) -> (u64, u64) {
        self.call("socket.socketpair", json!({ "type": kind })).handles()
    }

    /// One of two connected sockets; the other is handed to the broker.
    pub fn lend(&mut self, theirs: &impl AsFd) -> u64 {
        let descriptors = [theirs.as_fd()];
        let beside = RequestParts::descriptors(&descriptors);
        self.call_beside("socket.fromfd", Value::Null, beside).handle()
    }

    /// The answer with this id; others that come first are kept.
    pub fn answer(&mut self, id: u64) -> Answer {
        if let Some(at) = self.early.iter().position(|answer| *answer.id() == id) {
            return self.early.remove(at);
        }
        loop {
            let answer = self.read().unwrap_or_else(|| panic!("closed before answer {id}"));
            if *answer.id() == id {
                return answer;
            }
            self.early.push(answer);
        }
    }

    /// The next answer that comes; `None` at the end.
    pub fn next_answer(&mut self) -> Option<Answer> {
        if self.early.is_empty() { self.read() } else { Some(self.early.remove(0)) }
    }

    fn read(&mut self) -> Option<Answer> {
        let head = self.wire.take_through(b"\r\n\r\n")?;
        let limits = FrameLimits { frame_bytes: 64 << 20, ..FrameLimits::default() };
        let (head, length) = read_head(&head, &limits).unwrap().unwrap();
        assert!(length > 0);
        let json = self.wire.take(head.content_length)?;
        let parts = head.attachments.unwrap_or_default().into_iter();
        let attachments: Option<Vec<_>> =
            parts.map(|part| Some(self.wire.take(part)?.to_vec())).collect();
        let attachments = attachments?;
        let came = self.wire.descriptors.len();
        assert!(came >= head.descriptors, "{came} of {} descriptors came", head.descriptors);
        Some(Answer {
            json: serde_json::from_slice(&json).unwrap(),
            attachments,
            descriptors: self.wire.descriptors.drain(..head.descriptors).collect(),
        })
    }

    /// Whether an answer was read while another was waited for.
    pub fn has_early(&self) -> bool {
        !self.early.is_empty()
    }

    /// Fails if anything comes within a time.
    pub fn stays_silent_for(&mut self, milliseconds: u64) {
        if let Some(answer) = self.early.first() {
            panic!("an answer came: {}", answer.short());
        }
        let silent = !self.wire.anything_within(Duration::from_millis(milliseconds));
        assert!(silent, "something came: {:?}", self.next_answer().map(|answer| answer.short()));
    }

    /// Reads on; fails unless the broker ends the connection without another answer.
    pub fn is_ended(&mut self) {
        if let Some(answer) = self.next_answer() {
            panic!("an answer came before the end: {}", answer.short());
        }
    }

    /// Whether the connection serves a call.
    pub fn is_served(&mut self) {
        assert_eq!(*self.call("socket.htons", json!([1])).result(), 256_u32);
    }
}

impl Client for LspClient {
    fn send_json(&mut self, message: &Value) {
        self.send_with(message, RequestParts::default());
    }

    fn read_json(&mut self) -> Option<Value> {
        self.next_answer().map(|answer| answer.json)
    }
}
