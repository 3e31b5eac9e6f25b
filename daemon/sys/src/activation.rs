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

/// A descriptor that the service manager passed.
#[derive(Debug)]
pub struct Passed {
    /// Its name in `$LISTEN_FDNAMES`: of its socket unit, or with which it was stored. Empty without one.
    pub name: String,
    pub descriptor: OwnedFd,
}

/// The descriptors that `$LISTEN_FDS` counts, in order and close-on-exec; an empty list if
/// `$LISTEN_PID` is another process, and at every call after the first.
///
/// `InvalidData` for variables that are not numbers, `EBADF` for a descriptor that is not open.
pub fn take_listen_descriptors() -> io::Result<Vec<Passed>> {
    let Some(count) = listen_count()? else {
        return Ok(Vec::new());
    };
    if TAKEN.swap(true, Ordering::AcqRel) {
        return Ok(Vec::new());
    }
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    // A name has no colon (`sd_pid_notify_with_fds(3)`).
    let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
    let numbers = FIRST..FIRST.saturating_add(count);
    numbers
        .zip(names)
        .map(|(number, name)| Ok(Passed { name, descriptor: take(number)? }))
        .collect()
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
