//! The emulation of `SIO_RCVALL` on a socket of `AF_INET, SOCK_RAW, IPPROTO_IP`, as in Python's documentation.
//!
//! On Windows such a socket receives whole IP packets of the interface that has its address. Linux refuses to
//! create it (`EPROTONOSUPPORT`). The broker creates a packet socket of type `SOCK_DGRAM` instead (`packet(7)`),
//! which receives packets from their IP header on. Until `RCVALL_ON`, a filter drops all packets.

use std::os::fd::BorrowedFd;

use sockbroker_bpf::opcode::{ABS, ANCILLARY, H, JEQ, JMP, K, LD, RET};
use sockbroker_bpf::{Assembler, Program};
use sockbroker_proto::address::Address;
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::interface::of_socket;
use sockbroker_sys::{filter, packet, socket};

use crate::error::{During, OpError, OpResult};
use crate::ops::receive::drain;
use crate::table::permitted::{Permitted, Socket};
use crate::table::rcvall::{Rcvall, State, interface_at};
use sockbroker_policy::action::Capture;

/// `ETH_P_ALL`: only sockets that are bound to it receive the packets that the machine sends.
const ETH_P_ALL: u16 = 3;
/// `ETH_P_IP`.
const ETH_P_IP: u32 = 0x0800;
/// `SKF_AD_OFF + SKF_AD_PROTOCOL`: the Ethernet type of the packet.
const PROTOCOL: u32 = ANCILLARY;

/// `bind((host, port))`: chooses the interface that has the address.
pub(super) fn bind(fd: BorrowedFd<'_>, rcvall: &Rcvall, address: &Address) -> OpResult<()> {
    let Address::Inet { host, port } = *address else {
        return Err(OpError::Os { call: "bind", errno: libc::EAFNOSUPPORT });
    };
    let unavailable = OpError::Os { call: "bind", errno: libc::EADDRNOTAVAIL };
    let owner = interface_at(fd, host)?.ok_or(unavailable)?;
    let mut state = rcvall.state();
    if state.ifindex.is_some() {
        return Err(OpError::Os { call: "bind", errno: libc::EINVAL });
    }
    state.host = host;
    state.port = port;
    state.ifindex = Some(owner);
    Ok(())
}

/// The value of `IP_HDRINCL`, which a packet socket does not have; `None` for any other option.
pub(super) fn option(rcvall: &Rcvall, level: i32, name: i32) -> Option<i32> {
    is_header_included(level, name).then(|| i32::from(rcvall.state().header_included))
}

/// Notes `IP_HDRINCL`; `false` for any other option.
pub(super) fn set_option(rcvall: &Rcvall, level: i32, name: i32, on: bool) -> bool {
    let known = is_header_included(level, name);
    if known {
        rcvall.state().header_included = on;
    }
    known
}

fn is_header_included(level: i32, name: i32) -> bool {
    level == libc::IPPROTO_IP && name == libc::IP_HDRINCL
}

/// `ioctl(SIO_RCVALL, RCVALL_ON)` and `RCVALL_OFF`.
pub fn receive_all(permitted: &Permitted<Capture>) -> OpResult<()> {
    let socket = permitted.socket();
    let Some(rcvall) = &socket.rcvall else {
        return Err(OpError::Os { call: "ioctl", errno: libc::ENOTTY });
    };
    let mut state = rcvall.state();
    // Windows requires a bound socket, and fails with WSAEINVAL.
    let invalid = OpError::Os { call: "ioctl", errno: libc::EINVAL };
    let ifindex = state.ifindex.ok_or(invalid)?;
    let on = permitted.request().on;
    if on { switch_on(socket, &mut state, ifindex) } else { switch_off(socket, &mut state) }
}

fn switch_on(socket: &Socket, state: &mut State, ifindex: u32) -> OpResult<()> {
    if state.promiscuous.is_some() {
        return Ok(());
    }
    let fd = socket.fd();
    let everything =
        Address::Packet { ifindex, protocol: ETH_P_ALL, pkttype: 0, hatype: 0, addr: Vec::new() };
    // On a loopback interface every packet is captured twice: when it is sent, and when it is received.
    let loopback = of_socket::is_loopback(fd, ifindex).during("ioctl")?;
    packet::ignore_outgoing(fd, loopback).during("setsockopt")?;
    socket::bind(fd, &RawAddress::encode(&everything)).during("bind")?;
    packet::set_promiscuous(fd, ifindex, true).during("setsockopt")?;
    state.promiscuous = Some(ifindex);
    filter::attach(fd, &internet_packets()).during("setsockopt")
}

fn switch_off(socket: &Socket, state: &mut State) -> OpResult<()> {
    filter::attach(socket.fd(), &Program::none().encode()).during("setsockopt")?;
    if let Some(ifindex) = state.promiscuous.take() {
        packet::set_promiscuous(socket.fd(), ifindex, false).during("setsockopt")?;
    }
    drain(socket)
}

/// The sender of a captured packet as `recvfrom` on a raw socket returns it: `(source, 0)`.
pub fn sender(packet: &[u8]) -> Option<Address> {
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    Some(Address::Inet { host: source.into(), port: 0 })
}

/// A filter that accepts IPv4 packets in full length.
fn internet_packets() -> Vec<u8> {
    let mut program = Assembler::new();
    let other = program.label();
    program.add(LD | H | ABS, PROTOCOL);
    program.jump(JMP | JEQ | K, ETH_P_IP, None, Some(other));
    program.add(RET | K, u32::MAX);
    program.place(other);
    program.add(RET | K, 0);
    program.finish().encode()
}
