//! A descriptor with its timeout and `O_NONBLOCK`.
//!
//! The flag is what Python would have set, except during a call that has no `MSG_DONTWAIT`. All holders of
//! the descriptor share it. Several calls may need it at a time; it is reset after the last of them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sockbroker_sys::socket;

use crate::descriptor::Descriptor;
use crate::quota::kernel_memory::KernelMemory;
use crate::table::timeout::{Timeout, TimeoutCell};

/// A socket that its entry shares with the event loop and with threads that make calls on it.
#[derive(Debug, Clone)]
pub struct SharedSocket {
    descriptor: Arc<Descriptor>,
    mode: Arc<Mode>,
}

#[derive(Debug)]
struct Mode {
    timeout: TimeoutCell,
    lent: Mutex<Lent>,
}

/// The number of calls that need `O_NONBLOCK`, and whether it stays set after the last.
#[derive(Debug, Default)]
struct Lent {
    calls: usize,
    stays: bool,
}

impl SharedSocket {
    /// A socket whose flag is as the timeout needs it, or is to stay as it is.
    pub(super) fn new(descriptor: Descriptor, timeout: Timeout) -> Self {
        let mode = Mode { timeout: TimeoutCell::new(timeout), lent: Mutex::default() };
        Self { descriptor: Arc::new(descriptor), mode: Arc::new(mode) }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    pub(super) fn descriptor(&self) -> &Arc<Descriptor> {
        &self.descriptor
    }

    /// The descriptor, unless others share it.
    pub(super) fn into_descriptor(self) -> Option<Descriptor> {
        Arc::into_inner(self.descriptor)
    }

    /// Counts this kernel memory until the socket is closed. For a socket that nothing shares yet.
    pub(super) fn set_kernel_memory(&mut self, memory: KernelMemory) {
        if let Some(descriptor) = Arc::get_mut(&mut self.descriptor) {
            descriptor.set_kernel_memory(memory);
        }
    }

    pub fn timeout(&self) -> Timeout {
        self.mode.timeout.get()
    }

    /// Changes the timeout and, with it, `O_NONBLOCK`.
    pub(super) fn set_timeout(&self, timeout: Timeout) -> io::Result<()> {
        let mut lent = self.mode.lent();
        if lent.calls > 0 {
            lent.stays = timeout.sets_nonblocking();
        } else {
            socket::set_nonblocking(self.fd(), timeout.sets_nonblocking())?;
        }
        self.mode.timeout.set(timeout);
        Ok(())
    }

    /// Runs a system call that has no `MSG_DONTWAIT` with `O_NONBLOCK` set. Other holders of the
    /// descriptor see the flag for the length of that call. The flag is read from the kernel whatever the
    /// timeout is: a client that holds the descriptor may have cleared it.
    pub fn without_blocking<T>(
        &self,
        call: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        let _lent = self.lend()?;
        call(self.fd())
    }

    /// Sets `O_NONBLOCK` while the result lives, for a call that another process makes.
    pub fn lend(&self) -> io::Result<Loan> {
        let mut lent = self.mode.lent();
        if lent.calls == 0 {
            // A client that holds the descriptor may have set the flag itself: then it stays.
            lent.stays = socket::is_nonblocking(self.fd())?;
            if !lent.stays {
                socket::set_nonblocking(self.fd(), true)?;
            }
        }
        lent.calls += 1;
        Ok(Loan(self.clone()))
    }
}

impl Mode {
    // Both fields are consistent after every statement, so a panic of another call does not spoil them.
    fn lent(&self) -> MutexGuard<'_, Lent> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for SharedSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

/// A socket whose flag is set while this lives.
#[derive(Debug)]
pub struct Loan(SharedSocket);

impl AsFd for Loan {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let mut lent = self.0.mode.lent();
        lent.calls -= 1;
        if lent.calls == 0 && !lent.stays {
            // FIONBIO on an open socket cannot fail.
            socket::set_nonblocking(self.0.fd(), false).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shared() -> SharedSocket {
        let descriptor = socket::create(libc::AF_UNIX, libc::SOCK_STREAM, 0).unwrap();
        let descriptor = Descriptor::of_socket(descriptor, crate::quota::tests::handle());
        SharedSocket::new(descriptor, Timeout::Blocking)
    }

    fn is_set(shared: &SharedSocket) -> bool {
        socket::is_nonblocking(shared.fd()).unwrap()
    }

    #[test]
    fn the_flag_is_reset_after_the_last_call() {
        let shared = shared();
        let first = shared.lend().unwrap();
        let second = shared.lend().unwrap();
        drop(first);
        assert!(is_set(&shared));
        drop(second);
        assert!(!is_set(&shared));
    }

    #[test]
    fn a_flag_that_a_holder_has_set_stays() {
        let shared = shared();
        socket::set_nonblocking(shared.fd(), true).unwrap();
        shared.without_blocking(|_| Ok(())).unwrap();
        assert!(is_set(&shared));
    }

    #[test]
    fn a_flag_that_a_holder_has_cleared_is_set_for_the_call() {
        let shared = shared();
        shared.set_timeout(Timeout::After(Duration::from_secs(1))).unwrap();
        socket::set_nonblocking(shared.fd(), false).unwrap();
        assert!(shared.without_blocking(socket::is_nonblocking).unwrap());
        assert!(!is_set(&shared));
    }

    #[test]
    fn a_timeout_that_changes_during_a_call_decides_the_flag_after_it() {
        let shared = shared();
        let lent = shared.lend().unwrap();
        shared.set_timeout(Timeout::After(Duration::from_secs(1))).unwrap();
        drop(lent);
        assert!(is_set(&shared));
        let lent = shared.lend().unwrap();
        shared.set_timeout(Timeout::Blocking).unwrap();
        assert!(is_set(&shared), "a call in progress does not begin to block");
        drop(lent);
        assert!(!is_set(&shared));
    }
}
