//! Sockets that systemd created and passed to this process (`sd_listen_fds(3)`).

use std::env;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// The first descriptor that systemd passes (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;

/// Whether the descriptors were taken: each must have one owner.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The descriptors that `$LISTEN_FDS` counts, in order and close-on-exec, each with its name of `$LISTEN_FDNAMES`
/// (`FileDescriptorName=`), which is empty without one; an empty list if
/// `$LISTEN_PID` is another process, and at every call after the first.
///
/// `InvalidData` for variables that are not numbers, `EBADF` for a descriptor that is not open.
pub fn take_listen_descriptors() -> io::Result<Vec<(OwnedFd, String)>> {
    let Some(count) = listen_count()? else {
        return Ok(Vec::new());
    };
    if TAKEN.swap(true, Ordering::AcqRel) {
        return Ok(Vec::new());
    }
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').map(str::to_owned);
    let numbers = FIRST..FIRST.saturating_add(count);
    numbers.map(|number| Ok((take(number)?, names.next().unwrap_or_default()))).collect()
}

/// The number of descriptors that were passed to this process.
fn listen_count() -> io::Result<Option<RawFd>> {
    let number = |name: &str| {
        let read = |text: String| {
            let wrong = || format!("${name} is {text:?}, which is not a number");
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
    // SAFETY: it is open; by the protocol of sd_listen_fds(3) it was created for this process, in which
    // no other code knows its number, and `TAKEN` lets this function run once.
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
