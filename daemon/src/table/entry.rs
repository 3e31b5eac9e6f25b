//! A socket of a session.

use sockbroker_policy::socket_spec::JudgedSocket as _;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use sockbroker_policy::namespace::Namespace;
use sockbroker_proto::api::admin::Maker;
use sockbroker_sys::socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::descriptor::Descriptor;
use crate::quota::kernel_memory::KernelMemory;
use crate::quota::{Reservation, User};
use crate::table::call_queue::{CallQueue, Ticket};
use crate::table::channel::Channels;
use crate::table::ends::Ends;
use crate::table::peeked::Peeked;
use crate::table::rcvall::Rcvall;
use crate::table::readiness::register;
use crate::table::shared::SharedSocket;
use crate::table::timeout::Timeout;
use crate::table::unread::Unread;
use sockbroker_proto::socket_spec::SocketSpec;

/// A socket with the state that Python's socket object has.
#[derive(Debug)]
pub struct Entry {
    shared: SharedSocket,
    declared: SocketSpec,
    actual: SocketSpec,
    /// The network namespace that it belongs to.
    namespace: Namespace,
    inheritable: AtomicBool,
    /// The order of receiving calls.
    pub receiving: CallQueue,
    /// The order of sending calls and option changes.
    pub sending: CallQueue,
    /// The registration with the event loop, made when a call first has to wait.
    readiness: OnceLock<AsyncFd<Arc<Descriptor>>>,
    /// Held during the registration.
    registering: Mutex<()>,
    pub unread: Mutex<Unread>,
    /// The state of the emulation of `SIO_RCVALL`, for `AF_INET, SOCK_RAW, IPPROTO_IP`.
    pub rcvall: Option<Rcvall>,
    /// Its ends, shared with duplicates.
    pub ends: Ends,
    pub channels: Channels,
    /// The request that made its handle.
    pub maker: OnceLock<Maker>,
    began: Instant,
}

impl Entry {
    /// Takes ownership of a socket. `O_NONBLOCK` is set as the timeout needs it and stays so, so that a
    /// client to which the descriptor is passed finds the flag that Python would have set.
    pub fn new(
        descriptor: OwnedFd,
        declared: SocketSpec,
        timeout: Timeout,
        handle: Reservation,
    ) -> io::Result<Self> {
        let descriptor = Descriptor::of_socket(descriptor, handle);
        socket::set_nonblocking(descriptor.as_fd(), timeout.sets_nonblocking())?;
        let mut entry = Self::adopted(descriptor, declared, timeout);
        entry.ends = Ends::with(Peeked::sole());
        Ok(entry)
    }

    /// Takes over a socket with its handle, and leaves `O_NONBLOCK` as it is.
    pub fn adopted(descriptor: Descriptor, declared: SocketSpec, timeout: Timeout) -> Self {
        Self {
            shared: SharedSocket::new(descriptor, timeout),
            declared,
            actual: declared.judged(),
            namespace: Namespace::Broker,
            inheritable: AtomicBool::new(false),
            receiving: CallQueue::default(),
            sending: CallQueue::default(),
            readiness: OnceLock::new(),
            registering: Mutex::new(()),
            unread: Mutex::default(),
            rcvall: None,
            ends: Ends::default(),
            channels: Channels::default(),
            maker: OnceLock::new(),
            began: Instant::now(),
        }
    }

    /// Sets the domain, type and protocol that the kernel reports, if they differ from the declared ones.
    #[must_use]
    pub fn of_kind(mut self, actual: SocketSpec) -> Self {
        self.actual = actual.judged();
        self
    }

    /// Sets the network namespace that it belongs to.
    #[must_use]
    pub fn of_namespace(mut self, namespace: Namespace) -> Self {
        self.namespace = namespace;
        self
    }

    /// The network namespace that it belongs to, as rules judge it.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Makes this the emulation of `SIO_RCVALL`, whose socket is a packet socket.
    #[must_use]
    pub fn with_rcvall(mut self, rcvall: Rcvall) -> Self {
        self.actual = SocketSpec { domain: libc::AF_PACKET, ty: libc::SOCK_DGRAM, protocol: 0 };
        self.rcvall = Some(rcvall);
        self
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.shared.fd()
    }

