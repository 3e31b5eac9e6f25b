//! The output queue of a connection: bytes and descriptors.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::descriptor::Descriptor;
use crate::rpc::answer::{PassingError, Refusal};
use crate::table::peeked::Receipt;
use crate::transport::in_flight::InFlight;

/// Parts up to this size are copied together, so that one call sends several small answers.
const COPY_MAX: usize = 16 << 10;
/// The largest size of a part to which others are copied.
const GROWN_MAX: usize = 4 * COPY_MAX;
/// The initial capacity of a part: head and answer of a small call.
const FRAME_ROOM: usize = 256;
/// A larger buffer is not kept for the next part: a connection that is idle keeps little.
const SPARE_MAX: usize = 2 * FRAME_ROOM;
/// The most parts that one system call sends after the first.
const PARTS_MAX: usize = 64;

/// A queue of parts. Descriptors are sent with the first byte of their part, which therefore begins a new
/// system call.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    parts: VecDeque<Part>,
    bytes: usize,
    descriptors: usize,
    /// The bytes that were sent in all.
    sent: u64,
    /// Receipts of what answers carry, and at how many sent bytes each is sent.
    receipts: VecDeque<(u64, Receipt)>,
    /// The descriptors that were sent.
    pub(super) in_flight: InFlight,
    /// Whether the peer receives no descriptors.
    pub(super) refused_by_peer: bool,
    /// The empty buffer of a part that was sent, for the next one.
    spare: Vec<u8>,
}

#[derive(Debug)]
struct Part {
    data: Data,
    passing: Option<Passing>,
}

/// What a frame passes, and what replaces the frame if the kernel refuses to pass it.
#[derive(Debug)]
pub(super) struct Passing {
    pub(super) descriptors: Vec<Arc<Descriptor>>,
    /// The length of the frame.
    pub(super) length: usize,
    /// The response of the other frame.
    pub(super) refusal: Refusal,
    /// Makes a frame of a response.
    pub(super) frame: fn(&[u8]) -> Vec<u8>,
}

impl Part {
    fn descriptors(&self) -> &[Arc<Descriptor>] {
        self.passing.as_ref().map_or(&[], |passing| &passing.descriptors)
    }
}

#[derive(Debug)]
enum Data {
    /// May grow at the end; `sent` bytes were sent.
    Copied { bytes: Vec<u8>, sent: usize },
    /// A large part, which is not copied.
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
    /// The number of bytes that were not sent.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of descriptors that were not sent.
    pub(super) fn descriptors(&self) -> usize {
        self.descriptors
    }

    /// Whether everything was sent.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Begins a frame with the bytes that `write` appends.
    pub(super) fn begin(&mut self, passing: Option<Passing>, write: impl FnOnce(&mut Vec<u8>)) {
        if passing.is_none()
            && let Some(bytes) = self.growing(0)
        {
            let before = bytes.len();
            write(bytes);
            self.bytes += bytes.len() - before;
            return;
        }
        let mut bytes = std::mem::take(&mut self.spare);
        bytes.reserve(FRAME_ROOM);
        write(&mut bytes);
        self.bytes += bytes.len();
        self.descriptors += passing.as_ref().map_or(0, |passing| passing.descriptors.len());
        self.parts.push_back(Part { data: Data::Copied { bytes, sent: 0 }, passing });
    }

    /// Continues a frame.
    pub(super) fn push(&mut self, bytes: Bytes) {
        self.bytes += bytes.len();
        if bytes.len() <= COPY_MAX
            && let Some(last) = self.growing(bytes.len())
        {
            last.extend_from_slice(&bytes);
        } else if !bytes.is_empty() {
            self.parts.push_back(Part { data: Data::Shared(bytes), passing: None });
        }
    }

    /// Confirms a receipt when everything that is in the queue now is sent.
    pub(super) fn confirm_when_sent(&mut self, receipt: Receipt) {
        self.receipts.push_back((self.sent + self.bytes as u64, receipt));
    }

    /// The last part, if it can grow by `more` bytes.
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

