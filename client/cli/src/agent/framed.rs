//! Frames of LSP framing on a blocking stream.

use std::io::{self, IoSlice, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use sockbroker_proto::frame::{FrameLimits, Head, read_head, write_head};
use sockbroker_sys::control::OutgoingControl;
use sockbroker_sys::message;

/// The limits of a frame. Those of the broker can be lower, and apply to what the agent passes on.
const LIMITS: FrameLimits = FrameLimits {
    head_bytes: 64 << 10,
    frame_bytes: 1 << 30,
    attachments: 65_536,
    descriptors: 253,
};
/// The bytes of one read.
const CHUNK: usize = 64 << 10;

/// A frame: its header, and what follows, JSON and attachments. Descriptors are lost.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) head: Head,
    pub(super) body: Vec<u8>,
}

impl Frame {
    /// A frame without attachments.
    pub(super) fn of(json: Vec<u8>, descriptors: usize) -> Self {
        let head = Head { content_length: json.len(), attachments: None, descriptors };
        Self { head, body: json }
    }

    pub(super) fn json(&self) -> &[u8] {
        self.body.get(..self.head.content_length).unwrap_or_default()
    }

    /// Writes the frame, and descriptors with its first byte.
    pub(super) fn write(&self, mut stream: &UnixStream, passed: &[OwnedFd]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(self.body.len() + 128);
        let Head { content_length, attachments, descriptors } = &self.head;
        write_head(&mut bytes, *content_length, attachments.as_deref(), *descriptors);
        bytes.extend_from_slice(&self.body);
        let mut written = 0;
        if !passed.is_empty() {
            let borrowed: Vec<_> = passed.iter().map(|passed| passed.as_fd()).collect();
            let rights = [OutgoingControl::Descriptors { descriptors: &borrowed, rest: &[] }];
            let slices = [IoSlice::new(&bytes)];
            written =
                message::send_message(stream.as_fd(), &slices, &rights, libc::MSG_NOSIGNAL, None)?;
        }
        io::Write::write_all(&mut stream, bytes.get(written..).unwrap_or_default())
    }
}

/// Reads frames.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    stream: &'a UnixStream,
    buffer: Vec<u8>,
    chunk: Vec<u8>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(stream: &'a UnixStream) -> Self {
        Self { stream, buffer: Vec::new(), chunk: vec![0; CHUNK] }
    }

    /// The next frame; `None` at the end of the stream.
    pub(super) fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let head = read_head(&self.buffer, &LIMITS);
            let head = head.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if let Some((head, length)) = head {
                let whole = length.saturating_add(head.body_length());
                if self.buffer.len() >= whole {
                    let rest = self.buffer.split_off(whole);
                    let mut body = std::mem::replace(&mut self.buffer, rest);
                    body.drain(..length);
                    return Ok(Some(Frame { head, body }));
                }
            }
            let count = self.stream.read(&mut self.chunk)?;
            if count == 0 {
                return Ok(None);
            }
            self.buffer.extend_from_slice(self.chunk.get(..count).unwrap_or_default());
        }
    }
}
