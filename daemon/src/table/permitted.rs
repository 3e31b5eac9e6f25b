//! Sockets together with a request on them that the policy allowed. Operations have no other access to a socket.
//!
//! Only this module joins a permit with an entry, and only the joined value gives access to the descriptor. An
//! operation therefore acts on the socket that was judged, and takes its operands from the request that was
//! judged:
//!
//! ```
//! use sockbroker_policy::action::{Inspect, SetOption};
//! use sockbrokerd::network::caller_identity::CallerIdentity;
//! use sockbrokerd::table::permitted::{Permitted, Socket};
//!
//! fn fd_of(permitted: &Permitted<Inspect>) -> std::os::fd::BorrowedFd<'_> {
//!     permitted.socket().fd()
//! }
//! fn set(permitted: &Permitted<SetOption>, caller: &CallerIdentity) {
//!     sockbrokerd::ops::option::set(permitted, None, caller).ok();
//! }
//! ```
//!
//! An entry of the table gives no access to its descriptor:
//!
//! ```compile_fail,E0624
//! fn fd_of(entry: &sockbrokerd::table::entry::Entry) -> std::os::fd::BorrowedFd<'_> {
//!     entry.fd()
//! }
//! ```
//!
//! A permit for one socket cannot be joined with another:
//!
//! ```compile_fail,E0451
//! use sockbroker_policy::action::Inspect;
//! use sockbrokerd::table::permitted::{Permitted, Socket};
//!
//! fn swap(permitted: Permitted<Inspect>, socket: Socket) -> Permitted<Inspect> {
//!     Permitted { socket, ..permitted }
//! }
//! ```
//!
//! The request that was judged cannot be changed:
//!
//! ```compile_fail,E0594
//! use sockbroker_policy::action::SetOption;
//! use sockbrokerd::table::permitted::Permitted;
//!
//! fn change(permitted: Permitted<SetOption>) {
//!     permitted.request().name = 1;
//! }
//! ```
//!
//! A permit to read an option is not a permit to set it:
//!
//! ```compile_fail,E0308
//! use sockbroker_policy::action::GetOption;
//! use sockbrokerd::network::caller_identity::CallerIdentity;
//! use sockbrokerd::table::permitted::Permitted;
//!
//! fn set(permitted: &Permitted<GetOption>, caller: &CallerIdentity) {
//!     sockbrokerd::ops::option::set(permitted, None, caller).ok();
//! }
//! ```

use std::io;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use sockbroker_policy::action::{Accept, Administer, Handover, Inspect, Request};
use sockbroker_policy::rights::Rights;
use sockbroker_policy::{Denial, Permit};
use sockbroker_proto::socket_spec::SocketSpec;
use tokio::io::unix::AsyncFd;

use crate::descriptor::Descriptor;
use crate::quota::Reservation;
use crate::table::entry::Entry;
use crate::table::peeked::{Receipt, Turn};
use crate::table::shared::SharedSocket;

/// An entry with access to its descriptor.
#[derive(Debug, Clone)]
pub struct Socket(Arc<Entry>);

impl Deref for Socket {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.0
    }
}

impl Socket {
    /// Whether both are the same entry.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }

