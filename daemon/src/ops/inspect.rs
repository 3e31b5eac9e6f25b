//! The state of a socket. Reading it does not change the socket.

use std::sync::Arc;

use sockbroker_proto::address::Address;
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::socket;

use crate::table::entry::Entry;
use crate::table::permitted::{Permitted, Socket};
use sockbroker_policy::Permit;
use sockbroker_policy::action::{Administer, Inspect};

/// The addresses and the state of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// `getsockname(2)`; `None` if the socket has no address.
    pub local: Option<Address>,
    /// `getpeername(2)`; `None` if the socket has no peer.
    pub peer: Option<Address>,
    pub listening: bool,
}

/// The state of a socket of the caller's session.
pub fn own_state(permitted: &Permitted<Inspect>) -> State {
    state(permitted.socket())
}

/// The states of sockets of any session.
pub fn states<'a>(
    permit: &Permit<Administer>,
    entries: impl Iterator<Item = &'a Arc<Entry>>,
) -> Vec<State> {
    entries.map(|entry| state(&Socket::administered(permit, entry))).collect()
}

fn state(socket: &Socket) -> State {
    if let Some(rcvall) = &socket.rcvall {
        return State { local: Some(rcvall.address()), peer: None, listening: false };
    }
    // An address that the kernel does not report for this type of socket is absent. That is not an error.
    let decode = |address: RawAddress| address.decode(socket.declared().protocol);
    State {
        local: socket::local_address(socket.fd()).ok().and_then(decode),
        peer: socket::peer_address(socket.fd()).ok().and_then(decode),
        listening: socket::is_listening(socket.fd()).unwrap_or(false),
    }
}
