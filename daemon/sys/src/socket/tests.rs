//! Tests of sockets on the loopback and of `AF_UNIX`.

use std::fs::File;
use std::net::Ipv6Addr;
use std::os::fd::AsFd;

use nix::fcntl::FdFlag;
use sockbroker_proto::address::Address;

use super::*;
use crate::testing::{
    TempDir, assert_refused, errno, listener, loopback, skip, tcp_pair, udp_socket, unix_address,
    unix_pair, unless_lacking,
};

fn is_close_on_exec(fd: &OwnedFd) -> bool {
    let flags = fcntl(fd, FcntlArg::F_GETFD).unwrap();
    FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC)
}

#[test]
fn sockets_are_close_on_exec_and_blocking_by_default() {
    let socket = create(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
    assert!(is_close_on_exec(&socket));
    assert!(!is_nonblocking(socket.as_fd()).unwrap());
    let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK;
    assert!(is_nonblocking(create(libc::AF_INET, kind, 0).unwrap().as_fd()).unwrap());
    let (a, b) = pair(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0).unwrap();
    assert!(is_close_on_exec(&a) && is_close_on_exec(&b));
    assert!(is_nonblocking(a.as_fd()).unwrap() && is_nonblocking(b.as_fd()).unwrap());
}

#[test]
fn impossible_sockets_have_the_errno_of_the_kernel() {
    assert_eq!(errno(create(-1, libc::SOCK_STREAM, 0)), libc::EAFNOSUPPORT);
    assert_eq!(errno(create(libc::AF_INET, 99, 0)), libc::EINVAL);
    let wrong = create(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_UDP);
    assert_eq!(errno(wrong), libc::EPROTONOSUPPORT);
    assert_eq!(errno(pair(libc::AF_INET, libc::SOCK_STREAM, 0)), libc::EOPNOTSUPP);
}

#[test]
fn connection_has_both_addresses() {
    let (client, server) = tcp_pair();
    let (local, peer) = (local_address(client.as_fd()), peer_address(client.as_fd()));
    assert_eq!(local.unwrap(), peer_address(server.as_fd()).unwrap());
    assert_eq!(peer.unwrap(), local_address(server.as_fd()).unwrap());
    assert!(is_close_on_exec(&server));
    assert!(!is_nonblocking(server.as_fd()).unwrap(), "accept must not inherit the mode");
}

#[test]
fn ipv6_addresses_pass_through_the_kernel() {
    let what = "IPv6";
    let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK;
    let Some(socket) = unless_lacking(what, create(libc::AF_INET6, kind, 0)) else {
        return;
    };
    let host = Ipv6Addr::LOCALHOST;
    let address = Address::Inet6 { host, port: 0, flowinfo: 0, scope_id: 0 };
    if bind(socket.as_fd(), &RawAddress::encode(&address)).is_err() {
        return skip("no IPv6 loopback");
    }
    let bound = local_address(socket.as_fd()).unwrap().decode(0).unwrap();
    assert!(matches!(bound, Address::Inet6 { host: Ipv6Addr::LOCALHOST, port, .. } if port > 0));
}

#[test]
fn accept_without_a_connection_fails_immediately() {
    let (listener, _) = listener();
    assert_eq!(errno(accept(listener.as_fd())), libc::EAGAIN);
    let (udp, _) = udp_socket();
    assert_eq!(errno(accept(udp.as_fd())), libc::EOPNOTSUPP);
    assert_eq!(errno(listen(udp.as_fd(), 1)), libc::EOPNOTSUPP);
}

#[test]
fn is_listening_reports_the_state() {
    let (listener, _) = listener();
    assert!(is_listening(listener.as_fd()).unwrap());
    listen(listener.as_fd(), -1).unwrap();
    listen(listener.as_fd(), i32::MAX).unwrap();
    let (udp, _) = udp_socket();
    assert!(!is_listening(udp.as_fd()).unwrap());
}

#[test]
fn refused_connection_reports_its_error_once() {
    let (closed, address) = listener();
    drop(closed);
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK;
    let client = create(libc::AF_INET, kind, 0).unwrap();
    let first = errno(connect(client.as_fd(), &address));
    if first == libc::EINPROGRESS {
        crate::testing::wait(client.as_fd(), libc::POLLOUT);
        assert_eq!(take_error(client.as_fd()).unwrap(), libc::ECONNREFUSED);
    } else {
        assert_eq!(first, libc::ECONNREFUSED);
    }
    assert_eq!(take_error(client.as_fd()).unwrap(), 0);
    assert_eq!(errno(peer_address(client.as_fd())), libc::ENOTCONN);
}

#[test]
fn connect_to_unspecified_dissolves_the_association() {
    let (a, _) = udp_socket();
    let (_b, to) = udp_socket();
    connect(a.as_fd(), &to).unwrap();
    assert_eq!(peer_address(a.as_fd()).unwrap(), to);
    connect(a.as_fd(), &RawAddress::encode(&Address::Unspecified)).unwrap();
    assert_eq!(errno(peer_address(a.as_fd())), libc::ENOTCONN);
}

#[test]
fn unix_addresses_of_all_forms_can_be_bound_and_read_back() {
    let directory = TempDir::new();
    let path = unix_address(&directory.path("s"));
    let (a, b) = unix_pair(libc::SOCK_DGRAM);
    let unnamed = RawAddress::encode(&Address::UnixUnnamed);
    assert_eq!(local_address(a.as_fd()).unwrap(), unnamed);
    bind(a.as_fd(), &path).unwrap();
    assert_eq!(local_address(a.as_fd()).unwrap(), path);
    bind(b.as_fd(), &unnamed).unwrap();
    let autobound = local_address(b.as_fd()).unwrap().decode(0);
    assert!(matches!(autobound, Some(Address::UnixAbstract(name)) if name.len() == 5));
    let other = create(libc::AF_UNIX, libc::SOCK_STREAM, 0).unwrap();
    assert_eq!(errno(bind(other.as_fd(), &path)), libc::EADDRINUSE);
    let too_long = RawAddress::encode(&Address::UnixPath(vec![b'p'; 120]));
    assert_eq!(errno(bind(other.as_fd(), &too_long)), libc::EINVAL);
}

#[test]
fn netlink_and_other_families_pass_through_the_kernel() {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK;
    if let Some(socket) = unless_lacking("netlink", create(libc::AF_NETLINK, kind, 0)) {
        let any = Address::Netlink { pid: 0, groups: 0 };
        bind(socket.as_fd(), &RawAddress::encode(&any)).unwrap();
        let bound = local_address(socket.as_fd()).unwrap().decode(0);
        assert!(matches!(bound, Some(Address::Netlink { pid: 1.., groups: 0 })));
    }
    if let Some(socket) = unless_lacking("packet sockets", create(libc::AF_PACKET, kind, 0)) {
        let lo = Address::Packet {
            ifindex: crate::interface::index_of("lo").unwrap(),
            protocol: 0x0800,
            pkttype: 0,
            hatype: 0,
            addr: Vec::new(),
        };
        bind(socket.as_fd(), &RawAddress::encode(&lo)).unwrap();
        let bound = local_address(socket.as_fd()).unwrap().decode(0);
        let Some(Address::Packet { protocol: 0x0800, hatype: 772, addr, .. }) = bound else {
            panic!("bound to {bound:?}");
        };
        assert_eq!(addr, [0; 6]);
    }
}

#[test]
fn spec_of_a_socket_has_no_flags() {
    let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK;
    let socket = create(libc::AF_INET, kind, 0).unwrap();
    let expected =
        SocketSpec { domain: libc::AF_INET, ty: libc::SOCK_DGRAM, protocol: libc::IPPROTO_UDP };
    assert_eq!(spec_of(socket.as_fd()).unwrap(), expected);
    let file = File::open("/dev/null").unwrap();
    assert_eq!(errno(spec_of(file.as_fd())), libc::ENOTSOCK);
}

#[test]
fn invalid_how_is_an_error_of_the_kernel() {
    let (a, b) = unix_pair(libc::SOCK_STREAM);
    assert_eq!(errno(shutdown(a.as_fd(), 3)), libc::EINVAL);
    assert_eq!(errno(shutdown(a.as_fd(), -1)), libc::EINVAL);
    shutdown(a.as_fd(), libc::SHUT_WR).unwrap();
    assert_eq!(crate::message::receive(b.as_fd(), 1, 0).unwrap().n, 0);
    let unconnected = crate::testing::socket(libc::AF_INET, libc::SOCK_STREAM);
    assert_eq!(errno(shutdown(unconnected.as_fd(), libc::SHUT_RD)), libc::ENOTCONN);
}

#[test]
fn duplicates_share_the_open_file_description() {
    let (a, _b) = unix_pair(libc::SOCK_STREAM);
    let copy = duplicate(a.as_fd()).unwrap();
    assert!(is_close_on_exec(&copy));
    assert!(is_nonblocking(copy.as_fd()).unwrap());
    set_nonblocking(copy.as_fd(), false).unwrap();
    assert!(!is_nonblocking(a.as_fd()).unwrap());
    set_nonblocking(a.as_fd(), true).unwrap();
    assert!(is_nonblocking(copy.as_fd()).unwrap());
}

#[test]
fn addresses_that_name_descriptors_are_refused() {
    let (socket, _) = udp_socket();
    let shared = RawAddress::from_bytes(&[44, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0]);
    assert_refused(bind(socket.as_fd(), &shared.unwrap()));
    assert_refused(connect(socket.as_fd(), &shared.unwrap()));
}

#[test]
fn other_files_are_enotsock() {
    let file = File::open("/dev/null").unwrap();
    let fd = file.as_fd();
    assert_eq!(errno(bind(fd, &loopback(0))), libc::ENOTSOCK);
    assert_eq!(errno(connect(fd, &loopback(1))), libc::ENOTSOCK);
    assert_eq!(errno(listen(fd, 1)), libc::ENOTSOCK);
    assert_eq!(errno(accept(fd)), libc::ENOTSOCK);
    assert_eq!(errno(shutdown(fd, libc::SHUT_RD)), libc::ENOTSOCK);
    assert_eq!(errno(local_address(fd)), libc::ENOTSOCK);
    assert_eq!(errno(peer_address(fd)), libc::ENOTSOCK);
}

#[test]
fn address_of_the_wrong_family_is_an_error_of_the_kernel() {
    let (unix, _other) = unix_pair(libc::SOCK_DGRAM);
    assert_eq!(errno(connect(unix.as_fd(), &loopback(1))), libc::EINVAL);
    let (udp, _) = udp_socket();
    assert_eq!(errno(connect(udp.as_fd(), &RawAddress::default())), libc::EINVAL);
}
