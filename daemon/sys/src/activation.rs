//! Sockets that systemd made and handed over when it started the process (`sd_listen_fds(3)`).

use std::env;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// The first descriptor that systemd passes (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;

/// Whether they were taken: a descriptor has one owner.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The descriptors that `$LISTEN_FDS` counts, in order and close-on-exec; none if `$LISTEN_PID` is
/// not this process, and none the second time.
///
/// `InvalidData` for variables that are no numbers, `EBADF` for a descriptor that is not open.
pub fn take_listen_descriptors() -> io::Result<Vec<OwnedFd>> {
    let Some(count) = listen_count()? else {
        return Ok(Vec::new());
    };
    if TAKEN.swap(true, Ordering::AcqRel) {
        return Ok(Vec::new());
    }
    (FIRST..FIRST.saturating_add(count)).map(take).collect()
}

/// How many descriptors were passed to this very process.
fn listen_count() -> io::Result<Option<RawFd>> {
    let number = |name: &str| {
        let read = |text: String| {
            let wrong = || format!("${name} is {text:?}, which is no number");
            let number = text.parse::<u32>();
            number.map_err(|_error| io::Error::new(io::ErrorKind::InvalidData, wrong()))
        };
        env::var(name).ok().map(read).transpose()
    };
    if number("LISTEN_PID")? != Some(std::process::id()) {
        return Ok(None);
    }
    Ok(number("LISTEN_FDS")?.and_then(|count| RawFd::try_from(count).ok()))
}

fn take(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: only borrowed for the next call, which fails with EBADF if it is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: it is open; by the protocol of sd_listen_fds(3) it was made for this process, in which
    // nobody else knows its number, and `TAKEN` lets nobody come here twice.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_variables_nothing_is_taken() {
        assert!(take_listen_descriptors().unwrap().is_empty());
    }
}
