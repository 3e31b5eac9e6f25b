//! Network interfaces and their names and indexes (`if_nametoindex(3)`).
//!
//! [`of_socket`] answers for the network namespace of a socket; the other functions answer for that of the
//! calling thread.

pub mod of_socket;

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::AsFd;

use nix::net::if_::{if_nameindex, if_nametoindex};

use crate::ioctl::{InterfaceRequest, InterfaceValue, interface, set_interface_flags};
use crate::socket;

/// The index and name of every interface of this network namespace.
pub fn list() -> io::Result<Vec<(u32, String)>> {
    let interfaces = if_nameindex()?;
    let entries = interfaces.iter();
    Ok(entries.map(|entry| (entry.index(), entry.name().to_string_lossy().into_owned())).collect())
}

/// The same, read from `/proc`, which does not wait for the kernel's lock on the network configuration (`dev_seq_show()`).
pub fn of_thread() -> io::Result<Vec<(u32, String)>> {
    let text = fs::read_to_string("/proc/thread-self/net/dev")?;
    let names = text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    let mut found = Vec::new();
    for name in names {
        match index_of(name) {
            Ok(index) => found.push((index, name.to_owned())),
            // It has gone meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            Err(error) => return Err(error),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The index of the interface `name`; `ENODEV` if there is none.
pub fn index_of(name: &str) -> io::Result<u32> {
    Ok(if_nametoindex(name)?)
}

/// The name of the interface with this index; `ENXIO` if there is none.
pub fn name_of(index: u32) -> io::Result<String> {
    // Not through nix: version 0.31 reads the null of a failure as a name.
    let mut name = [0u8; libc::IF_NAMESIZE];
    // SAFETY: `name` has the IF_NAMESIZE bytes the library may write, and lives for the call.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) };
    if found.is_null() {
        return Err(io::Error::last_os_error());
    }
    let name = CStr::from_bytes_until_nul(&name).unwrap_or_default();
    Ok(name.to_string_lossy().into_owned())
}

/// Brings an interface up (`IFF_UP`); `EPERM` without `CAP_NET_ADMIN`, `ENODEV` if there is none of this name.
pub fn bring_up(name: &str) -> io::Result<()> {
    let probe = socket::create(libc::AF_UNIX, libc::SOCK_DGRAM, 0)?;
    let flags = match interface(probe.as_fd(), name, InterfaceRequest::Flags)? {
        InterfaceValue::Int(flags) => flags | libc::IFF_UP,
        InterfaceValue::Address(_) | InterfaceValue::Hardware { .. } => libc::IFF_UP,
    };
    let flags = u16::try_from(flags).map_err(io::Error::other)?;
    set_interface_flags(probe.as_fd(), name, flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::errno;

    #[test]
    fn loopback_has_a_name_and_an_index() {
        let index = index_of("lo").unwrap();
        assert_eq!(name_of(index).unwrap(), "lo");
        assert!(list().unwrap().contains(&(index, "lo".to_owned())));
        assert_eq!(of_thread().unwrap(), list().unwrap());
    }

    #[test]
    fn unknown_interfaces_have_the_errno_of_the_kernel() {
        assert_eq!(errno(index_of("nonexistent0")), libc::ENODEV);
        assert_eq!(errno(index_of("")), libc::ENODEV);
        assert_eq!(errno(index_of("a name that is much too long")), libc::ENODEV);
        assert_eq!(errno(name_of(0)), libc::ENXIO);
        assert_eq!(errno(name_of(u32::MAX)), libc::ENXIO);
    }
}
