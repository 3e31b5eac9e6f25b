//! Bytes and descriptors on their way to the peer.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;

use bytes::{Buf, Bytes};

/// Parts up to this size are copied together, so that small answers leave in one piece.
const COPY_MAX: usize = 16 << 10;
/// How long a part that others are copied to may become.
const GROWN_MAX: usize = 4 * COPY_MAX;
/// What a new part has room for at first: head and answer of a small call.
const FRAME_ROOM: usize = 256;
/// How many parts one system call sends.
const PARTS_MAX: usize = 64;

/// A queue of parts. Descriptors leave with the first byte of their part, which therefore begins a
/// system call of its own.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    parts: VecDeque<Part>,
    bytes: usize,
}

#[derive(Debug)]
struct Part {
    data: Data,
    descriptors: Vec<OwnedFd>,
}

#[derive(Debug)]
enum Data {
    /// Still growing at the end; `sent` bytes have left.
    Copied { bytes: Vec<u8>, sent: usize },
    /// A large part, as it came.
    Shared(Bytes),
}

impl Data {
    fn rest(&self) -> &[u8] {
        match self {
            Self::Copied { bytes, sent } => bytes.get(*sent..).unwrap_or_default(),
            Self::Shared(bytes) => bytes,
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Copied { sent, .. } => *sent += count,
            Self::Shared(bytes) => bytes.advance(count),
        }
    }
}

impl Outgoing {
    /// Bytes that have not left.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether everything has left.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Begins a frame with what `write` appends.
    pub(super) fn begin(&mut self, descriptors: Vec<OwnedFd>, write: impl FnOnce(&mut Vec<u8>)) {
        if descriptors.is_empty()
            && let Some(bytes) = self.growing(0)
        {
            let before = bytes.len();
            write(bytes);
            self.bytes += bytes.len() - before;
            return;
        }
        let mut bytes = Vec::with_capacity(FRAME_ROOM);
        write(&mut bytes);
        self.bytes += bytes.len();
        self.parts.push_back(Part { data: Data::Copied { bytes, sent: 0 }, descriptors });
    }

    /// Goes on with a frame.
    pub(super) fn push(&mut self, bytes: Bytes) {
        self.bytes += bytes.len();
        if bytes.len() <= COPY_MAX
            && let Some(last) = self.growing(bytes.len())
        {
            last.extend_from_slice(&bytes);
        } else if !bytes.is_empty() {
            self.parts.push_back(Part { data: Data::Shared(bytes), descriptors: Vec::new() });
        }
    }

    /// The last part, if it may grow by `more`.
    fn growing(&mut self, more: usize) -> Option<&mut Vec<u8>> {
        match self.parts.back_mut() {
            Some(Part { data: Data::Copied { bytes, .. }, .. })
                if bytes.len() + more <= GROWN_MAX =>
            {
                Some(bytes)
            }
            _ => None,
        }
    }

    /// Sends what one system call takes. `send` gets slices and the descriptors that go with them.
    pub(super) fn send(
        &mut self,
        send: impl FnOnce(&[IoSlice<'_>], &[OwnedFd]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let Some(first) = self.parts.front() else {
            return Ok(0);
        };
        let followers = self
            .parts
            .iter()
            .skip(1)
            .take(PARTS_MAX)
            .take_while(|part| part.descriptors.is_empty());
        let parts = std::iter::once(first).chain(followers);
        let slices: Vec<IoSlice<'_>> = parts.map(|part| IoSlice::new(part.data.rest())).collect();
        let sent = send(&slices, &first.descriptors)?;
        self.advance(sent);
        Ok(sent)
    }

    fn advance(&mut self, mut sent: usize) {
        self.bytes -= sent;
        while let Some(part) = self.parts.front_mut() {
            if sent > 0 {
                // They left with the first byte.
                part.descriptors.clear();
            }
            let length = part.data.rest().len();
            if sent < length {
                part.data.advance(sent);
                return;
            }
            sent -= length;
            self.parts.pop_front();
            if sent == 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn a_frame_with_descriptors_begins_a_call_of_its_own() {
        let mut out = Outgoing::default();
        out.begin(vec![], |frame| frame.extend_from_slice(b"one"));
        out.begin(vec![descriptor()], |frame| frame.extend_from_slice(b"two"));
        out.begin(vec![], |frame| frame.extend_from_slice(b"three"));
        let mut calls = Vec::new();
        while !out.is_empty() {
            out.send(|slices, descriptors| {
                let text: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
                calls.push((String::from_utf8(text.clone()).unwrap(), descriptors.len()));
                Ok(text.len())
            })
            .unwrap();
        }
        assert_eq!(calls, [("one".to_owned(), 0), ("twothree".to_owned(), 1)]);
    }

    #[test]
    fn descriptors_leave_with_the_first_byte_of_a_short_write() {
        let mut out = Outgoing::default();
        out.begin(vec![descriptor()], |frame| frame.extend_from_slice(b"abc"));
        out.push(Bytes::from(vec![b'x'; COPY_MAX + 1]));
        assert_eq!(out.bytes(), 3 + COPY_MAX + 1);
        out.send(|_, descriptors| Ok(descriptors.len())).unwrap();
        let mut all = Vec::new();
        while !out.is_empty() {
            out.send(|slices, descriptors| {
                assert!(descriptors.is_empty());
                all.extend_from_slice(&slices[0][..1.min(slices[0].len())]);
                Ok(slices[0].len())
            })
            .unwrap();
        }
        assert_eq!((all, out.bytes()), (b"bx".to_vec(), 0));
    }
}
