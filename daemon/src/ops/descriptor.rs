//! `dup`, and descriptors that are passed to the client (`fileno`, `detach`, `want_fd`).

use std::sync::Arc;

use sockbroker_policy::action::{Handover, Inspect};

use crate::descriptor::Descriptor;
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

/// The descriptor, to be passed to the client, which may receive from the socket then.
pub fn pass(permitted: &Permitted<Handover>) -> Arc<Descriptor> {
    permitted.socket().note_other_readers();
    pass_unread(permitted)
}

/// The descriptor, to be passed to a client that has undertaken not to receive from the socket.
pub fn pass_unread(permitted: &Permitted<Handover>) -> Arc<Descriptor> {
    {
        let mut known = permitted.socket().ends.known();
        let Known { fanout, port, .. } = &mut *known;
        fanout.iter_mut().chain(port).for_each(Claimed::keep);
    }
    permitted.pass()
}
