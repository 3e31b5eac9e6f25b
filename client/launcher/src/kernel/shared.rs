//! Memory from which another process learns what this one had received when it was killed.

use std::fs::File;
use std::io;
use std::mem::offset_of;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::ptr;
use std::sync::atomic::AtomicU64;

use rustix::fs::{MemfdFlags, memfd_create};

/// The threads that receive calls: one receives while another makes a call.
pub(crate) const RECEIVERS: usize = 2;

/// The memory, which is also the content of a file.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Shared {
    /// The number of the last call that was noted.
    pub(crate) last: AtomicU64,
    /// Where the kernel writes the calls, for each thread that receives.
    pub(crate) slots: [Slot; RECEIVERS],
}

/// A received call, as the kernel has written it.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Slot(pub(super) libc::seccomp_notif);

impl Shared {
    /// Creates the memory, and the file (`memfd_create(2)`, `mmap(2)`). The memory is mapped until this process ends.
    pub(crate) fn create() -> io::Result<(&'static mut Self, File)> {
        let file = File::from(memfd_create("received calls", MemfdFlags::CLOEXEC)?);
        file.set_len(size_of::<Self>() as u64)?;
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        let length = size_of::<Self>();
        // SAFETY: without an address the kernel chooses one that nothing uses.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), length, access, flags, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it is the start of pages that the kernel has filled with zeros, which are a value of each integer of the
        // type; the file is as long as the type. Nothing else refers to this mapping, and it is never unmapped. Other
        // processes only read the file.
        let shared = unsafe { start.cast::<Self>().as_mut() };
        Ok((shared.ok_or(io::ErrorKind::OutOfMemory)?, file))
    }

    /// Reads from the file the number that was noted last, and the numbers in the slots. One that does not exist is 0.
    pub(crate) fn read(file: &File) -> io::Result<(u64, [u64; RECEIVERS])> {
        let number = |place: usize| {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, place as u64).map(|()| u64::from_ne_bytes(bytes))
        };
        let mut received = [0; RECEIVERS];
        for (at, id) in received.iter_mut().enumerate() {
            let slot = offset_of!(Self, slots) + at * size_of::<Slot>();
            *id = number(slot + offset_of!(libc::seccomp_notif, id))?;
        }
        Ok((number(offset_of!(Self, last))?, received))
    }
}

impl Slot {
    /// A slot with a call of this number, which no other process reads.
    pub(crate) fn of(id: u64) -> Self {
        Self(libc::seccomp_notif {
            id,
            pid: 0,
            flags: 0,
            data: libc::seccomp_data { nr: 0, arch: 0, instruction_pointer: 0, args: [0; 6] },
        })
    }
}
