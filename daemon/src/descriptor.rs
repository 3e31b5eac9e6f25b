//! Descriptors whose last close may wait.
//!
//! A [`Descriptor`] is closed where that cannot stall other calls, wherever it is dropped: immediately if the kernel
//! does not wait, else on a thread ([`crate::quota::closing`]).
//!
//! The kernel does not wait for a TCP socket without `SO_LINGER`, a UDP socket and most raw sockets. It may wait for
//! everything else. An `AF_UNIX` socket can contain any other descriptor in its queue. The broker knows that `SO_LINGER` is not set as
//! long as only the broker has descriptors of the socket, and as long as no call has set the option.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sockbroker_sys::socket;
use tokio::sync::oneshot;

use crate::quota::closing::Length;
use crate::quota::kernel_memory::KernelMemory;
use crate::quota::{Reservation, Share, User};

/// What the broker knows about the last close of a socket. The duplicates of a socket share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Close {
    /// `SO_LINGER` was never set.
    Plain,
    /// A call has set an option that makes the close wait.
    Lingers,
    /// A client has or had the descriptor.
    Unknown,
}

/// A descriptor, and what it uses of the limits of its user until it is closed.
#[derive(Debug)]
pub struct Descriptor {
    /// `None` only while it is dropped.
    fd: Option<OwnedFd>,
    user: Arc<User>,
    close: Arc<Mutex<Close>>,
    /// Its handle. A descriptor without one counts as buffered while it is being closed.
    handle: Option<Reservation>,
    kernel_memory: KernelMemory,
}

impl Descriptor {
    /// A descriptor of a client, which can be anything, or an end of a connection of a client, in which the client can
    /// have left such descriptors.
    pub fn of_client(fd: OwnedFd, user: &Arc<User>) -> Self {
        Self {
            fd: Some(fd),
            user: user.clone(),
            close: Arc::new(Mutex::new(Close::Unknown)),
            handle: None,
            kernel_memory: KernelMemory::default(),
        }
    }

    /// A socket that the broker has created or accepted.
    pub fn of_socket(fd: OwnedFd, handle: Reservation) -> Self {
        let user = handle.user().clone();
        let close = Arc::new(Mutex::new(Close::Plain));
        let (fd, handle) = (Some(fd), Some(handle));
        Self { fd, user, close, handle, kernel_memory: KernelMemory::default() }
    }

    /// The same descriptor with a handle.
    #[must_use]
    pub fn with_handle(mut self, handle: Reservation) -> Self {
        self.user = handle.user().clone();
        self.handle = Some(handle);
        self
    }

    /// Another descriptor of the same socket, as `dup(2)`.
    pub fn duplicate(&self, handle: Reservation) -> io::Result<Self> {
        let fd = Some(socket::duplicate(self.as_fd())?);
        let (user, close) = (handle.user().clone(), self.close.clone());
        let kernel_memory = self.kernel_memory.clone();
        Ok(Self { fd, user, close, handle: Some(handle), kernel_memory })
    }

    pub fn user(&self) -> &Arc<User> {
        &self.user
    }

    /// The kernel memory of the socket, which is counted until it is closed.
    pub fn kernel_memory(&self) -> &KernelMemory {
        &self.kernel_memory
    }

    /// Counts this kernel memory until the socket is closed.
    pub fn set_kernel_memory(&mut self, memory: KernelMemory) {
        self.kernel_memory = memory;
    }

    /// Notes that an option is about to be set that can make the close wait.
    pub fn note_lingering(&self) {
        self.note(Close::Lingers);
    }

    /// Notes that a client is about to get the descriptor, and can then set every option of it.
    pub fn note_passed(&self) {
        self.note(Close::Unknown);
    }

    /// Whether a client has or had it, or the broker has a duplicate of it: then its close may not be the last.
    pub fn is_shared(&self) -> bool {
        *self.known() == Close::Unknown || Arc::strong_count(&self.close) > 1
    }

    fn note(&self, close: Close) {
        let mut known = self.known();
        *known = known.max(close);
    }

    /// Notes that this socket was accepted by another, from which it has its options.
    pub fn note_accepted_by(&self, listening: &Self) {
        let inherited = *listening.known();
        if inherited > Close::Plain && socket::lingers(self.as_fd()) {
            self.note_lingering();
        }
    }

    fn known(&self) -> MutexGuard<'_, Close> {
        // It changes in one statement, so a panic of another call does not spoil it.
        self.close.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes it. The result is ready when it is closed. Dropping the result changes nothing.
    pub async fn close(mut self) {
        let (closed, end) = oneshot::channel::<()>();
        self.release(Some(closed));
        drop(self);
        // The other end is dropped when the descriptor is closed.
        end.await.ok();
    }

    /// Closes it, and then drops `closed`.
    fn release(&mut self, closed: Option<oneshot::Sender<()>>) {
        let Some(fd) = self.fd.take() else { return };
        // Held over a close here, so that no duplicate can begin to linger during it.
        let known = self.known();
        let lingers = *known > Close::Plain && socket::lingers(fd.as_fd());
        let length = match *known {
            Close::Plain | Close::Lingers if !socket::closes_without_waiting(fd.as_fd()) => {
                Some(if lingers { Length::Lingers } else { Length::Unknown })
            }
            Close::Plain => None,
            Close::Lingers if !lingers => None,
            // As at the exit of a process, nothing waits: the kernel sends the rest in the background.
            Close::Lingers if closed.is_none() && Arc::strong_count(&self.close) == 1 => {
                socket::clear_linger(fd.as_fd()).err().map(|_error| Length::Lingers)
            }
            Close::Unknown if !lingers => Some(Length::Unknown),
            Close::Lingers | Close::Unknown => Some(Length::Lingers),
        };
        let Some(length) = length else {
            drop(fd);
            return;
        };
        drop(known);
        let handle = self.handle.take();
        // No limit refuses it: a connection whose user exceeds the limit is not read.
        let held = handle.unwrap_or_else(|| self.user.take_back(Share::Descriptors, 1));
        let memory = std::mem::take(&mut self.kernel_memory);
        self.user.close_apart(length, move || {
            drop(fd);
            drop((held, memory));
            drop(closed);
        });
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.release(None);
    }
}

impl AsFd for Descriptor {
    #[expect(clippy::expect_used, reason = "only close and drop take it, which own the value")]
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("a descriptor that is not closed").as_fd()
    }
}

impl AsRawFd for Descriptor {
    #[expect(
        clippy::disallowed_methods,
        reason = "the event loop registers types with this trait; nothing else uses the number"
    )]
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
