//! Newline-delimited JSON: one message a line. Blank lines are skipped.
//!
//! As in the convention `jsonrpc-fdpass`, the member `fds` of a message announces the number of its descriptors, and a
//! message may follow the end of another one on the same line.

use bytes::{Buf, Bytes, BytesMut};
use serde::Deserialize;
use sockbroker_proto::descriptors::DescriptorQueue;
use sockbroker_proto::frame::FrameLimits;

use crate::descriptor::Descriptor;
use crate::rpc::call::RequestParts;
use crate::rpc::core::{Answer, Message};
use crate::transport::codec::decoded::{CodecError, Decoded};
use crate::transport::outgoing::{Outgoing, Passing};

/// The state of the decoder: how far it has searched for the end of the message.
#[derive(Debug)]
pub(crate) struct Ndjson {
    limits: FrameLimits,
    searched: usize,
    nesting: Nesting,
}

/// The position in the structure of a message that is an object or an array.
#[derive(Debug, Default)]
struct Nesting {
    /// The number of open objects and arrays; `None` before the first byte that is not blank.
    depth: Option<usize>,
    in_string: bool,
    after_backslash: bool,
}

impl Nesting {
    /// Takes bytes up to the end of the message or of the line, and returns the position of that end.
    fn find_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if *byte == b'\n' || self.ends_with(*byte) {
                return Some(at);
            }
            at += 1;
            let rest = bytes.get(at..).unwrap_or_default();
            at += rest.iter().position(|byte| self.reacts_to(*byte)).unwrap_or(rest.len());
        }
        None
    }

    /// Whether the next byte can change anything.
    fn reacts_to(&self, byte: u8) -> bool {
        if self.in_string {
            self.after_backslash || matches!(byte, b'"' | b'\\' | b'\n')
        } else if self.depth.is_none() {
            !matches!(byte, b' ' | b'\t' | b'\r')
        } else {
            matches!(byte, b'"' | b'{' | b'[' | b'}' | b']' | b'\n')
        }
    }

    /// Takes the next byte. Returns whether it ends the message.
    fn ends_with(&mut self, byte: u8) -> bool {
        if self.in_string {
            if self.after_backslash {
                self.after_backslash = false;
            } else if byte == b'\\' {
                self.after_backslash = true;
            } else if byte == b'"' {
                self.in_string = false;
            }
            return false;
        }
        match (self.depth, byte) {
            (None, b' ' | b'\t' | b'\r') | (Some(0), _) => {}
            (None, b'{' | b'[') => self.depth = Some(1),
            // Neither an object nor an array: the message is the whole line.
            (None, _) => self.depth = Some(0),
            (Some(_), b'"') => self.in_string = true,
            (Some(depth), b'{' | b'[') => self.depth = Some(depth + 1),
            (Some(depth), b'}' | b']') => {
                self.depth = Some(depth - 1);
                return depth == 1;
            }
            (Some(_), _) => {}
        }
        false
    }
}

/// The member of a message that announces its descriptors.
#[derive(Debug, Deserialize)]
struct Announcement {
    #[serde(default)]
    fds: usize,
}

impl Ndjson {
    pub(super) fn new(limits: FrameLimits) -> Self {
        Self { limits, searched: 0, nesting: Nesting::default() }
    }

    pub(super) fn decode(
        &mut self,
        input: &mut BytesMut,
        descriptors: &mut DescriptorQueue<Descriptor>,
    ) -> Result<Decoded, CodecError> {
        loop {
            let rest = input.get(self.searched..).unwrap_or_default();
            let found = self.nesting.find_end(rest).map(|at| at + self.searched);
            let is_line = found.is_some_and(|at| input.get(at) == Some(&b'\n'));
            // A last bracket belongs to the message, and a line feed does not.
            let end = found.map(|at| if is_line { at } else { at + 1 });
            if end.unwrap_or(input.len()) > self.limits.frame_bytes {
                return Err(CodecError::LineTooLong(self.limits.frame_bytes));
            }
            let Some(end) = end else {
                self.searched = input.len();
                return Ok(Decoded::Incomplete(1));
            };
            self.searched = 0;
            self.nesting = Nesting::default();
            let start = descriptors.position(input.len());
            let text = input.split_to(end).freeze();
            if is_line {
                input.advance(1);
            }
            if !text.trim_ascii().is_empty() {
                return self.message(text, start, descriptors).map(Decoded::Message);
            }
        }
    }

