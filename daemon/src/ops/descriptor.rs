//! Descriptors of sockets: `dup`, and those that the client gets (`fileno`, `detach`, `want_fd`).

use std::os::fd::OwnedFd;
use std::sync::Arc;

use sockbroker_policy::action::{Handover, Inspect};
use sockbroker_sys::socket;

use crate::error::{During, OpResult};
use crate::quota::Reservation;
use crate::table::entry::Entry;
use crate::table::permitted::Permitted;

/// `dup`, with the same timeout.
pub fn duplicate(permitted: &Permitted<Inspect>, handle: Reservation) -> OpResult<Arc<Entry>> {
    permitted.duplicate(handle).during("dup").map(Arc::new)
}

/// A descriptor for the client.
pub fn pass(permitted: &Permitted<Handover>) -> OpResult<OwnedFd> {
    let socket = permitted.socket();
    if let Some(member) = &mut socket.ends.known().fanout {
        member.keep();
    }
    socket::duplicate(socket.fd()).during("dup")
}

/// A descriptor for [`pass_in_place`] to replace.
pub fn reserve(permitted: &Permitted<Handover>) -> OpResult<OwnedFd> {
    socket::duplicate(permitted.socket().fd()).during("dup")
}

/// The same as [`pass`], in the place of a descriptor that was kept for it.
pub fn pass_in_place(permitted: &Permitted<Handover>, spare: OwnedFd) -> OpResult<OwnedFd> {
    socket::duplicate_onto(permitted.socket().fd(), spare).during("dup")
}
