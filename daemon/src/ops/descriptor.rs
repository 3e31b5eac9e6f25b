//! Copies of a socket's descriptor: `dup`, and those that are passed to the client (`fileno`, `detach`, `want_fd`).

use std::os::fd::OwnedFd;
use std::sync::Arc;

use sockbroker_policy::action::{Handover, Inspect};
use sockbroker_sys::socket;

use crate::error::{During, OpResult};
use crate::quota::Reservation;
use crate::table::claims::Claimed;
use crate::table::ends::Known;
use crate::table::entry::Entry;
use crate::table::permitted::Permitted;

/// `dup`. The new entry has the same timeout.
pub fn duplicate(permitted: &Permitted<Inspect>, handle: Reservation) -> OpResult<Arc<Entry>> {
    permitted.duplicate(handle).during("dup").map(Arc::new)
}

/// A copy of the descriptor, to be passed to the client.
pub fn pass(permitted: &Permitted<Handover>) -> OpResult<OwnedFd> {
    let socket = permitted.socket();
    {
        let mut known = socket.ends.known();
        let Known { fanout, port, .. } = &mut *known;
        fanout.iter_mut().chain(port).for_each(Claimed::keep);
    }
    socket::duplicate(socket.fd()).during("dup")
}

/// Reserves a descriptor, which [`pass_in_place`] replaces.
pub fn reserve(permitted: &Permitted<Handover>) -> OpResult<OwnedFd> {
    socket::duplicate(permitted.socket().fd()).during("dup")
}

/// Like [`pass`], but replaces a reserved descriptor, so that it cannot fail with `EMFILE`.
pub fn pass_in_place(permitted: &Permitted<Handover>, spare: OwnedFd) -> OpResult<OwnedFd> {
    socket::duplicate_onto(permitted.socket().fd(), spare).during("dup")
}
