//! The requests of `ioctl(2)` that have a typed result, in two closed sets.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::call::{check, invalid, zeroed};

/// A request that returns an int.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IntRequest {
    /// Readable bytes (`FIONREAD`, `SIOCINQ`); of a datagram socket, the size of the next datagram.
    Fionread,
    /// Bytes not sent yet, or not read by the peer yet (`SIOCOUTQ`; `tcp(7)`, `udp(7)`, `unix(7)`).
    Siocoutq,
    /// 1 if the stream is at the urgent mark (`sockatmark(3)`), else 0.
    Siocatmark,
}

/// Sends the request to the socket. `ENOTTY` or `EINVAL` if the socket does not know it.
pub fn get_int(fd: BorrowedFd<'_>, request: IntRequest) -> io::Result<i32> {
    let request = match request {
        IntRequest::Fionread => libc::FIONREAD,
        IntRequest::Siocoutq => libc::TIOCOUTQ,
        IntRequest::Siocatmark => SIOCATMARK,
    };
    let mut value: libc::c_int = 0;
    // SAFETY: each of the three requests writes one int through the pointer, which is `value`,
    // alive for the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw mut value) };
    check(result)?;
    Ok(value)
}

/// A request about an interface (`netdevice(7)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InterfaceRequest {
    /// `SIOCGIFINDEX`: [`InterfaceValue::Int`].
    Index,
    /// `SIOCGIFFLAGS`: [`InterfaceValue::Int`], the `IFF_` bits.
    Flags,
    /// `SIOCGIFMTU`: [`InterfaceValue::Int`], bytes.
    Mtu,
    /// `SIOCGIFADDR`: [`InterfaceValue::Address`]; needs an `AF_INET` socket.
    Address,
    /// `SIOCGIFNETMASK`: [`InterfaceValue::Address`]; needs an `AF_INET` socket.
    Netmask,
    /// `SIOCGIFBRDADDR`: [`InterfaceValue::Address`]; needs an `AF_INET` socket.
    Broadcast,
    /// `SIOCGIFHWADDR`: [`InterfaceValue::Hardware`].
    Hardware,
}

/// The answer to an [`InterfaceRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InterfaceValue {
    /// A number in host order.
    Int(i32),
    /// An IPv4 address.
    Address(Ipv4Addr),
    /// A hardware address.
    Hardware {
        /// The hardware type, `ARPHRD_` (1 is Ethernet, 772 loopback).
        hatype: u16,
        /// The first six bytes of the address.
        address: [u8; 6],
    },
}

/// Sends a request about the interface `name`: `ENODEV` if there is none, `EADDRNOTAVAIL` if it has no
/// such address, `InvalidInput` if the name is over 15 bytes or contains a NUL.
pub fn interface(
    fd: BorrowedFd<'_>,
    name: &str,
    request: InterfaceRequest,
) -> io::Result<InterfaceValue> {
    let value = ask(fd, name, request)?;
    let answer = match request {
        InterfaceRequest::Index | InterfaceRequest::Mtu => {
            value.first_chunk().map(|int| InterfaceValue::Int(i32::from_ne_bytes(*int)))
        }
        InterfaceRequest::Flags => value
            .first_chunk()
            .map(|flags| InterfaceValue::Int(i32::from(u16::from_ne_bytes(*flags)))),
        InterfaceRequest::Address | InterfaceRequest::Netmask | InterfaceRequest::Broadcast => {
            // struct sockaddr_in: family and port before the address.
            let (_, address) = value.split_at(4);
            address.first_chunk::<4>().map(|octets| InterfaceValue::Address((*octets).into()))
        }
        InterfaceRequest::Hardware => value.split_first_chunk().and_then(|(hatype, address)| {
            let (hatype, address) = (u16::from_ne_bytes(*hatype), *address.first_chunk()?);
            Some(InterfaceValue::Hardware { hatype, address })
        }),
    };
    answer.ok_or_else(|| invalid("the kernel returned too few bytes"))
}

/// `struct ifreq` of `net/if.h` as bytes: a name, and a union of at most 24 bytes.
#[repr(C, align(8))]
struct Request {
    name: [u8; libc::IF_NAMESIZE],
    value: [u8; 24],
}

