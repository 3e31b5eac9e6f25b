//! Creation, connection and shutdown of sockets, and the properties of a descriptor's socket.

use sockbroker_proto::socket_spec::SocketSpec;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::address::RawAddress;
use crate::call::{check, invalid, retry};
use crate::option;

/// `socket(2)`. `kind` is the type, with `SOCK_NONBLOCK` if wanted; close-on-exec is always added.
pub fn create(family: i32, kind: i32, proto: i32) -> io::Result<OwnedFd> {
    let kind = Type::from(kind | libc::SOCK_CLOEXEC);
    Socket::new_raw(Domain::from(family), kind, Some(Protocol::from(proto))).map(OwnedFd::from)
}

/// `socketpair(2)`, with the parameters of [`create`].
pub fn pair(family: i32, kind: i32, proto: i32) -> io::Result<(OwnedFd, OwnedFd)> {
    let kind = Type::from(kind | libc::SOCK_CLOEXEC);
    let (a, b) = Socket::pair_raw(Domain::from(family), kind, Some(Protocol::from(proto)))?;
    Ok((a.into(), b.into()))
}

/// `bind(2)`. `InvalidInput` for an address that names a descriptor
/// ([`RawAddress::names_descriptor`]).
pub fn bind(fd: BorrowedFd<'_>, address: &RawAddress) -> io::Result<()> {
    refuse_descriptor(address)?;
    let (name, length) = address.argument();
    // SAFETY: `name` points to `length` initialised bytes of `address`, borrowed for the call; the
    // kernel only reads them.
    let result = unsafe { libc::bind(fd.as_raw_fd(), name, length) };
    check(result).map(|_zero| ())
}

/// `connect(2)`. `EINPROGRESS` and `EINTR` are returned as errors; the connection attempt continues.
/// `InvalidInput` for an address that names a descriptor.
pub fn connect(fd: BorrowedFd<'_>, address: &RawAddress) -> io::Result<()> {
    refuse_descriptor(address)?;
    let (name, length) = address.argument();
    // SAFETY: `name` points to `length` initialised bytes of `address`, borrowed for the call; the
    // kernel only reads them.
    let result = unsafe { libc::connect(fd.as_raw_fd(), name, length) };
    check(result).map(|_zero| ())
}

/// `listen(2)`. The kernel limits `backlog` to `net.core.somaxconn`; a negative value means this limit.
pub fn listen(fd: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
    SockRef::from(&fd).listen(backlog)
}

/// `accept4(2)` with `SOCK_CLOEXEC`: the connection, which is blocking even if the listener is not, and the
/// peer's address.
pub fn accept(fd: BorrowedFd<'_>) -> io::Result<(OwnedFd, RawAddress)> {
    let (number, address) = RawAddress::filled_by(|name, length| {
        // SAFETY: `name` points to `*length` writable bytes and `length` to an initialised integer;
        // both live in `filled_by` for the call. The kernel writes no more than `*length` bytes.
        retry(|| check(unsafe { libc::accept4(fd.as_raw_fd(), name, length, libc::SOCK_CLOEXEC) }))
    })?;
    // SAFETY: the kernel has just created descriptor `number` for this call; it has no other owner.
    let connection = unsafe { OwnedFd::from_raw_fd(number) };
    Ok((connection, address))
}

/// [`accept`] without the peer's address, for `AF_ALG`: it has no addresses, and `accept` fails with `ECONNABORTED`.
pub fn accept_without_name(fd: BorrowedFd<'_>) -> io::Result<(OwnedFd, RawAddress)> {
    let (name, length) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: without a name the kernel writes nothing; the descriptor is borrowed for the call.
    let call = || unsafe { libc::accept4(fd.as_raw_fd(), name, length, libc::SOCK_CLOEXEC) };
    let number = retry(|| check(call()))?;
    // SAFETY: the kernel has just created descriptor `number` for this call; it has no other owner.
    let connection = unsafe { OwnedFd::from_raw_fd(number) };
    Ok((connection, RawAddress::default()))
}

/// `shutdown(2)`. `how` is passed unchecked; the kernel returns `EINVAL` for an invalid value.
pub fn shutdown(fd: BorrowedFd<'_>, how: i32) -> io::Result<()> {
    // SAFETY: no pointers; the descriptor is borrowed for the call.
    let result = unsafe { libc::shutdown(fd.as_raw_fd(), how) };
    check(result).map(|_zero| ())
}

/// `getsockname(2)`.
pub fn local_address(fd: BorrowedFd<'_>) -> io::Result<RawAddress> {
    let filled = RawAddress::filled_by(|name, length| {
        // SAFETY: `name` points to `*length` writable bytes and `length` to an initialised integer;
        // both live in `filled_by` for the call. The kernel writes no more than `*length` bytes.
        check(unsafe { libc::getsockname(fd.as_raw_fd(), name, length) })
    });
    filled.map(|(_zero, address)| address)
}

/// `getpeername(2)`.
pub fn peer_address(fd: BorrowedFd<'_>) -> io::Result<RawAddress> {
    let filled = RawAddress::filled_by(|name, length| {
        // SAFETY: `name` points to `*length` writable bytes and `length` to an initialised integer;
        // both live in `filled_by` for the call. The kernel writes no more than `*length` bytes.
        check(unsafe { libc::getpeername(fd.as_raw_fd(), name, length) })
    });
    filled.map(|(_zero, address)| address)
}

