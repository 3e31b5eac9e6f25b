//! A blocking client of the broker with nothing to spare: what a thin library would do.
//!
//! It raises the size of its send buffer, so that a large request leaves in one piece.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;
use sockbroker_proto::frame::{FrameLimits, read_head, write_head};
use sockbroker_sys::stream;

use crate::measure::{Result, hold_a_block};

/// How much one read asks for where nothing is known.
const READ: usize = 64 << 10;
/// How long an answer may take: a measurement that hangs is one that could not be made.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// How messages are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Heads with lengths.
    Lsp,
    /// Lines.
    Ndjson,
}

impl Framing {
    /// Its name in the table.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Lsp => "LSP",
            Self::Ndjson => "NDJSON",
        }
    }

    /// A message without anything beside it.
    pub(crate) fn wrap(self, json: &str) -> Vec<u8> {
        match self {
            Self::Lsp => frame(json, None, 0),
            Self::Ndjson => format!("{json}\n").into_bytes(),
        }
    }

    /// Where the first message of `bytes` ends, and where its JSON stands; `None` until it is whole.
    fn measure(self, bytes: &[u8]) -> Result<Option<(usize, std::ops::Range<usize>)>> {
        match self {
            Self::Lsp => {
                let limits = FrameLimits::default();
                let Some((head, length)) = read_head(bytes, &limits)? else { return Ok(None) };
                let end = length + head.body_length();
                let json = length..length + head.content_length;
                Ok((bytes.len() >= end).then_some((end, json)))
            }
            Self::Ndjson => {
                let line = bytes.iter().position(|byte| *byte == b'\n');
                Ok(line.map(|end| (end + 1, 0..end)))
            }
        }
    }
}

/// The JSON of a call.
pub(crate) fn call(id: usize, method: &str, params: &Value) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#)
}

/// An LSP frame. With `attachments` the answer may have some too.
pub(crate) fn frame(json: &str, attachments: Option<&[&[u8]]>, descriptors: usize) -> Vec<u8> {
    let lengths = attachments.map(|parts| parts.iter().map(|part| part.len()).collect::<Vec<_>>());
    let mut frame = Vec::new();
    write_head(&mut frame, json.len(), lengths.as_deref(), descriptors);
    frame.extend_from_slice(json.as_bytes());
    frame.extend(attachments.unwrap_or_default().iter().copied().flatten());
    frame
}

/// A connection, with at most one call in flight.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    framing: Framing,
    input: BytesMut,
    descriptors: VecDeque<OwnedFd>,
}

impl Client {
    /// A new connection.
    pub(crate) fn connect(path: &Path, framing: Framing) -> Result<Self> {
        Self::over(UnixStream::connect(path)?, framing)
    }

    /// Speaks over a connection.
    pub(crate) fn over(stream: UnixStream, framing: Framing) -> Result<Self> {
        stream.set_read_timeout(Some(LONGEST_WAIT))?;
        hold_a_block(&stream)?;
        Ok(Self { stream, framing, input: BytesMut::new(), descriptors: VecDeque::new() })
    }

    /// How it frames.
    pub(crate) fn framing(&self) -> Framing {
        self.framing
    }

    /// The stream, when no call is in flight.
    pub(crate) fn into_stream(self) -> UnixStream {
        self.stream
    }

    /// The result of a call.
    pub(crate) fn call(&mut self, method: &str, params: &Value) -> Result<Value> {
        let message = self.framing.wrap(&call(1, method, params));
        self.stream.write_all(&message)?;
        result(&self.answer()?.1)
    }

    /// The result of a call with descriptors beside it.
    pub(crate) fn call_with(
        &mut self,
        method: &str,
        params: &Value,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Value> {
        let message = frame(&call(1, method, params), None, descriptors.len());
        let sent =
            stream::send_stream(self.stream.as_fd(), &[io::IoSlice::new(&message)], descriptors)?;
        self.stream.write_all(message.get(sent..).unwrap_or_default())?;
        result(&self.answer()?.1)
    }

    /// Takes the oldest descriptor that came beside an answer.
    pub(crate) fn take_descriptor(&mut self) -> Result<OwnedFd> {
        self.descriptors.pop_front().ok_or_else(|| "no descriptor came beside the answer".into())
    }

    /// Sends a message as it stands, and waits for nothing.
    pub(crate) fn begin(&mut self, message: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(message)?)
    }

    /// Sends a message as it stands; the whole answer, and its JSON.
    pub(crate) fn send(&mut self, message: &[u8]) -> Result<(Vec<u8>, Value)> {
        self.stream.write_all(message)?;
        self.answer()
    }

    /// Reads one answer with whatever is beside it.
    fn answer(&mut self) -> Result<(Vec<u8>, Value)> {
        loop {
            if let Some((end, json)) = self.framing.measure(&self.input)? {
                let message = self.input.split_to(end).to_vec();
                let json = serde_json::from_slice(message.get(json).unwrap_or_default())?;
                return Ok((message, json));
            }
            // The function that takes descriptors never waits.
            let patience = PollTimeout::try_from(LONGEST_WAIT)?;
            poll(&mut [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)], patience)?;
            let (input, descriptors) = (&mut self.input, &mut self.descriptors);
            if stream::receive_stream(self.stream.as_fd(), input, READ, descriptors)?.bytes == 0 {
                return Err("the broker closed the connection".into());
            }
        }
    }

    /// Sends a message and reads the answer into `buffer` without looking at more than its head.
    pub(crate) fn exchange(&mut self, message: &[u8], buffer: &mut [u8]) -> Result<Lengths> {
        self.stream.write_all(message)?;
        let mut filled = 0;
        loop {
            let n = self.stream.read(buffer.get_mut(filled..).unwrap_or_default())?;
            if n == 0 {
                return Err("the broker closed the connection, or the answer is too long".into());
            }
            filled += n;
            let bytes = buffer.get(..filled).unwrap_or_default();
            if let Some((end, json)) = self.framing.measure(bytes)? {
                return Ok(Lengths { json: json.len(), attachments: end - json.end });
            }
        }
    }
}

/// What an answer consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lengths {
    /// Bytes of JSON.
    pub(crate) json: usize,
    /// Bytes beside it.
    pub(crate) attachments: usize,
}

/// The result of an answer; an error of the broker is one here.
pub(crate) fn result(answer: &Value) -> Result<Value> {
    let result = answer.get("result").cloned();
    result.ok_or_else(|| format!("the broker answered {answer}").into())
}
