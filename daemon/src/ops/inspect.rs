//! What can be told of a socket without touching it.

use sockbroker_proto::address::Address;
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::socket;

use crate::ops::rcvall;
use crate::table::entry::Entry;
use sockbroker_policy::Permit;
use sockbroker_policy::action::{Administer, Inspect};

/// Names and state of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// `getsockname(2)`, where it gives one.
    pub local: Option<Address>,
    /// `getpeername(2)`, where there is a peer.
    pub peer: Option<Address>,
    /// Whether it accepts connections.
    pub listening: bool,
}

/// The state of a socket of one's own.
pub fn own_state(permit: Permit<Inspect>, entry: &Entry) -> State {
    let Inspect { socket: _ } = permit.into_request();
    state(entry)
}

/// The states of anybody's sockets.
pub fn states<'a>(
    permit: Permit<Administer>,
    entries: impl Iterator<Item = &'a Entry>,
) -> Vec<State> {
    let Administer = permit.into_request();
    entries.map(state).collect()
}

fn state(entry: &Entry) -> State {
    if let Some(heard) = &entry.rcvall {
        return State { local: Some(rcvall::address(heard)), peer: None, listening: false };
    }
    // What the kernel does not tell of this kind of socket is absent, not an error.
    let decode = |address: RawAddress| address.decode(entry.declared().protocol);
    State {
        local: socket::local_address(entry.fd()).ok().and_then(decode),
        peer: socket::peer_address(entry.fd()).ok().and_then(decode),
        listening: socket::is_listening(entry.fd()).unwrap_or(false),
    }
}