    /// The right to receive.
    pub fn turn(&self) -> Turn<'_> {
        self.0.ends.peeked().turn(self.fd())
    }

    /// Notes that a response carries the first `length` bytes of the queue. They stay there until it is sent, or as long as
    /// `stopping` says that this process is about to end.
    pub fn keep_until_sent(
        &self,
        mut turn: Turn<'_>,
        length: usize,
        stopping: &Arc<AtomicBool>,
    ) -> Receipt {
        let number = turn.note(length);
        Receipt::new((self.0.ends.peeked(), number), self.0.descriptor(), stopping)
    }

    /// Notes that others can receive from the socket, or change what a receive finds.
    pub fn note_other_readers(&self) {
        self.0.ends.peeked().share(self.fd());
    }

    /// The descriptor and the timeout, shared with a thread that makes a call on the socket.
    pub fn shared(&self) -> SharedSocket {
        self.0.shared()
    }

    /// Notes that an option is about to be set that can make the close wait.
    pub fn note_lingering(&self) {
        self.0.descriptor().note_lingering();
    }

    /// Whether others may have the socket, so that its close here is not the last.
    pub fn is_shared(&self) -> bool {
        self.0.descriptor().is_shared()
    }

    /// The registration with the event loop. The first wait makes it.
    pub fn readiness(&self) -> io::Result<&AsyncFd<Arc<Descriptor>>> {
        self.0.readiness()
    }

    /// Runs a system call that takes no `MSG_DONTWAIT` with `O_NONBLOCK` set. Other holders of the descriptor
    /// see the flag only during that call.
    pub fn without_blocking<T>(
        &self,
        call: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        self.0.without_blocking(call)
    }

    /// A socket of any session, for an administrator.
    pub fn administered(_: &Permit<Administer>, entry: &Arc<Entry>) -> Self {
        Self(entry.clone())
    }
}

/// A socket, and a request on it that the policy allowed.
#[derive(Debug)]
#[must_use = "a permit has no effect unless an operation uses it"]
pub struct Permitted<R> {
    socket: Socket,
    permit: Permit<R>,
}

impl<R: Request> Permitted<R> {
    /// Authorizes a request on a socket. `request` gets the kernel's type of the socket.
    pub fn authorize(
        entry: &Arc<Entry>,
        rights: &Rights,
        request: impl FnOnce(SocketSpec) -> R,
    ) -> Result<Self, Box<Denial>> {
        let permit = rights.within(entry.namespace()).authorize(request(entry.actual()))?;
        Ok(Self { socket: Socket(entry.clone()), permit })
    }
}

impl<R> Permitted<R> {
    /// The socket that was judged.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The request that was judged.
    pub fn request(&self) -> &R {
        self.permit.request()
    }

    pub fn permit(&self) -> &Permit<R> {
        &self.permit
    }

    /// The socket and the request, for an operation that consumes its operands.
    pub fn into_parts(self) -> (Socket, R) {
        (self.socket, self.permit.into_request())
    }
}

impl Permitted<Inspect> {
    /// A second entry for the same socket, as `dup(2)`.
    pub fn duplicate(&self, handle: Reservation) -> io::Result<Entry> {
        self.socket.0.duplicate(handle)
    }
}

impl Permitted<Handover> {
    /// The descriptor, to be passed to the client.
    pub fn pass(&self) -> Arc<Descriptor> {
        let descriptor = self.socket.0.descriptor();
        descriptor.note_passed();
        descriptor.clone()
    }

    /// Moves the permit to a socket that the judged socket accepted: it has the same type.
    ///
    /// # Panics
    ///
    /// If another socket accepted it.
    pub fn of_accepted(self, accepted: &Accepted) -> Self {
        assert!(accepted.listening.is(&self.socket), "another socket has accepted this one");
        Self { socket: Socket(accepted.entry.clone()), permit: self.permit }
    }
}

/// The entry of a socket that was accepted, and the listening socket.
#[derive(Debug)]
pub struct Accepted {
    entry: Arc<Entry>,
    listening: Socket,
}

impl Accepted {
    /// `entry` has a descriptor that `accept(2)` returned for this listening socket.
    pub fn new(permitted: &Permitted<Accept>, entry: Entry) -> Self {
        let listening = permitted.socket().clone();
        entry.descriptor().note_accepted_by(listening.0.descriptor());
        let entry = entry.of_kind(listening.actual()).of_namespace(listening.namespace().clone());
        Self { entry: Arc::new(entry), listening }
    }

    pub fn into_entry(self) -> Arc<Entry> {
        self.entry
    }

    pub fn entry(&self) -> &Entry {
        &self.entry
    }
}
