//! The state of a socket, which reading it does not change.

use std::sync::Arc;

use sockbroker_proto::address::Address;
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::socket;

use crate::table::entry::Entry;
use crate::table::permitted::{Permitted, Socket};
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

/// The state of a socket of the caller's session.
pub fn own_state(permitted: &Permitted<Inspect>) -> State {
    state(permitted.socket())
}

/// The states of any sockets.
pub fn states<'a>(
    permit: &Permit<Administer>,
    entries: impl Iterator<Item = &'a Arc<Entry>>,
) -> Vec<State> {
    entries.map(|entry| state(&Socket::administered(permit, entry))).collect()
}

fn state(socket: &Socket) -> State {
    if let Some(heard) = &socket.rcvall {
        return State { local: Some(heard.address()), peer: None, listening: false };
    }
    // What the kernel does not tell of this kind of socket is absent, not an error.
    let decode = |address: RawAddress| address.decode(socket.declared().protocol);
    State {
        local: socket::local_address(socket.fd()).ok().and_then(decode),
        peer: socket::peer_address(socket.fd()).ok().and_then(decode),
        listening: socket::is_listening(socket.fd()).unwrap_or(false),
    }
}