    /// Sends what one system call accepts. `send` gets the slices and their descriptors.
    pub(super) fn send(
        &mut self,
        send: impl FnOnce(&[IoSlice<'_>], &[Arc<Descriptor>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let Some(first) = self.parts.front() else {
            return Ok(0);
        };
        let sent = if self.parts.len() == 1 {
            send(&[IoSlice::new(first.data.rest())], first.descriptors())?
        } else {
            let followers =
                self.parts.iter().skip(1).take(PARTS_MAX).take_while(|part| part.passing.is_none());
            let parts = std::iter::once(first).chain(followers);
            let slices: Vec<IoSlice<'_>> =
                parts.map(|part| IoSlice::new(part.data.rest())).collect();
            send(&slices, first.descriptors())?
        };
        self.advance(sent);
        Ok(sent)
    }

    /// Replaces the first frame, whose descriptors the kernel refuses to pass. `false` if it has none.
    pub(super) fn refuse_descriptors(&mut self, reason: PassingError) -> bool {
        let Some(passing) = self.parts.front_mut().and_then(|part| part.passing.take()) else {
            return false;
        };
        self.descriptors -= passing.descriptors.len();
        self.advance(passing.length);
        self.refused_by_peer |= reason == PassingError::RefusedByPeer;
        let bytes = (passing.frame)(&passing.refusal.encode(reason));
        self.bytes += bytes.len();
        for (end, _) in &mut self.receipts {
            *end += bytes.len() as u64;
        }
        let data = Data::Copied { bytes, sent: 0 };
        self.parts.push_front(Part { data, passing: None });
        true
    }

    fn advance(&mut self, mut sent: usize) {
        self.bytes -= sent;
        self.sent += sent as u64;
        while self.receipts.front().is_some_and(|(end, _)| *end <= self.sent) {
            if let Some((_, receipt)) = self.receipts.pop_front() {
                receipt.sent();
            }
        }
        while let Some(part) = self.parts.front_mut() {
            if sent > 0 {
                // They were sent with the first byte.
                let passed = part.passing.take().map_or(0, |passing| passing.descriptors.len());
                self.descriptors -= passed;
                self.in_flight.sent(passed);
            }
            let length = part.data.rest().len();
            if sent < length {
                part.data.advance(sent);
                return;
            }
            sent -= length;
            if let Some(Part { data: Data::Copied { mut bytes, .. }, .. }) = self.parts.pop_front()
                && bytes.capacity() <= SPARE_MAX
            {
                bytes.clear();
                self.spare = bytes;
            }
            if sent == 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::peeked::Peeked;

    fn passing(length: usize) -> Passing {
        let file = std::fs::File::open("/dev/null").unwrap();
        let descriptor = Descriptor::of_client(file.into(), &crate::quota::tests::user(1));
        let refusal = Refusal::for_test();
        let frame = |_: &[u8]| b"refused".to_vec();
        Passing { descriptors: vec![Arc::new(descriptor)], length, refusal, frame }
    }

    /// Everything that is sent when each call accepts this number of bytes.
    fn send_all(out: &mut Outgoing, most: usize) -> String {
        let mut all = Vec::new();
        while !out.is_empty() {
            out.send(|slices, _| {
                let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
                let sent = bytes.len().min(most);
                all.extend_from_slice(&bytes[..sent]);
                Ok(sent)
            })
            .unwrap();
        }
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn a_refused_frame_is_replaced_and_its_neighbours_are_not() {
        for attachment in [0, COPY_MAX + 1] {
            for most in [1, usize::MAX] {
                let mut out = Outgoing::default();
                out.begin(None, |frame| frame.extend_from_slice(b"before "));
                out.begin(Some(passing(4 + attachment)), |frame| frame.extend_from_slice(b"lost"));
                out.push(Bytes::from(vec![b'x'; attachment]));
                out.begin(None, |frame| frame.extend_from_slice(b" after"));
                assert_eq!(out.descriptors(), 1);
                assert!(!out.refuse_descriptors(PassingError::RefusedByPeer));
                out.send(|slices, _| Ok(slices[0].len())).unwrap();
                assert!(out.refuse_descriptors(PassingError::RefusedByPeer));
                assert!(out.refused_by_peer);
                assert_eq!((out.descriptors(), out.bytes()), (0, 13));
                assert_eq!(send_all(&mut out, most), "refused after");
                assert_eq!(out.bytes(), 0);
            }
        }
    }

    #[test]
    fn a_receipt_is_confirmed_when_its_frame_is_sent_also_after_a_refused_frame() {
        for most in [1, usize::MAX] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (own, _) = listener.accept().unwrap();
            io::Write::write_all(&mut peer, b"received").unwrap();
            while own.peek(&mut [0; 8]).unwrap() < 8 {}
            let descriptor = own.try_clone().unwrap().into();
            let user = crate::quota::tests::user(1);
            let descriptor = Arc::new(Descriptor::of_client(descriptor, &user));
            let peeked = Arc::new(Peeked::sole());
            let first = || {
                let mut byte = [0];
                assert_eq!(own.peek(&mut byte).unwrap(), 1);
                byte[0]
            };
            let mut out = Outgoing::default();
            out.begin(Some(passing(4)), |frame| frame.extend_from_slice(b"lost"));
            out.begin(None, |frame| frame.extend_from_slice(b" answer"));
            out.confirm_when_sent(Receipt::for_test(&peeked, &descriptor, 2));
            out.begin(None, |frame| frame.extend_from_slice(b" after"));
            assert!(out.refuse_descriptors(PassingError::RefusedByPeer));
            let before = "refused answer".len() - 1;
            out.send(|_, _| Ok(before)).unwrap();
            assert_eq!(first(), b'r', "the last byte of the frame is not sent");
            assert!(send_all(&mut out, most).starts_with('r'));
            assert_eq!(first(), b'c');
        }
    }

    #[test]
    fn a_frame_with_descriptors_begins_a_new_call() {
        let mut out = Outgoing::default();
        out.begin(None, |frame| frame.extend_from_slice(b"one"));
        out.begin(Some(passing(3)), |frame| frame.extend_from_slice(b"two"));
        out.begin(None, |frame| frame.extend_from_slice(b"three"));
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
    fn descriptors_are_sent_with_the_first_byte_of_a_short_write() {
        let mut out = Outgoing::default();
        out.begin(Some(passing(4 + COPY_MAX)), |frame| frame.extend_from_slice(b"abc"));
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
