//! The state of the emulation of `SIO_RCVALL`; `ops::rcvall` implements it.

use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use sockbroker_proto::address::Address;
use sockbroker_sys::interface::of_socket;

use crate::error::{During, OpResult};

/// The state, shared by duplicates of a socket.
#[derive(Debug, Clone, Default)]
pub struct Rcvall(Arc<Mutex<State>>);

/// What the kernel would keep for such a socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The address it was bound to.
    pub host: Ipv4Addr,
    /// The port it was bound to, which has no meaning for a raw socket.
    pub port: u16,
    /// The interface that owns the address.
    pub ifindex: Option<u32>,
    /// `IP_HDRINCL`.
    pub header_included: bool,
    /// The interface that `RCVALL_ON` made promiscuous.
    pub promiscuous: Option<u32>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            host: Ipv4Addr::UNSPECIFIED,
            port: 0,
            ifindex: None,
            header_included: false,
            promiscuous: None,
        }
    }
}

impl From<State> for Rcvall {
    fn from(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }
}

impl Rcvall {
    /// Locks the state.
    pub fn state(&self) -> MutexGuard<'_, State> {
        // Every field is set in one statement, so a panic of another call does not spoil the state.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `getsockname()`.
    pub fn address(&self) -> Address {
        let state = self.state();
        Address::Inet { host: state.host, port: state.port }
    }
}

/// The index of the interface that owns an address.
pub fn interface_at(fd: BorrowedFd<'_>, host: Ipv4Addr) -> OpResult<Option<u32>> {
    // All of 127.0.0.0/8 belongs to the loopback interface, which lists 127.0.0.1 alone.
    let listed = if host.is_loopback() { Ipv4Addr::LOCALHOST } else { host };
    Ok(of_socket::owners_of(fd, listed).during("ioctl")?.first().copied())
}
