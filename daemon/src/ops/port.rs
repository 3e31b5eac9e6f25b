//! Ports that are bound with `SO_REUSEPORT`: which one a socket has, or is about to get.

use std::net::IpAddr;

use sockbroker_policy::action::Bind;
use sockbroker_policy::target::Target;
use sockbroker_proto::address::Address;
use sockbroker_sys::{option, socket};

use crate::table::claims::{Claim, Claimed};
use crate::table::permitted::{Permitted, Socket};

/// What a principal has to claim before it binds a socket: the port, if the socket has `SO_REUSEPORT`.
pub fn claim(permitted: &Permitted<Bind>) -> Option<Claim> {
    let Target::Address(address) = &permitted.request().target else { return None };
    is_shared(permitted.socket()).then(|| of_address(permitted.socket(), address))?
}

/// The port that the kernel chose for a socket with `SO_REUSEPORT`, which the principal claims afterwards.
pub fn chosen(permitted: &Permitted<Bind>) -> Option<Claim> {
    is_shared(permitted.socket()).then(|| bound(permitted.socket()))?
}

/// Notes the claim of a socket.
pub fn note(permitted: &Permitted<Bind>, claimed: Claimed) {
    permitted.socket().ends.known().port = Some(claimed);
}

/// The port to which a socket is bound.
pub(super) fn bound(socket: &Socket) -> Option<Claim> {
    let address = socket::local_address(socket.fd()).ok()?;
    of_address(socket, &address.decode(socket.declared().protocol)?)
}

fn is_shared(socket: &Socket) -> bool {
    let shared = option::get_int(socket.fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT);
    shared.is_ok_and(|value| value != 0)
}

fn of_address(socket: &Socket, address: &Address) -> Option<Claim> {
    let (address, port) = match address {
        Address::Inet { host, port } => (IpAddr::V4(*host), *port),
        Address::Inet6 { host, port, .. } => (host.to_canonical(), *port),
        _ => return None,
    };
    let address = Some(address).filter(|address| !address.is_unspecified());
    // The protocol that the kernel chose, if the client named none.
    let protocol = option::get_int(socket.fd(), libc::SOL_SOCKET, libc::SO_PROTOCOL).ok()?;
    (port > 0).then_some(Claim::Port { protocol, address, port })
}
