//! Bytes that could not be sent at once, with the descriptors beside them.
//!
//! It holds what callers who wait have submitted, so they bound it: one frame for each call in
//! pending.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Frames without descriptors are gathered in chunks of about this size.
const CHUNK: usize = 64 << 10;

/// A chunk has room for some small frames from the beginning.
const ROOM: usize = 4 << 10;

/// What is still to be sent, in order.
#[derive(Debug, Default)]
pub(crate) struct SendQueue(VecDeque<Chunk>);

/// Bytes, and the descriptors beside the first of them.
#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    sent: usize,
    descriptors: Vec<OwnedFd>,
}

impl SendQueue {
    /// Adds a frame. Its descriptors are duplicated, since the caller may go before they are sent.
    pub(crate) fn push(
        &mut self,
        buffers: &[IoSlice<'_>],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let own = descriptors.iter().map(BorrowedFd::try_clone_to_owned);
        let own: Vec<_> = own.collect::<io::Result<_>>()?;
        // Descriptors go with the first byte of a chunk, so that a frame with some begins one.
        let fits = |last: &Chunk| own.is_empty() && last.bytes.len() < CHUNK;
        if !self.0.back().is_some_and(fits) {
            let length: usize = buffers.iter().map(|buffer| buffer.len()).sum();
            let bytes = Vec::with_capacity(length.max(ROOM));
            self.0.push_back(Chunk { bytes, sent: 0, descriptors: own });
        }
        if let Some(last) = self.0.back_mut() {
            for buffer in buffers {
                last.bytes.extend_from_slice(buffer);
            }
        }
        Ok(())
    }

    /// Sends the first chunk, or a part of it.
    pub(crate) fn send(
        &mut self,
        send: impl FnOnce(&[IoSlice<'_>], &[BorrowedFd<'_>]) -> io::Result<usize>,
    ) -> io::Result<()> {
        let Some(chunk) = self.0.front_mut() else { return Ok(()) };
        let rest = chunk.bytes.get(chunk.sent..).unwrap_or_default();
        let descriptors: Vec<_> = chunk.descriptors.iter().map(AsFd::as_fd).collect();
        chunk.sent += send(&[IoSlice::new(rest)], &descriptors)?;
        chunk.descriptors.clear();
        if chunk.sent == chunk.bytes.len() {
            self.0.pop_front();
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
