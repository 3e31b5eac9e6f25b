//! Interfaces of the network namespace of a socket, which can differ from that of the caller.
//!
//! The functions send `ioctl(2)` requests to the socket itself. A few protocols refuse requests that they
//! do not know, some of them only in some states: the function then returns the protocol's error.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;

use crate::ioctl::{
    InterfaceRequest, InterfaceValue, interface, interface_addresses, interface_name,
};
use crate::{interface as of_thread, namespace};

/// The name of the interface with this index; `ENODEV` if there is none.
pub fn name_of(fd: BorrowedFd<'_>, index: u32) -> io::Result<String> {
    interface_name(fd, index)
}

/// The index of the interface `name`, also by its alternative name (`ip-link(8)`, altname);
/// `ENODEV` if there is none.
pub fn index_of(fd: BorrowedFd<'_>, name: &str) -> io::Result<u32> {
    let missing = || io::Error::from_raw_os_error(libc::ENODEV);
    // A name that no interface can have.
    if name.is_empty() || name.len() >= libc::IF_NAMESIZE || name.contains('\0') {
        return Err(missing());
    }
    match interface(fd, name, InterfaceRequest::Index)? {
        InterfaceValue::Int(index) => u32::try_from(index).map_err(|_negative| missing()),
        InterfaceValue::Address(_) | InterfaceValue::Hardware { .. } => Err(missing()),
    }
}

/// The indexes of the interfaces that have this IPv4 address.
pub fn owners_of(fd: BorrowedFd<'_>, host: Ipv4Addr) -> io::Result<Vec<u32>> {
    let addresses = interface_addresses(fd)?.into_iter();
    addresses.filter(|(_, found)| *found == host).map(|(label, _)| index_of(fd, &label)).collect()
}

/// Whether an interface is a loopback (`IFF_LOOPBACK`, `netdevice(7)`); `ENODEV` if there is none of this
/// index.
pub fn is_loopback(fd: BorrowedFd<'_>, index: u32) -> io::Result<bool> {
    let name = name_of(fd, index)?;
    match interface(fd, &name, InterfaceRequest::Flags)? {
        InterfaceValue::Int(flags) => Ok(flags & libc::IFF_LOOPBACK != 0),
        InterfaceValue::Address(_) | InterfaceValue::Hardware { .. } => Ok(false),
    }
}

/// The first IPv4 address of the interface with this index; `EADDRNOTAVAIL` if it has none.
pub fn address_of(fd: BorrowedFd<'_>, index: u32) -> io::Result<Ipv4Addr> {
    let name = name_of(fd, index)?;
    let found = interface_addresses(fd)?.into_iter().find(|(label, _)| *label == name);
    found.map(|(_, host)| host).ok_or_else(|| io::Error::from_raw_os_error(libc::EADDRNOTAVAIL))
}

/// The index and name of every interface. `EXDEV` for a socket of another namespace than the caller's: the
/// kernel lists interfaces only to threads of their namespace.
pub fn list(fd: BorrowedFd<'_>) -> io::Result<Vec<(u32, String)>> {
    if namespace::is_own_network(fd)? {
        of_thread::list()
    } else {
        Err(io::Error::from_raw_os_error(libc::EXDEV))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use super::*;
    use crate::socket;
    use crate::testing::errno;

    fn socket() -> OwnedFd {
        socket::create(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap()
    }

    #[test]
    fn in_the_own_namespace_interfaces_are_those_of_the_thread() {
        let socket = socket();
        let (fd, index) = (socket.as_fd(), of_thread::index_of("lo").unwrap());
        assert_eq!(name_of(fd, index).unwrap(), "lo");
        assert_eq!(index_of(fd, "lo").unwrap(), index);
        assert_eq!(owners_of(fd, Ipv4Addr::LOCALHOST).unwrap(), [index]);
        assert_eq!(address_of(fd, index).unwrap(), Ipv4Addr::LOCALHOST);
        assert_eq!(list(fd).unwrap(), of_thread::list().unwrap());
        assert!(is_loopback(fd, index).unwrap());
    }

    #[test]
    fn unknown_interfaces_and_addresses_have_the_errno_of_the_kernel() {
        let socket = socket();
        let fd = socket.as_fd();
        for name in ["nonexistent0", "", "a name that is much too long", "l\0"] {
            assert_eq!(errno(index_of(fd, name)), libc::ENODEV, "{name:?}");
        }
        assert_eq!(errno(name_of(fd, 0)), libc::ENODEV);
        assert_eq!(errno(name_of(fd, u32::MAX)), libc::ENODEV);
        assert_eq!(errno(address_of(fd, u32::MAX)), libc::ENODEV);
        assert_eq!(errno(is_loopback(fd, u32::MAX)), libc::ENODEV);
        assert_eq!(owners_of(fd, Ipv4Addr::UNSPECIFIED).unwrap(), [0; 0]);
        assert_eq!(owners_of(fd, Ipv4Addr::new(192, 0, 2, 1)).unwrap(), [0; 0]);
    }

    #[test]
    fn socket_of_another_namespace_reports_the_interfaces_of_that_namespace() {
        let thread = std::thread::spawn(|| match namespace::enter_network() {
            Ok(()) => Some(socket()),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EPERM));
                None
            }
        });
        let Some(socket) = thread.join().unwrap() else { return };
        let fd = socket.as_fd();
        assert_eq!(name_of(fd, 1).unwrap(), "lo");
        // The interface is down and therefore has no address.
        assert_eq!(owners_of(fd, Ipv4Addr::LOCALHOST).unwrap(), [0; 0]);
        assert_eq!(errno(address_of(fd, 1)), libc::EADDRNOTAVAIL);
        assert_eq!(errno(list(fd)), libc::EXDEV);
    }
}
