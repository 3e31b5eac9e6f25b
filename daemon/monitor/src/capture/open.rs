//! Makes the socket of a capture, with its filter and its ring, and begins to capture.
//!
//! The order is what makes the start exact: without a protocol the socket receives nothing, so that no packet is captured
//! that the filter did not see, and none is missing that came after `bind` has returned.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use sockbroker_proto::address::Address;
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::interface::of_socket;
use sockbroker_sys::ioctl::{self, InterfaceRequest, InterfaceValue};
use sockbroker_sys::{filter, option, packet, ring, socket};

use super::order::{Opened, Order};
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

/// Makes the socket. `ENODEV` if an interface does not exist, `InvalidInput` for a program or a size that no socket can
/// have.
pub fn open(mut order: Order) -> io::Result<(OwnedFd, Opened)> {
    let socket = socket::create(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, 0)?;
    let fd = socket.as_fd();
    let names = order.interfaces.iter();
    let indexes: Vec<_> =
        names.map(|name| of_socket::index_of(fd, name)).collect::<io::Result<_>>()?;
    filter::attach(fd, &program::joined(&order, &indexes)?)?;
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
    Ok((socket, Opened { order, indexes, longest, bind_began, started }))
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

/// The program that replaces the one of a capture on these interfaces.
pub fn replacement(order: &Order, indexes: &[u32]) -> io::Result<Vec<u8>> {
    program::joined(order, indexes)
}
