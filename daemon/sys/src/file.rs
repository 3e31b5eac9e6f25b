//! Files that `sendfile(2)` reads from.

use std::io;
use std::os::fd::BorrowedFd;

use nix::sys::sendfile::sendfile64;
use nix::sys::stat::{SFlag, fstat};
use nix::sys::uio::pread;
use nix::unistd::{Whence, lseek};

use crate::call::retry;

/// Sends up to `count` bytes of `file` from `offset`, advances `offset` by the number of bytes sent, and
/// returns this number: 0 at the end of the file. The file's own position does not change.
///
/// `EINVAL` if the file cannot be mapped or the offset is over 2^63. A broken stream is `EPIPE` and
/// raises `SIGPIPE`, which `sendfile(2)` cannot suppress: the process must ignore it, as Rust's
/// runtime does.
pub fn send_file(
    out: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: &mut u64,
    count: usize,
) -> io::Result<usize> {
    let too_large = |_| io::Error::from_raw_os_error(libc::EINVAL);
    let mut position = libc::off64_t::try_from(*offset).map_err(too_large)?;
    let sent = retry(|| Ok(sendfile64(out, file, Some(&mut position), count)?))?;
    *offset = u64::try_from(position).unwrap_or(*offset);
    Ok(sent)
}

/// Reads up to the length of `buffer` at `offset` (`pread(2)`). Returns the number of bytes: 0 at the end of the file.
pub fn read_at(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let too_large = |_| io::Error::from_raw_os_error(libc::EINVAL);
    let offset = libc::off_t::try_from(offset).map_err(too_large)?;
    retry(|| Ok(pread(file, buffer, offset)?))
}

/// Whether the descriptor is a regular file (`S_ISREG`, `inode(7)`).
pub fn is_regular(file: BorrowedFd<'_>) -> io::Result<bool> {
    is(file, SFlag::S_IFREG)
}

/// The position of the next `read(2)`, in bytes (`lseek(2)`); `ESPIPE` for pipes and sockets.
pub fn position(file: BorrowedFd<'_>) -> io::Result<u64> {
    let position = lseek(file, 0, Whence::SeekCur)?;
    u64::try_from(position).map_err(io::Error::other)
}

/// The size in bytes (`fstat(2)`); 0 for files without a size.
pub fn size(file: BorrowedFd<'_>) -> io::Result<u64> {
    u64::try_from(fstat(file)?.st_size).map_err(io::Error::other)
}

/// Whether the file has this type.
pub(crate) fn is(file: BorrowedFd<'_>, kind: SFlag) -> io::Result<bool> {
    let mode = SFlag::from_bits_truncate(fstat(file)?.st_mode);
    Ok(mode & SFlag::S_IFMT == kind)
}

/// Whether two descriptors refer to the same file.
pub(crate) fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<bool> {
    let (one, other) = (fstat(one)?, fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsFd;

    use super::*;
    use crate::message::receive;
    use crate::testing::{TempDir, errno, unix_pair};

    fn file_of(directory: &TempDir, content: &[u8]) -> File {
        let path = directory.path("file");
        File::create(&path).unwrap().write_all(content).unwrap();
        File::open(path).unwrap()
    }

    #[test]
    fn send_file_starts_at_the_offset_and_keeps_the_file_position() {
        let directory = TempDir::new();
        let mut file = file_of(&directory, b"0123456789");
        file.read_exact(&mut [0; 3]).unwrap();
        let (a, b) = unix_pair(libc::SOCK_STREAM);
        let mut offset = 2;
        assert_eq!(send_file(a.as_fd(), file.as_fd(), &mut offset, 4).unwrap(), 4);
        assert_eq!(offset, 6);
        assert_eq!(receive(b.as_fd(), 100, 0).unwrap().data, b"2345");
        assert_eq!(send_file(a.as_fd(), file.as_fd(), &mut offset, 100).unwrap(), 4);
        assert_eq!(send_file(a.as_fd(), file.as_fd(), &mut offset, 100).unwrap(), 0);
        assert_eq!(offset, 10);
        assert_eq!(position(file.as_fd()).unwrap(), 3);
        assert_eq!(size(file.as_fd()).unwrap(), 10);
    }

    #[test]
    fn impossible_offset_is_einval() {
        let directory = TempDir::new();
        let file = file_of(&directory, b"x");
        let (a, b) = unix_pair(libc::SOCK_STREAM);
        let mut offset = u64::MAX;
        assert_eq!(errno(send_file(a.as_fd(), file.as_fd(), &mut offset, 1)), libc::EINVAL);
        assert_eq!(offset, u64::MAX);
        drop(b);
        let broken = send_file(a.as_fd(), file.as_fd(), &mut 0, 1);
        assert_eq!(errno(broken), libc::EPIPE);
    }

    #[test]
    fn is_regular_is_false_for_other_files() {
        let directory = TempDir::new();
        assert!(is_regular(file_of(&directory, b"").as_fd()).unwrap());
        assert!(!is_regular(File::open("/dev/null").unwrap().as_fd()).unwrap());
        let (a, _b) = unix_pair(libc::SOCK_STREAM);
        assert!(!is_regular(a.as_fd()).unwrap());
        assert_eq!(errno(position(a.as_fd())), libc::ESPIPE);
        assert_eq!(size(a.as_fd()).unwrap(), 0);
    }
}
