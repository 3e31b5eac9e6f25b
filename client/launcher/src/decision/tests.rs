//! Tables: registers to calls, and addresses to decisions.

use proptest::prelude::*;

use super::*;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;

fn call(arch: u32, number: i32, args: [u64; 6]) -> Call {
    decode(&RawCall { arch, number, args })
}

#[test]
fn registers_become_calls() {
    let packet = NewSocket {
        family: 17,
        kind: 3,
        protocol: 0x0300,
        nonblocking: false,
        close_on_exec: true,
    };
    let raw = 3 | u64::from(libc::SOCK_CLOEXEC.cast_unsigned());
    assert_eq!(call(X86_64, 41, [17, raw, 0x0300, 0, 0, 0]), Call::Socket(packet));
    // The kernel ignores the high half of an int, and has negative ones.
    let minus_one = NewSocket { family: -1, kind: 3, ..packet };
    let args = [u64::from(u32::MAX), raw | 7 << 32, 0x0300, 0, 0, 0];
    assert_eq!(call(X86_64, 41, args), Call::Socket(minus_one));
    assert_eq!(
        call(X86_64, 49, [5, 0x7fff_0000_1000, 16, 0, 0, 0]),
        Call::Bind { fd: 5, address: 0x7fff_0000_1000, length: 16 }
    );
    let Call::SetOption { option, value, length, fd } = call(X86_64, 54, [4, 1, 36, 99, 4, 0])
    else {
        panic!("not an option");
    };
    assert_eq!((option.text, value, length, fd), ("SO_MARK", 99, 4, 4));
    // Not in the list, another call, another architecture.
    assert_eq!(call(X86_64, 54, [4, 1, 2, 99, 4, 0]), Call::Other);
    assert_eq!(call(X86_64, 50, [4, 1, 36, 99, 4, 0]), Call::Other);
    assert_eq!(call(1, 41, [17, 3, 0, 0, 0, 0]), Call::Other);
}

#[test]
fn socketcall_has_its_arguments_in_memory() {
    let multiplexed = Call::Multiplexed { call: Reported::Bind, arguments: 0x1000 };
    assert_eq!(call(I386, 102, [2, 0x1000, 0, 0, 0, 0]), multiplexed);
    assert_eq!(call(I386, 102, [3, 0x1000, 0, 0, 0, 0]), Call::Other);
    let mut words = [0; MULTIPLEXED_BYTES];
    for (index, word) in [7_u32, 0xffff_0000, 28].into_iter().enumerate() {
        words[index * 4..][..4].copy_from_slice(&word.to_ne_bytes());
    }
    let bind = Call::Bind { fd: 7, address: 0xffff_0000, length: 28 };
    assert_eq!(decode_multiplexed(Reported::Bind, &words), bind);
}

fn inet(port: u16) -> Vec<u8> {
    [&2_u16.to_ne_bytes()[..], &port.to_be_bytes(), &[127, 0, 0, 1], &[0; 8]].concat()
}

#[test]
fn only_low_ports_of_complete_internet_addresses_need_a_privilege() {
    for (port, first, expected) in [
        (0, 1024, false),
        (1, 1024, true),
        (80, 1024, true),
        (1023, 1024, true),
        (1024, 1024, false),
        (65535, 1024, false),
        (80, 80, false),
        (79, 80, true),
        (1, 0, false),
    ] {
        let found = privileged_address(&inet(port), first);
        assert_eq!(found.is_some(), expected, "{port} {first}");
        assert!(found.is_none_or(|address| address.port() == port));
    }
    let six = [
        &10_u16.to_ne_bytes()[..],
        &80_u16.to_be_bytes(),
        &7_u32.to_be_bytes(),
        &[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        &3_u32.to_ne_bytes(),
    ]
    .concat();
    assert_eq!(privileged_address(&six, 1024).unwrap().to_string(), "[fe80::1%3]:80");
    assert_eq!(privileged_address(&six[..24], 1024).unwrap().to_string(), "[fe80::1]:80");
    for length in 0..24 {
        assert_eq!(privileged_address(&six[..length], 1024), None, "{length}");
    }
    for length in 0..16 {
        assert_eq!(privileged_address(&inet(80)[..length], 1024), None, "{length}");
    }
    // AF_UNIX with a path that looks like a low port, and AF_UNSPEC, which the kernel takes for AF_INET.
    for family in [0_u16, 1, 17] {
        let mut other = inet(80);
        other[..2].copy_from_slice(&family.to_ne_bytes());
        assert_eq!(privileged_address(&other, 1024), None, "{family}");
    }
}

#[test]
fn calls_are_described_by_their_constants() {
    let socket = |family, kind, protocol| NewSocket {
        family,
        kind,
        protocol,
        nonblocking: true,
        close_on_exec: true,
    };
    for (socket, text) in [
        (socket(17, 3, 768), "socket(AF_PACKET, SOCK_RAW)"),
        (socket(2, 3, 1), "socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)"),
        (socket(10, 2, 58), "socket(AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6)"),
        (socket(2, 3, 0), "socket(AF_INET, SOCK_RAW)"),
        (socket(16, 3, 0), "socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)"),
        (socket(16, 2, 99), "socket(AF_NETLINK, SOCK_DGRAM, 99)"),
        (socket(99, 9, 9), "socket(99, 9)"),
    ] {
        assert_eq!(socket.describe(), text);
    }
}

proptest! {
    #[test]
    fn no_bytes_and_no_registers_make_a_decision_fail(
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        arch in prop::sample::select(vec![X86_64, I386, 0xc000_00b7, 0]),
        number in 0..512_i32,
        args in any::<[u64; 6]>(),
    ) {
        let address = privileged_address(&bytes, 1024);
        prop_assert!(address.is_none_or(|address| (1..1024).contains(&address.port())));
        call(arch, number, args);
    }
}

#[test]
fn a_socket_that_nobody_serves_is_made_in_the_right_namespace_or_not_at_all() {
    let raw = |number, first| RawCall { arch: I386, number, args: [first, 0, 0, 0, 0, 0] };
    for (call, expected) in [
        (raw(359, 2), Some(libc::ENETDOWN)),
        (raw(102, 1), Some(libc::ENETDOWN)),
        (raw(102, 2), None),
        (raw(361, 3), None),
        (raw(366, 3), None),
    ] {
        assert_eq!(unserved(&call, true), expected, "{call:?}");
        assert_eq!(unserved(&call, false), None);
    }
}