    pub(super) fn decode_end(
        &mut self,
        input: &mut BytesMut,
        descriptors: &mut DescriptorQueue<Descriptor>,
    ) -> Result<Option<Message>, CodecError> {
        let start = descriptors.position(input.len());
        let line = input.split().freeze();
        let blank = line.trim_ascii().is_empty();
        (!blank).then(|| self.message(line, start, descriptors)).transpose()
    }

    /// A message with the descriptors that it announces.
    fn message(
        &self,
        json: Bytes,
        start: u64,
        descriptors: &mut DescriptorQueue<Descriptor>,
    ) -> Result<Message, CodecError> {
        // The calls of a batch cannot have descriptors.
        if descriptors.is_idle() || json.trim_ascii_start().starts_with(b"[") {
            return Ok(Message { json, ..Message::default() });
        }
        let announced: Announcement = serde_json::from_slice(&json).map_err(|_error| {
            CodecError::Descriptors("descriptors came, and a message does not state how many")
        })?;
        if announced.fds > self.limits.descriptors {
            return Err(CodecError::Descriptors("a message announces too many descriptors"));
        }
        let own = descriptors.take(start, announced.fds).map_err(|_too_few| {
            CodecError::Descriptors("fewer descriptors came than the message announces")
        })?;
        let parts = RequestParts {
            descriptors: own.descriptors,
            lost_descriptors: own.lost,
            ..RequestParts::default()
        };
        Ok(Message { json, parts })
    }
}

pub(super) fn encode(answer: Answer, out: &mut Outgoing) {
    let descriptors = answer.response_parts.descriptors;
    let Some(refusal) = answer.refusal else {
        return out.begin(None, |line| {
            line.extend_from_slice(&answer.json);
            line.push(b'\n');
        });
    };
    // A response is an object with members.
    let announcement = format!("{{\"fds\":{},", descriptors.len());
    let rest = answer.json.strip_prefix(b"{").unwrap_or_default();
    let length = announcement.len() + rest.len() + 1;
    out.begin(Some(Passing { descriptors, length, refusal, frame }), |line| {
        line.extend_from_slice(announcement.as_bytes());
        line.extend_from_slice(rest);
        line.push(b'\n');
    });
}

