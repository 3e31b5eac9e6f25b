//! A socket with the proof that one request on it was allowed: an operation has no other way to a socket.
//!
//! Only this file joins permit and entry, and only what is joined gives the descriptor away. So an operation
//! acts on the socket that was judged, and takes its operands from the request that was judged:
//!
//! ```
//! use sockbroker_policy::action::{Inspect, SetOption};
//! use sockbrokerd::table::permitted::{Permitted, Socket};
//!
//! fn fd_of(permitted: &Permitted<Inspect>) -> std::os::fd::BorrowedFd<'_> {
//!     permitted.socket().fd()
//! }
//! fn set(permitted: &Permitted<SetOption>) {
//!     sockbrokerd::ops::option::set(permitted).ok();
//! }
//! ```
//!
//! An entry of the table does not give its descriptor away:
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
//! A permit to read an option is not one to set it:
//!
//! ```compile_fail,E0308
//! use sockbroker_policy::action::GetOption;
//! use sockbrokerd::table::permitted::Permitted;
//!
//! fn set(permitted: &Permitted<GetOption>) {
//!     sockbrokerd::ops::option::set(permitted).ok();
//! }
//! ```

use std::io;
use std::ops::Deref;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use sockbroker_policy::action::{Administer, Handover, Inspect, Request};
use sockbroker_policy::rights::Rights;
use sockbroker_policy::{Denial, Permit};
use sockbroker_proto::socket_spec::SocketSpec;
use tokio::io::unix::AsyncFd;

use crate::quota::Reservation;
use crate::table::entry::Entry;
use crate::table::shared::SharedSocket;

/// An entry whose descriptor may be used.
#[derive(Debug, Clone)]
pub struct Socket(Arc<Entry>);

impl Deref for Socket {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.0
    }
}

impl Socket {
    /// The descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }

    /// The socket, for a thread that calls for it.
    pub fn shared(&self) -> SharedSocket {
        self.0.shared()
    }

    /// The registration with the event loop, made at the first wait.
    pub fn readiness(&self) -> io::Result<&AsyncFd<Arc<OwnedFd>>> {
        self.0.readiness()
    }

    /// Runs a system call that has no `MSG_DONTWAIT` of its own with `O_NONBLOCK` set. The flag is visible to
    /// other holders of the descriptor only for the length of that call.
    pub fn without_blocking<T>(
        &self,
        call: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        self.0.without_blocking(call)
    }

    /// Any socket, for an administrator who lists it.
    pub fn administered(_: &Permit<Administer>, entry: &Arc<Entry>) -> Self {
        Self(entry.clone())
    }
}

/// A socket, and a request on it that the policy allowed.
#[derive(Debug)]
#[must_use = "a permit is there to be spent on its operation"]
pub struct Permitted<R> {
    socket: Socket,
    permit: Permit<R>,
}

impl<R: Request> Permitted<R> {
    /// Authorizes a request on a socket. `request` gets what the kernel says the socket is.
    pub fn authorize(
        entry: &Arc<Entry>,
        rights: &Rights,
        request: impl FnOnce(SocketSpec) -> R,
    ) -> Result<Self, Box<Denial>> {
        let permit = rights.authorize(request(entry.actual()))?;
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

    /// The proof.
    pub fn permit(&self) -> &Permit<R> {
        &self.permit
    }

    /// Both, for an operation that consumes its operands.
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
    /// The same for a socket that the judged one accepted, which the kernel made like it.
    pub fn of_accepted(self, accepted: &Accepted) -> Self {
        Self { socket: Socket(accepted.0.clone()), permit: self.permit }
    }
}

/// The entry of a socket that a listening one accepted.
#[derive(Debug)]
pub struct Accepted(Arc<Entry>);

impl Accepted {
    /// Of a descriptor that `accept(2)` just gave on this socket.
    pub fn new(listening: &Socket, entry: Entry) -> Self {
        Self(Arc::new(entry.of_kind(listening.actual())))
    }

    /// The entry.
    pub fn into_entry(self) -> Arc<Entry> {
        self.0
    }

    /// The entry, still to be named.
    pub fn entry(&self) -> &Entry {
        &self.0
    }
}