impl Request {
    fn about(name: &str) -> io::Result<Self> {
        if name.len() >= libc::IF_NAMESIZE || name.contains('\0') {
            return Err(invalid("an interface name has at most 15 bytes and no NUL"));
        }
        let mut request = Self { name: [0; libc::IF_NAMESIZE], value: [0; 24] };
        for (slot, byte) in request.name.iter_mut().zip(name.bytes()) {
            *slot = byte;
        }
        Ok(request)
    }
}

/// Sets the flags of an interface (`SIOCSIFFLAGS`, `IFF_` bits); `EPERM` without `CAP_NET_ADMIN`.
pub fn set_interface_flags(fd: BorrowedFd<'_>, name: &str, flags: u16) -> io::Result<()> {
    let mut request = Request::about(name)?;
    let (low, _rest) = request.value.split_at_mut(2);
    low.copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: the request reads one struct ifreq through the pointer; `request` is as large and as
    // aligned, initialised, ends its name with a NUL, and lives for the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) };
    check(result).map(drop)
}

fn ask(fd: BorrowedFd<'_>, name: &str, request: InterfaceRequest) -> io::Result<[u8; 24]> {
    let number = match request {
        InterfaceRequest::Index => libc::SIOCGIFINDEX,
        InterfaceRequest::Flags => libc::SIOCGIFFLAGS,
        InterfaceRequest::Mtu => libc::SIOCGIFMTU,
        InterfaceRequest::Address => libc::SIOCGIFADDR,
        InterfaceRequest::Netmask => libc::SIOCGIFNETMASK,
        InterfaceRequest::Broadcast => libc::SIOCGIFBRDADDR,
        InterfaceRequest::Hardware => libc::SIOCGIFHWADDR,
    };
    let mut question = Request::about(name)?;
    // SAFETY: these requests read and write one struct ifreq through the pointer; `question` is as
    // large and as aligned, initialised, ends its name with a NUL, and lives for the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), number, &raw mut question) };
    check(result)?;
    Ok(question.value)
}

/// The name of the interface with this index (`SIOCGIFNAME`) in the socket's own network namespace;
/// `ENODEV` if there is none.
pub fn interface_name(fd: BorrowedFd<'_>, index: u32) -> io::Result<String> {
    let mut request = Request { name: [0; libc::IF_NAMESIZE], value: [0; 24] };
    let (start, _rest) = request.value.split_at_mut(4);
    start.copy_from_slice(&index.to_ne_bytes());
    // SAFETY: the request reads and writes one struct ifreq through the pointer; `request` is as large
    // and as aligned, initialised, and lives for the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), SIOCGIFNAME, &raw mut request) };
    check(result)?;
    Ok(text(&request.name))
}

/// `struct ifconf` of `net/if.h`.
#[repr(C)]
struct Listing {
    length: libc::c_int,
    buffer: *mut u8,
}

/// The size of a `struct ifreq`, which describes one address in a list.
const ENTRY: usize = size_of::<libc::ifreq>();
/// The maximum number of addresses in a list.
const MOST_ENTRIES: usize = 1 << 16;

/// The IPv4 addresses of the socket's own network namespace, each with its label (`SIOCGIFCONF`,
/// `netdevice(7)`): the name of its interface, or this name with `:` and a suffix.
pub fn interface_addresses(fd: BorrowedFd<'_>) -> io::Result<Vec<(String, Ipv4Addr)>> {
    let mut entries = 64;
    loop {
        let mut buffer = zeroed(entries * ENTRY)?;
        let length = libc::c_int::try_from(buffer.len()).map_err(io::Error::other)?;
        let mut listing = Listing { length, buffer: buffer.as_mut_ptr() };
        // SAFETY: the request reads and writes one struct ifconf through the pointer, which `listing`
        // is; the kernel writes at most `length` bytes to `buffer`, which has as many and lives for
        // the call.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), SIOCGIFCONF, &raw mut listing) };
        check(result)?;
        let filled = usize::try_from(listing.length).unwrap_or_default().min(buffer.len());
        // A list that fills the buffer may be truncated.
        if filled == buffer.len() && entries < MOST_ENTRIES {
            entries *= 2;
            continue;
        }
        let listed = buffer.get(..filled).unwrap_or_default().chunks_exact(ENTRY);
        return Ok(listed.filter_map(labelled).collect());
    }
}

