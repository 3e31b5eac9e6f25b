//! Detects descriptors from clients that are ends of connections to this broker.
//!
//! The broker MUST NOT hold such a descriptor: it would keep both ends of the connection open, and the session
//! with all its handles would stay after the client has exited.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;

use sockbroker_sys::address::RawAddress;
use sockbroker_sys::socket;

use crate::error::{OpError, OpResult};

/// The address of the broker's ends of connections. Accepted sockets have the address of their listening socket.
#[derive(Debug, Default)]
pub struct ControlEnds(OnceLock<RawAddress>);

impl ControlEnds {
    /// Notes the address of the socket that the broker listens on, or serves with `--stdio`. A socket without an
    /// address gets one.
    pub fn note(&self, own: BorrowedFd<'_>) -> io::Result<()> {
        socket::name_unix_socket(own)?;
        let address = socket::local_address(own)?;
        self.0.get_or_init(|| address);
        Ok(())
    }

    /// Returns the descriptor, or an error if it is the client's end of a connection to this broker. The peer
    /// address of such an end is the address of the broker's end, and a client CANNOT change it.
    pub fn checked<D: AsFd>(&self, descriptor: D) -> OpResult<D> {
        let peer = socket::peer_address(descriptor.as_fd()).ok();
        if self.0.get().is_some_and(|own| peer.as_ref() == Some(own)) {
            return Err(OpError::ControlConnection);
        }
        Ok(descriptor)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn checked_refuses_only_the_other_end_of_a_noted_socket() {
        let (own, client) = UnixStream::pair().unwrap();
        let (stranger, other) = UnixStream::pair().unwrap();
        let ends = ControlEnds::default();
        let copy = || OwnedFd::from(client.try_clone().unwrap());
        ends.checked(copy()).unwrap();
        ends.note(own.as_fd()).unwrap();
        assert!(matches!(ends.checked(copy()), Err(OpError::ControlConnection)));
        for descriptor in [stranger.into(), other.into(), OwnedFd::from(own)] {
            ends.checked(descriptor).unwrap();
        }
    }
}
