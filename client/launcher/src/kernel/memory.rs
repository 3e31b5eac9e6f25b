//! The memory of another process.

use std::io;

/// Reads memory of a thread into `buffer`: as many bytes as the kernel copies, at most those of `buffer`
/// (`process_vm_readv(2)`).
pub(crate) fn read_of_process(tid: u32, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let tid = libc::pid_t::try_from(tid).map_err(io::Error::other)?;
    let from = usize::try_from(address).map_err(io::Error::other)?;
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote =
        libc::iovec { iov_base: std::ptr::without_provenance_mut(from), iov_len: buffer.len() };
    // SAFETY: `local` describes `buffer`, which is writable and lives for the call; the kernel writes at most its length.
    // `remote` is an address of another process, which the kernel checks there.
    let read = unsafe { libc::process_vm_readv(tid, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(read).map_err(|_negative| io::Error::last_os_error())
}
