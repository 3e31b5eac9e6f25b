//! Memory for the data of sends that are too large for a record: the worker writes it, and the process reads it before it
//! answers. It is made once, while sealed memory is made for each message.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use sockbroker_sys::sealed;

use super::message::SHARED_MAX;

/// The worker's end.
#[derive(Debug)]
pub struct SharedWriter(File);

impl SharedWriter {
    pub fn new() -> io::Result<Self> {
        Ok(Self(File::from(sealed::empty("data")?)))
    }

    /// Writes data of at most [`SHARED_MAX`] bytes over what is there.
    pub fn write(&self, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, 0)
    }
}

impl AsFd for SharedWriter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The end of the process that makes the calls.
#[derive(Debug)]
pub(super) struct SharedReader {
    memory: File,
    buffer: Vec<u8>,
}

impl SharedReader {
    pub(super) fn new(memory: OwnedFd) -> Self {
        Self { memory: memory.into(), buffer: Vec::new() }
    }

    /// The first bytes of the memory.
    pub(super) fn read(&mut self, length: usize) -> Result<&[u8], &'static str> {
        if length > SHARED_MAX {
            return Err("the data in shared memory is too long");
        }
        if self.buffer.len() < length {
            self.buffer.resize(length, 0);
        }
        let data = self.buffer.get_mut(..length).unwrap_or_default();
        self.memory
            .read_exact_at(data, 0)
            .map_err(|_error| "the data in shared memory cannot be read")?;
        Ok(data)
    }
}
