//! Makes the socket of a capture, with its filter and its ring, and begins to capture.
//!
//! The order is what makes the start exact: without a protocol the socket receives nothing, so that no packet is captured
//! that the filter did not see, and none is missing that came after `bind` has returned.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use sockbroker_policy::capture_scope::CaptureScope;
use sockbroker_proto::address::Address;
use sockbroker_proto::socket_spec::SocketSpec;
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::interface::of_socket;
use sockbroker_sys::ioctl::{self, InterfaceRequest, InterfaceValue};
use sockbroker_sys::{filter, option, packet, ring, socket};

use super::order::{Interface, Opened, Order};
use super::program;

const ETH_P_ALL: u16 = 3;
/// The bytes that the kernel keeps of packets that do not fit into a slot.
const LARGE_BYTES: i32 = 4 << 20;
/// The longest packet of an interface whose MTU is not known.
const USUAL_MTU: u32 = 1500;
/// The largest MTU of a link.
const LARGEST_MTU: u32 = 10_000;
/// A header of Ethernet with a tag. The MTU does not count it.
const HEADER: u32 = 18;

/// The time of the real-time clock in nanoseconds.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The socket of a capture.
pub const SOCKET: SocketSpec =
    SocketSpec { domain: libc::AF_PACKET, ty: libc::SOCK_RAW | libc::SOCK_NONBLOCK, protocol: 0 };

/// Makes the socket in the network namespace of the thread, and begins.
pub fn open(order: Order, scopes: &[CaptureScope]) -> io::Result<(OwnedFd, Opened)> {
    begin(socket::create(SOCKET.domain, SOCKET.ty, SOCKET.protocol)?, order, scopes)
}

/// Begins to capture on a new socket. `ENODEV` if an interface does not exist, `InvalidInput` for a program or a size that
/// no socket can have. The scopes are those of the permit.
pub fn begin(
    socket: OwnedFd,
    mut order: Order,
    scopes: &[CaptureScope],
) -> io::Result<(OwnedFd, Opened)> {
    let fd = socket.as_fd();
    let names = order.interfaces.iter();
    let interfaces: Vec<_> = names.map(|name| interface(fd, name)).collect::<io::Result<_>>()?;
    let indexes: Vec<_> = interfaces.iter().map(|interface| interface.index).collect();
    let hardware = interfaces.iter().map(|interface| interface.hardware).collect();
    let program = program::joined(&order, &interfaces, scopes);
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
    filter::attach(fd, &program.map_err(invalid)?)?;
    let longest = order.snaplen.min(longest_of(fd, &order.interfaces));
    let geometry = order.geometry(longest).ok_or(io::ErrorKind::InvalidInput)?;
    let forced = option::set_int(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, LARGE_BYTES);
    if forced.is_err() {
        option::set_int(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, LARGE_BYTES)?;
    }
    ring::prepare(fd, &geometry)?;
    if order.promiscuous {
        indexes.iter().try_for_each(|index| packet::set_promiscuous(fd, *index, true))?;
    }
    let ifindex = match indexes[..] {
        [index] => index,
        _ => 0,
    };
    let (protocol, pkttype, hatype, addr) = (ETH_P_ALL, 0, 0, Vec::new());
    let address = RawAddress::encode(&Address::Packet { ifindex, protocol, pkttype, hatype, addr });
    let bind_began = now();
    socket::bind(fd, &address)?;
    let started = now();
    order.program.clear();
    Ok((socket, Opened { order, indexes, hardware, longest, bind_began, started }))
}

/// The interface with this name in the namespace of a socket.
fn interface(socket: BorrowedFd<'_>, name: &str) -> io::Result<Interface> {
    let index = of_socket::index_of(socket, name)?;
    // The kernel takes other names of an interface too (`eth0:1`, alternative names), and rules are about one.
    if of_socket::name_of(socket, index)? != name {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    match ioctl::interface(socket, name, InterfaceRequest::Hardware)? {
        InterfaceValue::Hardware { hatype, .. } => Ok(Interface { index, hardware: hatype }),
        InterfaceValue::Int(_) | InterfaceValue::Address(_) => {
            Err(io::ErrorKind::InvalidData.into())
        }
    }
}

/// The longest packet of these interfaces. A loopback has packets of any length, and few of them are long: these are kept
/// apart from the ring.
fn longest_of(socket: BorrowedFd<'_>, interfaces: &[String]) -> u32 {
    let mtu = |name: &String| match ioctl::interface(socket, name, InterfaceRequest::Mtu) {
        Ok(InterfaceValue::Int(mtu)) => u32::try_from(mtu).ok(),
        Ok(InterfaceValue::Address(_) | InterfaceValue::Hardware { .. }) | Err(_) => None,
    };
    let longest = interfaces.iter().filter_map(mtu).filter(|mtu| *mtu <= LARGEST_MTU).max();
    longest.unwrap_or(USUAL_MTU).saturating_add(HEADER)
}