    /// Joins both queues for a call that changes the state of the socket, such as `connect`: it waits for earlier
    /// sending calls, and later receiving calls wait for it. It does not wait for earlier receiving calls.
    pub fn join_both(&self, connection: u64) -> (Ticket<'_>, Ticket<'_>) {
        (self.sending.join(connection), self.receiving.join(connection))
    }

    /// What the client declared the socket to be: `fromfd` and `fileno=` accept anything.
    pub fn declared(&self) -> SocketSpec {
        self.declared
    }

    /// The time since the broker has it.
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// The domain, type and protocol that the kernel reports. The policy and the identity of calls use these.
    pub fn actual(&self) -> SocketSpec {
        self.actual
    }

    pub fn user(&self) -> &Arc<User> {
        self.shared.descriptor().user()
    }

    /// Kernel memory of its options, shared with duplicates.
    pub fn kernel_memory(&self) -> &KernelMemory {
        self.shared.descriptor().kernel_memory()
    }

    /// Counts this kernel memory for the socket, before anything shares it.
    pub fn set_kernel_memory(&mut self, memory: KernelMemory) {
        self.shared.set_kernel_memory(memory);
    }

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

    /// See [`SharedSocket::without_blocking`].
    pub(super) fn without_blocking<T>(
        &self,
        call: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        self.shared.without_blocking(call)
    }

    /// A reference for a thread that makes a call on the socket.
    pub(super) fn shared(&self) -> SharedSocket {
        self.shared.clone()
    }

    pub fn descriptor(&self) -> &Arc<Descriptor> {
        self.shared.descriptor()
    }

    /// Drops the socket, and waits until it is closed. While calls or unread answers use the socket, it stays open,
    /// and nothing waits for it.
    pub async fn close(entry: Arc<Self>) {
        if let Some(Self { shared, readiness, .. }) = Arc::into_inner(entry) {
            drop(readiness);
            if let Some(descriptor) = shared.into_descriptor() {
                descriptor.close().await;
            }
        }
    }

    /// Notes that its position in the stream is not known. Returns whether that is new.
    pub fn share_queue(&self) -> bool {
        let was_sole = self.ends.peeked().is_sole();
        self.ends.peeked().share(self.fd());
        was_sole
    }

    /// Shuts both directions down, so that waiting calls return.
    pub fn end(&self) {
        // Sockets without a connection have nothing to shut down.
        drop(socket::shutdown(self.fd(), libc::SHUT_RDWR));
    }

    /// The registration with the event loop, made at the first wait.
    pub(super) fn readiness(&self) -> io::Result<&AsyncFd<Arc<Descriptor>>> {
        if let Some(ready) = self.readiness.get() {
            return Ok(ready);
        }
        let interest =
            Interest::READABLE | Interest::WRITABLE | Interest::ERROR | Interest::PRIORITY;
        let _guard = self.registering.lock().unwrap_or_else(PoisonError::into_inner);
        if self.readiness.get().is_none() {
            let registered = register(self.shared.descriptor().clone(), interest)?;
            // The guard excludes other writers, so the cell is empty.
            drop(self.readiness.set(registered));
        }
        self.readiness
            .get()
            .ok_or_else(|| io::Error::other("the event loop refused the registration"))
    }

    /// A second entry for the same socket, as `dup(2)`: nothing on the shared description changes.
    pub(super) fn duplicate(&self, handle: Reservation) -> io::Result<Self> {
        self.ends.peeked().share(self.fd());
        let descriptor = self.shared.descriptor().duplicate(handle)?;
        let entry = Self::adopted(descriptor, self.declared, self.timeout());
        let mut entry = entry.of_kind(self.actual).of_namespace(self.namespace.clone());
        entry.share_with(self);
        Ok(entry)
    }

    /// Makes this entry share what the entries of one socket share.
    pub fn share_with(&mut self, original: &Self) {
        self.rcvall.clone_from(&original.rcvall);
        self.ends = original.ends.clone();
        self.shared.set_kernel_memory(original.kernel_memory().clone());
    }
}
