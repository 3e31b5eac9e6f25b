//! One socket of a user: the only place where its descriptor lives.

use sockbroker_policy::socket_spec::JudgedSocket as _;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use sockbroker_sys::socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::quota::kernel_memory::KernelMemory;
use crate::quota::{Reservation, User};
use crate::table::call_queue::{CallQueue, Ticket};
use crate::table::ends::Ends;
use crate::table::rcvall::Rcvall;
use crate::table::readiness::register;
use crate::table::shared::Shared;
use crate::table::timeout::Timeout;
use sockbroker_proto::socket_spec::SocketSpec;

/// A socket and what Python's socket object knows of it.
#[derive(Debug)]
pub struct Entry {
    shared: Shared,
    facts: SocketSpec,
    /// What the kernel knows it as, whatever the caller of `fromfd` says of it.
    kind: SocketSpec,
    inheritable: AtomicBool,
    /// The order of receiving calls.
    pub receiving: CallQueue,
    /// The order of sending calls and option changes.
    pub sending: CallQueue,
    /// Registered with the event loop when a call first has to wait.
    readiness: OnceLock<AsyncFd<Arc<OwnedFd>>>,
    /// Held while it is registered.
    registering: Mutex<()>,
    /// Bytes that a cancelled `MSG_WAITALL` had already taken; the next receive gets them first.
    pub unread: Mutex<Vec<u8>>,
    /// For `AF_INET, SOCK_RAW, IPPROTO_IP`: the state of the rcvall behind it.
    pub rcvall: Option<Rcvall>,
    /// What calls made of its ends.
    pub ends: Ends,
    /// What its options take, shared with duplicates.
    pub kernel_memory: KernelMemory,
    began: Instant,
    /// Its part of the user's handles.
    handle: Reservation,
}

impl Entry {
    /// Takes ownership of a socket. `O_NONBLOCK` is set as the timeout asks, and kept so: whoever is
    /// handed the descriptor finds the flag that Python would have set.
    pub fn new(
        descriptor: OwnedFd,
        facts: SocketSpec,
        timeout: Timeout,
        handle: Reservation,
    ) -> io::Result<Self> {
        socket::set_nonblocking(descriptor.as_fd(), timeout.sets_nonblocking())?;
        Ok(Self::adopted(descriptor, facts, timeout, handle))
    }

    /// Like [`Entry::new`], but leaves `O_NONBLOCK` as it is.
    pub fn adopted(
        descriptor: OwnedFd,
        facts: SocketSpec,
        timeout: Timeout,
        handle: Reservation,
    ) -> Self {
        Self {
            shared: Shared::new(descriptor, timeout),
            facts,
            kind: facts.judged(),
            inheritable: AtomicBool::new(false),
            receiving: CallQueue::default(),
            sending: CallQueue::default(),
            readiness: OnceLock::new(),
            registering: Mutex::new(()),
            unread: Mutex::new(Vec::new()),
            rcvall: None,
            ends: Ends::default(),
            kernel_memory: KernelMemory::default(),
            began: Instant::now(),
            handle,
        }
    }

    /// With what the kernel knows the socket as.
    #[must_use]
    pub fn of_kind(mut self, kind: SocketSpec) -> Self {
        self.kind = kind.judged();
        self
    }

    /// Makes this the entry of a rcvall, whose socket is a packet socket.
    #[must_use]
    pub fn with_rcvall(mut self, rcvall: Rcvall) -> Self {
        self.kind = SocketSpec { domain: libc::AF_PACKET, ty: libc::SOCK_DGRAM, protocol: 0 };
        self.rcvall = Some(rcvall);
        self
    }

    /// The descriptor.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.shared.fd()
    }

    /// A place for a call that changes what the socket is, such as `connect`: it waits for its turn in
    /// the sending lane, and later receiving calls wait for it. It does not wait for earlier ones.
    pub fn join_both(&self, connection: u64) -> (Ticket<'_>, Ticket<'_>) {
        (self.sending.join(connection), self.receiving.join(connection))
    }

    /// What kind of socket it is, in the words of the client: `fromfd` and `fileno=` take any.
    pub fn declared(&self) -> SocketSpec {
        self.facts
    }

    /// How long the broker has had it.
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// What kind the kernel knows it as: what is judged goes by this, and as whom a call is made.
    pub fn actual(&self) -> SocketSpec {
        self.kind
    }

    /// Whose it is.
    pub fn user(&self) -> &Arc<User> {
        self.handle.user()
    }

    /// The timeout in force.
    pub fn timeout(&self) -> Timeout {
        self.shared.timeout()
    }

    /// `settimeout`: changes the timeout and, with it, `O_NONBLOCK`.
    pub fn set_timeout(&self, timeout: Timeout) -> io::Result<()> {
        self.shared.set_timeout(timeout)
    }

    /// `get_inheritable`.
    pub fn inheritable(&self) -> bool {
        self.inheritable.load(Ordering::Relaxed)
    }

    /// `set_inheritable`.
    pub fn set_inheritable(&self, inheritable: bool) {
        self.inheritable.store(inheritable, Ordering::Relaxed);
    }

    /// Runs a system call that has no `MSG_DONTWAIT` of its own with `O_NONBLOCK` set. The flag is
    /// visible to other holders of the descriptor only for the length of that call.
    pub(super) fn without_blocking<T>(
        &self,
        call: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.timeout().sets_nonblocking() {
            return call(self.fd());
        }
        self.shared.without_blocking(call)
    }

    /// The socket, for a thread that calls for it.
    pub(super) fn shared(&self) -> Shared {
        self.shared.clone()
    }

    /// Ends both directions, so that calls that wait come to their end.
    pub fn end(&self) {
        // Sockets without a connection have nothing to end, and nothing is left to tell.
        drop(socket::shutdown(self.fd(), libc::SHUT_RDWR));
    }

    /// The registration with the event loop, made at the first wait.
    pub(super) fn readiness(&self) -> io::Result<&AsyncFd<Arc<OwnedFd>>> {
        if let Some(ready) = self.readiness.get() {
            return Ok(ready);
        }
        let interest =
            Interest::READABLE | Interest::WRITABLE | Interest::ERROR | Interest::PRIORITY;
        let _guard = self.registering.lock().unwrap_or_else(PoisonError::into_inner);
        if self.readiness.get().is_none() {
            let registered = register(self.shared.descriptor().clone(), interest)?;
            // The guard makes this the only writer, so the cell is empty.
            drop(self.readiness.set(registered));
        }
        self.readiness.get().ok_or_else(|| io::Error::other("the event loop took no registration"))
    }

    /// A second entry for the same socket, as `dup(2)`: nothing on the shared description changes.
    pub(super) fn duplicate(&self, handle: Reservation) -> io::Result<Self> {
        let descriptor = socket::duplicate(self.fd())?;
        let entry = Self::adopted(descriptor, self.facts, self.timeout(), handle);
        let mut entry = entry.of_kind(self.kind);
        entry.share_with(self);
        Ok(entry)
    }

    /// Makes this entry share what the entries of one socket share.
    pub fn share_with(&mut self, original: &Self) {
        self.rcvall.clone_from(&original.rcvall);
        self.ends = original.ends.clone();
        self.kernel_memory = original.kernel_memory.clone();
    }
}