/// One `struct ifreq` of a list: a label, then a `struct sockaddr_in`.
fn labelled(entry: &[u8]) -> Option<(String, Ipv4Addr)> {
    let (label, address) = entry.split_at_checked(libc::IF_NAMESIZE)?;
    let octets = address.get(4..)?.first_chunk::<4>()?;
    Some((text(label), Ipv4Addr::from(*octets)))
}

fn text(name: &[u8]) -> String {
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

/// `asm-generic/sockios.h` and `linux/sockios.h`; not in the libc crate.
const SIOCATMARK: libc::Ioctl = 0x8905;
const SIOCGIFNAME: libc::Ioctl = 0x8910;
const SIOCGIFCONF: libc::Ioctl = 0x8912;

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::message::{send, send_to};
    use crate::testing::{assert_refused, errno, socket, tcp_pair, udp_socket, wait};

    #[test]
    fn readable_bytes_of_a_datagram_socket_are_those_of_the_next_datagram() {
        let (udp, to) = udp_socket();
        assert_eq!(get_int(udp.as_fd(), IntRequest::Fionread).unwrap(), 0);
        send_to(udp.as_fd(), b"four", 0, &to).unwrap();
        send_to(udp.as_fd(), b"more", 0, &to).unwrap();
        wait(udp.as_fd(), libc::POLLIN);
        assert_eq!(get_int(udp.as_fd(), IntRequest::Fionread).unwrap(), 4);
    }

    #[test]
    fn urgent_mark_is_found() {
        let (a, b) = tcp_pair();
        assert_eq!(get_int(b.as_fd(), IntRequest::Siocatmark).unwrap(), 0);
        send(a.as_fd(), b"!", libc::MSG_OOB).unwrap();
        wait(b.as_fd(), libc::POLLPRI);
        assert_eq!(get_int(b.as_fd(), IntRequest::Siocatmark).unwrap(), 1);
        assert_eq!(get_int(a.as_fd(), IntRequest::Siocoutq).unwrap(), 0);
    }

    #[test]
    fn requests_fail_on_other_files() {
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(errno(get_int(null.as_fd(), IntRequest::Siocoutq)), libc::ENOTTY);
        let mtu = interface(null.as_fd(), "lo", InterfaceRequest::Mtu);
        assert_eq!(errno(mtu), libc::ENOTTY);
    }

    #[test]
    fn loopback_is_described() {
        let udp = socket(libc::AF_INET, libc::SOCK_DGRAM);
        let ask = |request| interface(udp.as_fd(), "lo", request).unwrap();
        let index = crate::interface::index_of("lo").unwrap();
        assert_eq!(ask(InterfaceRequest::Index), InterfaceValue::Int(index.cast_signed()));
        assert!(matches!(ask(InterfaceRequest::Mtu), InterfaceValue::Int(1..)));
        let InterfaceValue::Int(flags) = ask(InterfaceRequest::Flags) else { panic!("no int") };
        assert_eq!(flags & libc::IFF_LOOPBACK, libc::IFF_LOOPBACK);
        let address = InterfaceValue::Address(Ipv4Addr::LOCALHOST);
        assert_eq!(ask(InterfaceRequest::Address), address);
        let mask = InterfaceValue::Address(Ipv4Addr::new(255, 0, 0, 0));
        assert_eq!(ask(InterfaceRequest::Netmask), mask);
        assert!(matches!(ask(InterfaceRequest::Broadcast), InterfaceValue::Address(_)));
        let hardware = InterfaceValue::Hardware { hatype: 772, address: [0; 6] };
        assert_eq!(ask(InterfaceRequest::Hardware), hardware);
    }

    #[test]
    fn impossible_name_is_refused_and_unknown_name_is_enodev() {
        let udp = socket(libc::AF_INET, libc::SOCK_DGRAM);
        let ask = |name| interface(udp.as_fd(), name, InterfaceRequest::Index);
        assert_eq!(errno(ask("nonexistent0")), libc::ENODEV);
        assert_eq!(errno(ask("")), libc::ENODEV);
        assert_eq!(errno(ask("fifteen-bytes-x")), libc::ENODEV);
        assert_refused(ask("sixteen-bytes-xx"));
        assert_refused(ask("l\0"));
    }
}
