//! A client with LSP framing, with attachments and descriptors in both directions.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sockbroker_proto::frame::{FrameLimits, read_head, write_head};

use crate::message::{Answer, Client, notification, request};
use crate::wire::Wire;

/// The attachments and descriptors of a request.
#[derive(Debug, Default, Clone, Copy)]
pub struct RequestParts<'a> {
    /// Attachments; `None` omits the header field.
    pub attachments: Option<&'a [&'a [u8]]>,
    pub descriptors: &'a [BorrowedFd<'a>],
}

impl<'a> RequestParts<'a> {
    /// Attachments. An empty list requests attachments in the answer.
    pub fn attachments(attachments: &'a [&'a [u8]]) -> Self {
        Self { attachments: Some(attachments), descriptors: &[] }
    }

    pub fn descriptors(descriptors: &'a [BorrowedFd<'a>]) -> Self {
        Self { attachments: None, descriptors }
    }
}

/// A connection with LSP framing.
#[derive(Debug)]
pub struct LspClient {
    /// The underlying connection.
    pub wire: Wire,
    next: u64,
    /// Answers that arrived while the client waited for another one.
    unread: Vec<Answer>,
}

impl LspClient {
    pub fn connect(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).unwrap())
    }

    pub fn over(stream: UnixStream) -> Self {
        Self::on(Wire::socket(stream))
    }

    pub fn on(wire: Wire) -> Self {
        Self { wire, next: 1, unread: Vec::new() }
    }

    /// Encodes a frame.
    pub fn frame(json: &str, attachments: Option<&[&[u8]]>, descriptors: usize) -> Vec<u8> {
        let lengths: Option<Vec<usize>> =
            attachments.map(|parts| parts.iter().map(|part| part.len()).collect());
        let mut bytes = Vec::new();
        write_head(&mut bytes, json.len(), lengths.as_deref(), descriptors);
        bytes.extend_from_slice(json.as_bytes());
        bytes.extend(attachments.unwrap_or_default().iter().copied().flatten());
        bytes
    }

    /// Sends a message with attachments and descriptors.
    pub fn send_with(&mut self, message: &Value, parts: RequestParts<'_>) {
        let json = message.to_string();
        let frame = Self::frame(&json, parts.attachments, parts.descriptors.len());
        self.wire.send(&frame, parts.descriptors).unwrap();
    }

    /// Sends a request and returns its ID.
    pub fn send(&mut self, method: &str, params: Value) -> u64 {
        self.send_with_parts(method, params, RequestParts::default())
    }

    /// Sends a request with attachments and descriptors, and returns its ID.
    pub fn send_with_parts(&mut self, method: &str, params: Value, parts: RequestParts<'_>) -> u64 {
        let id = self.next;
        self.next += 1;
        self.send_with(&request(id, method, params), parts);
        id
    }

    /// Sends a notification.
    pub fn notify(&mut self, method: &str, params: Value) {
        self.send_json(&notification(method, params));
    }

    pub fn cancel(&mut self, id: u64) {
        self.notify("$/cancelRequest", json!({ "id": id }));
    }

    /// Calls a method and waits for its answer.
    pub fn call(&mut self, method: &str, params: Value) -> Answer {
        let id = self.send(method, params);
        self.answer(id)
    }

    /// Calls a method with attachments and descriptors.
    pub fn call_with_parts(
        &mut self,
        method: &str,
        params: Value,
        parts: RequestParts<'_>,
    ) -> Answer {
        let id = self.send_with_parts(method, params, parts);
        self.answer(id)
    }

    /// Calls a method and requests attachments in the answer.
    pub fn call_for_attachments(&mut self, method: &str, params: Value) -> Answer {
        self.call_with_parts(method, params, RequestParts::attachments(&[]))
    }

    /// Creates two connected sockets in the broker and returns their handles.
    pub fn pair(&mut self) -> (u64, u64) {
        self.call("socket.socketpair", Value::Null).handles()
    }

    /// Like [`LspClient::pair`], with this socket type.
    pub fn pair_of(&mut self, kind: &str) -> (u64, u64) {
        self.call("socket.socketpair", json!({ "type": kind })).handles()
    }

    /// Passes a descriptor to the broker and returns its handle.
    pub fn lend(&mut self, theirs: &impl AsFd) -> u64 {
        let descriptors = [theirs.as_fd()];
        let parts = RequestParts::descriptors(&descriptors);
        self.call_with_parts("socket.fromfd", Value::Null, parts).handle()
    }

    /// Waits for the answer with this ID, and keeps other answers that arrive first.
    pub fn answer(&mut self, id: u64) -> Answer {
        if let Some(at) = self.unread.iter().position(|answer| *answer.id() == id) {
            return self.unread.remove(at);
        }
        loop {
            let answer = self
                .read()
                .unwrap_or_else(|| panic!("the broker closed the connection before answer {id}"));
            if *answer.id() == id {
                return answer;
            }
            self.unread.push(answer);
        }
    }

    /// Returns the next answer; `None` at the end of the connection.
    pub fn next_answer(&mut self) -> Option<Answer> {
        if self.unread.is_empty() { self.read() } else { Some(self.unread.remove(0)) }
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
        let received = self.wire.descriptors.len();
        assert!(
            received >= head.descriptors,
            "received {received} of {} descriptors",
            head.descriptors
        );
        Some(Answer {
            json: serde_json::from_slice(&json).unwrap(),
            attachments,
            descriptors: self.wire.descriptors.drain(..head.descriptors).collect(),
        })
    }

    /// Whether an answer arrived while the client waited for another one.
    pub fn has_unread_answer(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Fails if the broker sends anything within this time.
    pub fn expect_silence_for(&mut self, milliseconds: u64) {
        if let Some(answer) = self.unread.first() {
            panic!("unexpected answer: {}", answer.short());
        }
        let silent = !self.wire.receives_within(Duration::from_millis(milliseconds));
        assert!(silent, "unexpected answer: {:?}", self.next_answer().map(|answer| answer.short()));
    }

    /// Fails unless the broker closes the connection without another answer.
    pub fn expect_end(&mut self) {
        if let Some(answer) = self.next_answer() {
            panic!("unexpected answer before the end: {}", answer.short());
        }
    }

    /// Whether the broker answers a call on this connection, and does not end it.
    pub fn is_served(&mut self) -> bool {
        let call = request("served", "socket.htons", json!([1])).to_string();
        self.wire.send(&Self::frame(&call, None, 0), &[]).is_ok() && self.next_answer().is_some()
    }

    /// Fails unless the broker answers a call on this connection.
    pub fn expect_service(&mut self) {
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