/// A line with a response alone.
fn frame(json: &[u8]) -> Vec<u8> {
    [json, b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use sockbroker_proto::descriptors::Received;

    use super::*;

    /// The messages of a text when it arrives in pieces of this size, and what remains.
    fn decode_in_pieces(text: &str, piece: usize) -> (Vec<String>, String) {
        let mut codec = Ndjson::new(FrameLimits::default());
        let (mut input, mut queue) = (BytesMut::new(), DescriptorQueue::default());
        let mut found = Vec::new();
        for bytes in text.as_bytes().chunks(piece) {
            input.extend_from_slice(bytes);
            while let Decoded::Message(message) = codec.decode(&mut input, &mut queue).unwrap() {
                found.push(String::from_utf8(message.json.to_vec()).unwrap());
            }
        }
        (found, String::from_utf8(input.to_vec()).unwrap())
    }

    #[test]
    fn a_message_ends_at_its_last_bracket_or_at_the_end_of_the_line() {
        let cases: [(&str, &[&str], &str); 11] = [
            ("{}\n", &["{}"], ""),
            ("{}{}[]", &["{}", "{}", "[]"], ""),
            (" \t{} \r\n\n{}\r\n", &[" \t{}", "{}"], ""),
            ("{\"a\":\"}\\\"}\"}{\"b\":[{}]}", &["{\"a\":\"}\\\"}\"}", "{\"b\":[{}]}"], ""),
            ("{\"a\":\"\\\\\"}{}", &["{\"a\":\"\\\\\"}", "{}"], ""),
            ("{\"a\":\n{}\n", &["{\"a\":", "{}"], ""),
            ("{\"a\":\"\n{}\n", &["{\"a\":\"", "{}"], ""),
            ("}{}\n{}", &["}{}", "{}"], ""),
            ("12 {}\n{}{", &["12 {}", "{}"], "{"),
            ("{}}\n{}", &["{}", "}", "{}"], ""),
            ("{\"a\"", &[], "{\"a\""),
        ];
        for (text, messages, rest) in cases {
            for piece in 1..=text.len() {
                let (found, left) = decode_in_pieces(text, piece);
                let found: Vec<_> = found.iter().map(String::as_str).collect();
                assert_eq!((found.as_slice(), left.as_str()), (messages, rest), "{text:?}");
            }
        }
    }

    #[test]
    fn messages_have_at_most_frame_bytes_with_their_last_bracket() {
        let limits = FrameLimits { frame_bytes: 8, ..FrameLimits::default() };
        for (text, is_allowed) in [
            ("[123456]", true),
            ("[123456]\n", true),
            ("[1]  [1]  [1]", true),
            ("12345678\n", true),
            ("[1234567]", false),
            ("[12345678", false),
            ("123456789\n", false),
        ] {
            let (mut input, mut queue) = (BytesMut::from(text), DescriptorQueue::default());
            let mut codec = Ndjson::new(limits);
            let decoded = codec.decode(&mut input, &mut queue);
            let is_complete = matches!(decoded, Ok(Decoded::Message(_)));
            let is_refused = matches!(decoded, Err(CodecError::LineTooLong(8)));
            assert_eq!((is_complete, is_refused), (is_allowed, !is_allowed), "{text}: {decoded:?}");
        }
    }

    /// A queue with this number of descriptors, which came with the first of `bytes` bytes.
    fn queue(bytes: usize, count: usize) -> DescriptorQueue<Descriptor> {
        let user = crate::quota::tests::user(1);
        let mut queue = DescriptorQueue::default();
        let received = queue.receive(|waiting: &mut VecDeque<Descriptor>| {
            for _ in 0..count {
                let file = std::fs::File::open("/dev/null").unwrap();
                waiting.push_back(Descriptor::of_client(file.into(), &user));
            }
            Ok::<_, Infallible>(Received { bytes, lost_descriptors: false })
        });
        assert_eq!(received, Ok(bytes));
        queue
    }

    #[test]
    fn descriptors_belong_to_the_messages_that_announce_them() {
        let text = "{\"a\":1}{\"fds\":2}\n[{\"fds\":1}]\n{\"fds\":1,\"b\":{\"fds\":9}}\n";
        let (mut input, mut queue) = (BytesMut::from(text), queue(text.len(), 3));
        let mut codec = Ndjson::new(FrameLimits::default());
        let mut counts = Vec::new();
        while let Decoded::Message(message) = codec.decode(&mut input, &mut queue).unwrap() {
            counts.push(message.parts.descriptors.len());
        }
        assert_eq!((counts, queue.len()), (vec![0, 2, 0, 1], 0));
    }

    #[test]
    fn descriptors_that_no_message_can_take_are_an_error() {
        for text in ["{\"fds\":2}\n", "{\"fds\":254}\n", "{\"fds\":-1}\n", "{\"fds\":1\n", "7\n"] {
            let (mut input, mut queue) = (BytesMut::from(text), queue(text.len(), 1));
            let decoded = Ndjson::new(FrameLimits::default()).decode(&mut input, &mut queue);
            assert!(matches!(decoded, Err(CodecError::Descriptors(_))), "{text}: {decoded:?}");
        }
    }
}