/// Gives an unbound `AF_UNIX` socket an abstract name that the kernel chooses (autobind, `unix(7)`).
/// Other sockets do not change.
pub fn name_unix_socket(fd: BorrowedFd<'_>) -> io::Result<()> {
    let nameless = libc::sa_family_t::try_from(libc::AF_UNIX).map_err(io::Error::other)?;
    match RawAddress::from_bytes(&nameless.to_ne_bytes()) {
        Some(nameless) if local_address(fd)? == nameless => bind(fd, &nameless),
        _ => Ok(()),
    }
}

/// `F_DUPFD_CLOEXEC` (`fcntl(2)`): another descriptor of the same open file, numbered 3 or above.
pub fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    fd.try_clone_to_owned()
}

/// Whether `O_NONBLOCK` is set on the open file description, which other processes may share.
pub fn is_nonblocking(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    Ok(flags.contains(OFlag::O_NONBLOCK))
}

/// Sets or clears `O_NONBLOCK` with `FIONBIO` (`ioctl_tty(2)`). Unlike `F_SETFL`, this does not
/// overwrite other flags that a sharing process may just have changed.
pub fn set_nonblocking(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let value = libc::c_int::from(on);
    // SAFETY: FIONBIO reads one int through the pointer, which is `value`, alive for the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONBIO, &raw const value) };
    check(result).map(|_zero| ())
}

/// The domain, type and protocol of the socket (`socket(7)`); `ENOTSOCK` for any other file.
pub fn spec_of(fd: BorrowedFd<'_>) -> io::Result<SocketSpec> {
    let get = |name| option::get_int(fd, libc::SOL_SOCKET, name);
    Ok(SocketSpec {
        domain: get(libc::SO_DOMAIN)?,
        ty: get(libc::SO_TYPE)?,
        protocol: get(libc::SO_PROTOCOL)?,
    })
}

/// The cookie of a socket (`SO_COOKIE`, `socket(7)`): the same for every descriptor of the socket in every
/// process, and never used again for another socket.
pub fn cookie(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let bytes = option::get_bytes(fd, libc::SOL_SOCKET, libc::SO_COOKIE, 8)?;
    bytes.try_into().map(u64::from_ne_bytes).map_err(|_short| invalid("a cookie has 8 bytes"))
}

/// Whether this is a TCP, UDP or raw socket over IP (`SO_DOMAIN`, `SO_TYPE`, `SO_PROTOCOL`) that the kernel closes without
/// waiting unless it lingers. A raw socket that can be a multicast router (`MRT_INIT`, `MRT6_INIT`) waits for the lock of the
/// network configuration.
pub fn closes_without_waiting(fd: BorrowedFd<'_>) -> bool {
    let get = |name| option::get_int(fd, libc::SOL_SOCKET, name).ok();
    match (get(libc::SO_DOMAIN), get(libc::SO_TYPE), get(libc::SO_PROTOCOL)) {
        (Some(libc::AF_INET), Some(libc::SOCK_RAW), Some(protocol)) => {
            protocol != libc::IPPROTO_IGMP
        }
        (Some(libc::AF_INET6), Some(libc::SOCK_RAW), Some(protocol)) => {
            protocol != libc::IPPROTO_ICMPV6
        }
        (Some(libc::AF_INET | libc::AF_INET6), _, Some(protocol)) => {
            matches!(protocol, libc::IPPROTO_TCP | libc::IPPROTO_UDP)
        }
        _ => false,
    }
}

/// Whether the last close of the socket may wait for its peer (`SO_LINGER`, `socket(7)`). `false` if it is not a socket.
pub fn lingers(fd: BorrowedFd<'_>) -> bool {
    SockRef::from(&fd).linger().is_ok_and(|time| time.is_some_and(|time| !time.is_zero()))
}

/// Clears `SO_LINGER`: the last close does not wait, and the kernel sends the rest in the background.
pub fn clear_linger(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).set_linger(None)
}

/// Makes the last close drop what was not sent and, on TCP, reset the connection (`SO_LINGER` of 0, `socket(7)`).
pub fn reset_on_close(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).set_linger(Some(Duration::ZERO))
}

/// Returns and clears the pending error (`SO_ERROR`): an errno, 0 for none.
pub fn take_error(fd: BorrowedFd<'_>) -> io::Result<i32> {
    option::get_int(fd, libc::SOL_SOCKET, libc::SO_ERROR)
}

/// Whether the socket listens (`SO_ACCEPTCONN`).
pub fn is_listening(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(option::get_int(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN)? != 0)
}

/// Whether the descriptor is a Unix stream socket that listens.
pub fn is_unix_listener(fd: BorrowedFd<'_>) -> bool {
    let unix_stream =
        |kind: SocketSpec| (kind.domain, kind.ty) == (libc::AF_UNIX, libc::SOCK_STREAM);
    spec_of(fd).is_ok_and(unix_stream) && is_listening(fd).unwrap_or(false)
}

/// Whether the descriptor is a TCP socket that listens.
pub fn is_tcp_listener(fd: BorrowedFd<'_>) -> bool {
    let tcp = |kind: SocketSpec| {
        [libc::AF_INET, libc::AF_INET6].contains(&kind.domain) && kind.ty == libc::SOCK_STREAM
    };
    spec_of(fd).is_ok_and(tcp) && is_listening(fd).unwrap_or(false)
}

fn refuse_descriptor(address: &RawAddress) -> io::Result<()> {
    if address.names_descriptor() {
        return Err(invalid("the address names a descriptor by its number"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
