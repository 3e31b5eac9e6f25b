//! Memory that this process shares with the kernel or with a later process.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Shared memory: the ring of a packet socket, or a file in memory. Positions outside of it do not exist.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory belongs to the process, and not to the thread that mapped it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps this many bytes of a file, or the ring of a packet socket, which MUST have this length: else the kernel returns
    /// `EINVAL`. A file MUST be at least as long, and sealed so that it stays so.
    pub(crate) fn new(socket: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: without an address the kernel chooses one that nothing uses. It does not keep the descriptor, and the
        // memory stays mapped until it is unmapped, whatever happens to the socket.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), length, access, flags, socket.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { start, length })
    }

    pub(crate) fn at(&self, offset: usize, length: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(length)?;
        if end > self.length {
            return None;
        }
        // SAFETY: `offset` is within the mapping, which is one allocation of `length` bytes.
        Some(unsafe { self.start.add(offset) })
    }

    /// The word by which the kernel and this process give each other a part of the ring.
    pub(crate) fn status(&self, offset: usize) -> Option<&AtomicU32> {
        let word = self.at(offset, 4)?.cast::<u32>();
        if !word.is_aligned() {
            return None;
        }
        // SAFETY: the word is aligned, within the mapping and alive as long as the reference. The kernel accesses it in
        // one step, and this process through atomics alone.
        Some(unsafe { AtomicU32::from_ptr(word.as_ptr()) })
    }

    /// A number that this process alone writes, in one step each time.
    pub(crate) fn number(&self, offset: usize) -> Option<&AtomicU64> {
        let word = self.at(offset, 8)?.cast::<u64>();
        if !word.is_aligned() {
            return None;
        }
        // SAFETY: the word is aligned, within the mapping and alive as long as the reference. All accesses of this
        // process are atomic; the kernel writes it only during a call of this process.
        Some(unsafe { AtomicU64::from_ptr(word.as_ptr()) })
    }

    /// Writes bytes. `false` if they do not fit.
    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) -> bool {
        let Some(start) = self.at(offset, bytes.len()) else { return false };
        // SAFETY: the target is within the mapping, which no reference points into while this value is borrowed
        // exclusively, and the source is other memory.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), start.as_ptr(), bytes.len()) };
        true
    }

    /// Loads the line of the cache at this position before it is read. Positions outside of the memory are ignored.
    pub(crate) fn prefetch(&self, offset: usize) {
        let _ = offset;
        #[cfg(target_arch = "x86_64")]
        if let Some(line) = self.at(offset, 1) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: the instruction reads nothing into a register and writes no memory, for any address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
        }
    }

    /// The bytes of a part that the kernel has given to this process. It does not write them until it gets the part back.
    pub(crate) fn bytes(&self, offset: usize, length: usize) -> Option<&[u8]> {
        let start = self.at(offset, length)?;
        // SAFETY: the bytes are within the mapping, initialised by the kernel (its pages are zeroed), and alive as long
        // as the reference. The caller has seen in the status that the kernel does not write them.
        Some(unsafe { slice::from_raw_parts(start.as_ptr(), length) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no reference into it outlives the value.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}
