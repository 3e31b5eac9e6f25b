//! Bytes and descriptors that could not be sent at once.
//!
//! The number of calls in progress bounds the queue: it holds at most one frame for each.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Frames without descriptors are appended to a chunk until it has this size in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// The initial capacity of a chunk in bytes, for several small frames.
const CHUNK_CAPACITY_MIN: usize = 4 << 10;

/// Chunks to send, in order.
#[derive(Debug, Default)]
pub(super) struct SendQueue(VecDeque<Chunk>);

/// Bytes, and the descriptors that are sent with the first of them.
#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    sent: usize,
    descriptors: Vec<OwnedFd>,
}

impl SendQueue {
    /// Appends a frame. Its descriptors are duplicated, because the caller can close them before they are
    /// sent.
    pub(super) fn push(
        &mut self,
        buffers: &[IoSlice<'_>],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let duplicates = descriptors.iter().map(BorrowedFd::try_clone_to_owned);
        let duplicates: Vec<_> = duplicates.collect::<io::Result<_>>()?;
        // Descriptors go with the first byte of a chunk, so a frame that has some begins a new chunk.
        let fits = |last: &Chunk| duplicates.is_empty() && last.bytes.len() < CHUNK_BYTES;
        if !self.0.back().is_some_and(fits) {
            let length: usize = buffers.iter().map(|buffer| buffer.len()).sum();
            let bytes = Vec::with_capacity(length.max(CHUNK_CAPACITY_MIN));
            self.0.push_back(Chunk { bytes, sent: 0, descriptors: duplicates });
        }
        if let Some(last) = self.0.back_mut() {
            for buffer in buffers {
                last.bytes.extend_from_slice(buffer);
            }
        }
        Ok(())
    }

    /// Sends the first chunk, or a part of it.
    pub(super) fn send_first(
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

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
