//! Memory that one process writes and others read, and that nobody can change (`memfd_create(2)`, `F_SEAL_*`
//! of `fcntl(2)`).

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Seals that prevent every change.
const SEALS: SealFlag = SealFlag::F_SEAL_SEAL
    .union(SealFlag::F_SEAL_SHRINK)
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_WRITE);

/// New memory with this content. The name shows in `/proc/PID/fd`.
pub fn create(name: &str, content: &[u8]) -> io::Result<OwnedFd> {
    let memory = empty(name)?;
    fill(memory.as_fd(), content)?;
    Ok(memory)
}

/// New memory that is not sealed yet.
pub fn empty(name: &str) -> io::Result<OwnedFd> {
    Ok(memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?)
}

/// Writes the content of empty memory, and seals it.
pub fn fill(memory: BorrowedFd<'_>, content: &[u8]) -> io::Result<()> {
    let file = File::from(memory.try_clone_to_owned()?);
    (&file).write_all(content)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS))?;
    Ok(())
}

/// The content of sealed memory of at most `most` bytes; `FileTooLarge` if it has more. `InvalidData` for anything else: a file that is not
/// sealed could change while it is read, or make the reader wait.
pub fn read(memory: BorrowedFd<'_>, most: usize) -> io::Result<Vec<u8>> {
    let wrong = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
    let sealed = fcntl(memory, FcntlArg::F_GET_SEALS).map_err(|_error| wrong("it has no seals"))?;
    if !SealFlag::from_bits_retain(sealed).contains(SEALS) {
        return Err(wrong("it is not sealed"));
    }
    let file = File::from(memory.as_fd().try_clone_to_owned()?);
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if length > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large"));
    }
    let mut content = vec![0; length];
    file.read_exact_at(&mut content, 0)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_read_and_cannot_be_changed() {
        let memory = create("test", b"content").unwrap();
        assert_eq!(read(memory.as_fd(), 7).unwrap(), b"content");
        assert!(File::from(memory).write_all(b"x").is_err());
    }

    #[test]
    fn other_files_and_large_ones_are_refused() {
        let memory = create("test", b"content").unwrap();
        assert_eq!(read(memory.as_fd(), 6).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        let open = memfd_create("open", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING);
        assert!(read(open.unwrap().as_fd(), 9).is_err());
        let (pipe, _end) = io::pipe().unwrap();
        assert!(read(pipe.as_fd(), 9).is_err());
    }
}
