//! Tests of options and of the refusals.

use std::fs::File;
use std::os::fd::AsFd;

use super::*;
use crate::socket;
use crate::testing::{assert_refused, errno, skip, tcp_pair, udp_socket, unless_lacking};

const SOCKET: i32 = libc::SOL_SOCKET;

#[test]
fn integers_are_set_and_read_back() {
    let (udp, _) = udp_socket();
    assert_eq!(get_int(udp.as_fd(), SOCKET, libc::SO_BROADCAST).unwrap(), 0);
    set_int(udp.as_fd(), SOCKET, libc::SO_BROADCAST, 1).unwrap();
    assert_eq!(get_int(udp.as_fd(), SOCKET, libc::SO_BROADCAST).unwrap(), 1);
}

#[test]
fn bytes_have_the_length_that_the_kernel_returned() {
    let (a, _b) = tcp_pair();
    let linger = [1i32.to_ne_bytes(), 7i32.to_ne_bytes()].concat();
    set_bytes(a.as_fd(), SOCKET, libc::SO_LINGER, &linger).unwrap();
    assert_eq!(get_bytes(a.as_fd(), SOCKET, libc::SO_LINGER, 8).unwrap(), linger);
    assert_eq!(get_bytes(a.as_fd(), SOCKET, libc::SO_LINGER, 100).unwrap(), linger);
    assert_eq!(get_bytes(a.as_fd(), SOCKET, libc::SO_LINGER, 4).unwrap(), linger[..4]);
    let name = get_bytes(a.as_fd(), libc::IPPROTO_TCP, libc::TCP_CONGESTION, 16).unwrap();
    assert!(!name.is_empty());
}

#[test]
fn length_of_zero_is_passed_to_the_kernel() {
    let (udp, _) = udp_socket();
    assert!(get_bytes(udp.as_fd(), SOCKET, libc::SO_RCVBUF, 0).unwrap().is_empty());
    assert_eq!(errno(set_bytes(udp.as_fd(), SOCKET, libc::SO_RCVBUF, &[])), libc::EINVAL);
    let huge = get_bytes(udp.as_fd(), SOCKET, libc::SO_RCVBUF, 1 << 20).unwrap();
    assert_eq!(huge.len(), 4);
}

#[test]
fn absent_value_is_passed_as_a_null_pointer() {
    let (udp, _) = udp_socket();
    assert_eq!(errno(set_null(udp.as_fd(), SOCKET, libc::SO_BROADCAST, 4)), libc::EFAULT);
    assert_eq!(errno(set_null(udp.as_fd(), SOCKET, libc::SO_BROADCAST, 0)), libc::EINVAL);
    // Unbinding from a device is one of the few options that need no value.
    set_null(udp.as_fd(), SOCKET, libc::SO_BINDTODEVICE, 0).unwrap();
}

#[test]
fn a_timeout_of_zero_is_none() {
    let (udp, _) = udp_socket();
    assert_eq!(get_timeout(udp.as_fd(), libc::SO_RCVTIMEO).unwrap(), None);
    SockRef::from(&udp).set_write_timeout(Some(Duration::from_millis(1500))).unwrap();
    let timeout = get_timeout(udp.as_fd(), libc::SO_SNDTIMEO).unwrap();
    assert_eq!(timeout, Some(Duration::from_millis(1500)));
    assert_refused(get_timeout(udp.as_fd(), libc::SO_RCVBUF));
}

#[test]
fn unknown_options_and_other_files_have_the_errno_of_the_kernel() {
    let (udp, _) = udp_socket();
    assert_eq!(errno(get_int(udp.as_fd(), SOCKET, 9999)), libc::ENOPROTOOPT);
    assert_eq!(errno(set_int(udp.as_fd(), 9999, 1, 1)), libc::ENOPROTOOPT);
    let file = File::open("/dev/null").unwrap();
    assert_eq!(errno(get_int(file.as_fd(), SOCKET, libc::SO_TYPE)), libc::ENOTSOCK);
}

#[test]
fn options_with_pointers_or_descriptors_are_refused_before_the_system_call() {
    let (udp, _) = udp_socket();
    let fd = udp.as_fd();
    let refused = [
        (SOCKET, libc::SO_ATTACH_FILTER),
        (SOCKET, libc::SO_ATTACH_BPF),
        (SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF),
        (SOCKET, libc::SO_ATTACH_REUSEPORT_EBPF),
        (SOCKET, libc::SO_PEERPIDFD),
        (libc::IPPROTO_TCP, libc::TCP_ZEROCOPY_RECEIVE),
        (libc::IPPROTO_IP, 64),
        (libc::IPPROTO_IP, 131),
        (libc::IPPROTO_IPV6, 69),
        (libc::SOL_PACKET, libc::PACKET_FANOUT_DATA),
        (libc::SOL_XDP, libc::XDP_UMEM_REG),
        (SOL_MPTCP, 4),
    ];
    for (level, name) in refused {
        assert!(carries_pointer_or_descriptor(level, name), "{level} {name}");
        assert_refused(get_int(fd, level, name));
        assert_refused(get_bytes(fd, level, name, 64));
        assert_refused(set_int(fd, level, name, 1));
        assert_refused(set_bytes(fd, level, name, &[0; 16]));
        assert_refused(set_null(fd, level, name, 16));
    }
}

#[test]
fn options_by_value_are_not_refused() {
    let allowed = [
        (SOCKET, libc::SO_BINDTODEVICE),
        (SOCKET, libc::SO_DETACH_FILTER),
        (SOCKET, libc::SO_LOCK_FILTER),
        (SOCKET, libc::SO_MEMINFO),
        (libc::IPPROTO_IP, libc::IP_MSFILTER),
        (libc::IPPROTO_IP, 80), // SO_ORIGINAL_DST
        (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS),
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
        (libc::IPPROTO_TCP, libc::TCP_ULP),
        (libc::SOL_PACKET, libc::PACKET_FANOUT),
        (libc::SOL_ALG, libc::ALG_SET_KEY),
    ];
    for (level, name) in allowed {
        assert!(!carries_pointer_or_descriptor(level, name), "{level} {name}");
    }
}

#[test]
fn option_that_writes_to_its_value_does_not_change_the_callers_bytes() {
    // IPV6_FLOWLABEL_MGR: struct in6_flowlabel_req for ::1 with IPV6_FL_A_GET and _F_CREATE.
    let v6 = socket::create(libc::AF_INET6, libc::SOCK_DGRAM, 0);
    let Some(v6) = unless_lacking("IPv6", v6) else {
        return;
    };
    let mut request = [0u8; 32];
    request[15] = 1;
    request[20] = 1; // IPV6_FL_A_GET
    request[21] = 1; // IPV6_FL_S_EXCL
    request[22] = 1; // IPV6_FL_F_CREATE
    let before = request;
    match set_bytes(v6.as_fd(), libc::IPPROTO_IPV6, 32, &request) {
        Ok(()) => assert_eq!(request, before),
        Err(_) => skip("no flow labels here"),
    }
}
