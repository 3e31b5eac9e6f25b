//! A minimal blocking client, without the cost of a library.
//!
//! It raises the size of its send buffer, so that one write sends a large request.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt::SndBuf};
use serde_json::Value;
use sockbroker_proto::frame::{FrameLimits, read_head, write_head};
use sockbroker_sys::stream;

use crate::error::Result;

/// The size of a bulk transfer, in bytes.
pub(crate) const BLOCK: usize = 256 << 10;
/// The requested size of a socket's send buffer. The kernel allows this much to every process (`wmem_max`) and doubles
/// it, so that a block and the kernel's overhead fit.
const SEND_BUFFER: usize = 212_992;
/// The size of a read if the length of the answer is unknown.
const READ: usize = 64 << 10;
/// The time limit of an answer. A measurement that exceeds it fails.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// The framing of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// LSP framing: heads with lengths.
    Lsp,
    /// NDJSON: lines.
    Ndjson,
}

impl Framing {
    /// The name in the table.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Lsp => "LSP",
            Self::Ndjson => "NDJSON",
        }
    }

    /// Frames a message without attachments and descriptors.
    pub(crate) fn wrap(self, json: &str) -> Vec<u8> {
        match self {
            Self::Lsp => frame(json, None, 0),
            Self::Ndjson => format!("{json}\n").into_bytes(),
        }
    }

    /// Returns the length of the first message in `bytes` and the range of its JSON; `None` if it is incomplete.
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

/// Sets the send buffer of a socket, so that it can hold a block that the other end has not read.
pub(crate) fn set_send_buffer(stream: &UnixStream) -> io::Result<()> {
    Ok(setsockopt(stream, SndBuf, &SEND_BUFFER)?)
}

/// Encodes a call as JSON.
pub(crate) fn call(id: usize, method: &str, params: &Value) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#)
}

/// Encodes an LSP frame. With `attachments`, the answer can have attachments too.
pub(crate) fn frame(json: &str, attachments: Option<&[&[u8]]>, descriptors: usize) -> Vec<u8> {
    let lengths = attachments.map(|parts| parts.iter().map(|part| part.len()).collect::<Vec<_>>());
    let mut frame = Vec::new();
    write_head(&mut frame, json.len(), lengths.as_deref(), descriptors);
    frame.extend_from_slice(json.as_bytes());
    frame.extend(attachments.unwrap_or_default().iter().copied().flatten());
    frame
}

/// A connection with at most one call in flight.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    framing: Framing,
    input: BytesMut,
    descriptors: VecDeque<OwnedFd>,
}

impl Client {
    pub(crate) fn connect(path: &Path, framing: Framing) -> Result<Self> {
        Self::over(UnixStream::connect(path)?, framing)
    }

    /// Uses an open connection.
    pub(crate) fn over(stream: UnixStream, framing: Framing) -> Result<Self> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        set_send_buffer(&stream)?;
        Ok(Self { stream, framing, input: BytesMut::new(), descriptors: VecDeque::new() })
    }

    pub(crate) fn framing(&self) -> Framing {
        self.framing
    }

    /// Returns the stream. No call is in flight.
    pub(crate) fn into_stream(self) -> UnixStream {
        self.stream
    }

    /// Calls a method and returns its result.
    pub(crate) fn call(&mut self, method: &str, params: &Value) -> Result<Value> {
        let message = self.framing.wrap(&call(1, method, params));
        self.stream.write_all(&message)?;
        result(&self.answer()?.1)
    }

    /// Calls a method with descriptors and returns its result.
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

    /// Returns the oldest received descriptor.
    pub(crate) fn take_descriptor(&mut self) -> Result<OwnedFd> {
        self.descriptors.pop_front().ok_or_else(|| "the answer has no descriptor".into())
    }

    /// Sends a framed message without waiting for the answer.
    pub(crate) fn begin(&mut self, message: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(message)?)
    }

    /// Sends a framed message and returns the whole answer and its JSON.
    pub(crate) fn send(&mut self, message: &[u8]) -> Result<(Vec<u8>, Value)> {
        self.stream.write_all(message)?;
        self.answer()
    }

    /// Reads one answer with its attachments and descriptors.
    fn answer(&mut self) -> Result<(Vec<u8>, Value)> {
        loop {
            if let Some((end, json)) = self.framing.measure(&self.input)? {
                let message = self.input.split_to(end).to_vec();
                let json = serde_json::from_slice(message.get(json).unwrap_or_default())?;
                return Ok((message, json));
            }
            // The function that receives descriptors does not wait.
            let timeout = PollTimeout::try_from(TIMEOUT)?;
            poll(&mut [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)], timeout)?;
            let (input, descriptors) = (&mut self.input, &mut self.descriptors);
            if stream::receive_stream(self.stream.as_fd(), input, READ, descriptors)?.bytes == 0 {
                return Err("the broker closed the connection".into());
            }
        }
    }

    /// Sends a message and reads the answer into `buffer`. It parses only the head.
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

/// The lengths of the parts of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lengths {
    /// Bytes of JSON.
    pub(crate) json: usize,
    /// Bytes of attachments.
    pub(crate) attachments: usize,
}

/// Returns the result of an answer, or its error.
pub(crate) fn result(answer: &Value) -> Result<Value> {
    let result = answer.get("result").cloned();
    result.ok_or_else(|| format!("the broker answered {answer}").into())
}
