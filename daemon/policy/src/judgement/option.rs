//! Options by what they endanger. Every option that the broker knows belongs to exactly one class.
//!
//! Reading a known option is [`OptionClass::Ordinary`]: it shows the state of the caller's own socket.

pub use crate::language::option_class::OptionClass;

/// The class of writing an option on a socket of a family.
pub fn class_of(family: i32, level: i32, name: i32) -> OptionClass {
    match family {
        libc::AF_PACKET if level == libc::SOL_PACKET => return OptionClass::Packet,
        // Without effect there: received packets have their headers in any case.
        libc::AF_PACKET if (level, name) == (IP, libc::IP_HDRINCL) => return OptionClass::Ordinary,
        // Levels of Bluetooth have the numbers of IP protocols.
        libc::AF_BLUETOOTH if level != libc::SOL_SOCKET => return OptionClass::Ordinary,
        _ => {}
    }
    let rows = ROWS.iter().filter(|row| row.level == level);
    rows.filter(|row| row.names.contains(&name))
        .map(|row| row.class)
        .next()
        .unwrap_or(OptionClass::Unknown)
}

/// The class of reading an option.
pub fn class_of_reading(family: i32, level: i32, name: i32) -> OptionClass {
    let known = class_of(family, level, name) != OptionClass::Unknown;
    if known { OptionClass::Ordinary } else { OptionClass::Unknown }
}

/// Options of one level that are in one class.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) level: i32,
    pub(super) class: OptionClass,
    pub(super) names: &'static [i32],
}

pub(super) const fn row(level: i32, class: OptionClass, names: &'static [i32]) -> Row {
    Row { level, class, names }
}

const SOL_SOCKET: i32 = libc::SOL_SOCKET;
const IP: i32 = libc::IPPROTO_IP;
const IPV6: i32 = libc::IPPROTO_IPV6;
const TCP: i32 = libc::IPPROTO_TCP;
const UDP: i32 = libc::IPPROTO_UDP;

/// Numbers from the kernel's `include/uapi`, up to Linux 6.18; those that the libc crate lacks are
/// written out with their names. An option in no row is unknown: `bindx` and `connectx` of SCTP, which
/// would bind and connect past their verbs; `IPV6_2292PKTOPTIONS`, which sets source and interface within a
/// list; `IPV6_ADDRFORM`, which makes an IPv6 socket one of another family.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    row(SOL_SOCKET, OptionClass::Ordinary, &[
        2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18, 19, 20, 21, // SO_REUSEADDR to SO_SNDTIMEO
        28, 29, 30, 31, 34, 35, 37, 38, 39, 40, 41, 42, 43, 45, 47, 48, 49, // SO_PEERNAME to SO_INCOMING_CPU
        53, 55, 56, 57, 58, 59, 60, 63, 64, 65, 66, 67, // SO_CNX_ADVICE to SO_SNDTIMEO_NEW
        71, 72, 74, // SO_NETNS_COOKIE, SO_BUF_LOCK, SO_TXREHASH
        81, 82, 83, 84, // SO_PASSRIGHTS, SO_INQ and their neighbours
    ]),
    row(SOL_SOCKET, OptionClass::BuffersForce, &[libc::SO_SNDBUFFORCE, libc::SO_RCVBUFFORCE]),
    row(SOL_SOCKET, OptionClass::Memory, &[73]), // SO_RESERVE_MEM
    row(SOL_SOCKET, OptionClass::Scheduling, &[
        libc::SO_DEBUG, libc::SO_PRIORITY, libc::SO_BUSY_POLL, libc::SO_TXTIME,
        libc::SO_PREFER_BUSY_POLL, libc::SO_BUSY_POLL_BUDGET,
    ]),
    row(SOL_SOCKET, OptionClass::Mark, &[libc::SO_MARK, 75]), // SO_RCVMARK
    row(SOL_SOCKET, OptionClass::BindToDevice, &[libc::SO_BINDTODEVICE, libc::SO_BINDTOIFINDEX]),
    row(SOL_SOCKET, OptionClass::Filter, &[
        libc::SO_ATTACH_FILTER, libc::SO_DETACH_FILTER, libc::SO_LOCK_FILTER, libc::SO_ATTACH_BPF,
        libc::SO_ATTACH_REUSEPORT_CBPF, libc::SO_ATTACH_REUSEPORT_EBPF, 68, // SO_DETACH_REUSEPORT_BPF
    ]),
    row(IP, OptionClass::Ordinary, &[
        1, 2, 6, 7, 8, 9, 10, 11, 12, 13, 14, 18, 20, 21, 22, 23, 24, 25, 26, 51, 52, 80, // IP_TOS to IP_PROTOCOL, SO_ORIGINAL_DST
    ]),
    row(IP, OptionClass::Multicast, &[
        32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, // IP_MULTICAST_IF to IP_MULTICAST_ALL
    ]),
    row(IP, OptionClass::Routing, &[4, 5, 200, 201, 202, 203, 204, 205, 206, 207, 208, 209, 210, 211, 212]), // IP_OPTIONS, IP_ROUTER_ALERT, MRT_*
    row(IP, OptionClass::Ipsec, &[libc::IP_IPSEC_POLICY, libc::IP_XFRM_POLICY]),
    row(IP, OptionClass::BindToDevice, &[50]), // IP_UNICAST_IF
    row(IP, OptionClass::Spoof, &[libc::IP_HDRINCL]),
    row(IP, OptionClass::Transparent, &[libc::IP_TRANSPARENT, libc::IP_FREEBIND]),
    row(IPV6, OptionClass::Ordinary, &[
        7, 8, 11, 16, 23, 24, 25, 26, 31, 33, // IPV6_CHECKSUM to IPV6_FLOWINFO_SEND
        49, 50, 51, 52, 53, 56, 58, 60, 61, 62, 63, // IPV6_RECVPKTINFO to IPV6_USE_MIN_MTU
        66, 67, 70, 72, 73, 74, 77, 80, // IPV6_RECVTCLASS to IPV6_RECVFRAGSIZE, IP6T_SO_ORIGINAL_DST
    ]),
    row(IPV6, OptionClass::Multicast, &[
        17, 18, 19, 20, 21, 27, 28, 29, 42, 43, 44, 45, 46, 47, 48, // IPV6_MULTICAST_IF to MCAST_MSFILTER
    ]),
    row(IPV6, OptionClass::Routing, &[
        2, 3, 4, 5, 9, 22, 30, 32, 54, 55, 57, 59, // IPV6_2292*, IPV6_RTHDR and related
        200, 201, 202, 203, 204, 205, 206, 207, 208, 209, 210, // MRT6_*
    ]),
    row(IPV6, OptionClass::Ipsec, &[libc::IPV6_IPSEC_POLICY, libc::IPV6_XFRM_POLICY]),
    row(IPV6, OptionClass::BindToDevice, &[76]), // IPV6_UNICAST_IF
    row(IPV6, OptionClass::Spoof, &[libc::IPV6_HDRINCL]),
    row(IPV6, OptionClass::Transparent, &[libc::IPV6_TRANSPARENT, libc::IPV6_FREEBIND]),
    row(TCP, OptionClass::Ordinary, &[
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15, 16, 17, 18, 23, 24, 25, 26, 27, 28, // TCP_NODELAY to TCP_SAVED_SYN
        30, 34, 36, 37, 44, 45, 46, // TCP_FASTOPEN_CONNECT, TCP_INQ, TCP_TX_DELAY, TCP_IS_MPTCP, TCP_RTO_*
    ]),
    row(TCP, OptionClass::Ipsec, &[14, 32, 38, 39, 40, 41, 42, 43, 33]), // TCP_MD5SIG, TCP_AO_*, TCP_FASTOPEN_KEY
    row(TCP, OptionClass::Modules, &[libc::TCP_CONGESTION, libc::TCP_ULP]),
    row(TCP, OptionClass::TcpRepair, &[
        libc::TCP_REPAIR, libc::TCP_REPAIR_QUEUE, libc::TCP_QUEUE_SEQ, libc::TCP_REPAIR_OPTIONS,
        libc::TCP_REPAIR_WINDOW,
    ]),
    row(UDP, OptionClass::Ordinary, &[1, 101, 102, 103, 104]), // UDP_CORK, UDP_NO_CHECK6_*, UDP_SEGMENT, UDP_GRO
    row(UDP, OptionClass::Ipsec, &[libc::UDP_ENCAP]),
    row(libc::IPPROTO_UDPLITE, OptionClass::Ordinary, &[1, 10, 11, 101, 102]), // UDPLITE_*_CSCOV
    row(libc::IPPROTO_RAW, OptionClass::Ordinary, &[1]), // ICMP_FILTER
    row(libc::IPPROTO_ICMPV6, OptionClass::Ordinary, &[1]), // ICMPV6_FILTER
    row(132, OptionClass::Ordinary, &[0, 1, 2, 3, 4, 8, 11, 13, 14]), // SCTP: timers, streams, SCTP_NODELAY, SCTP_STATUS
    row(269, OptionClass::Ordinary, &[2, 4, 5, 6, 7, 8, 9, 10, 11]), // DCCP: services and states
    row(libc::SOL_NETLINK, OptionClass::Ordinary, &[3, 9, 10, 11, 12]), // NETLINK_PKTINFO, acknowledgements
    row(libc::SOL_NETLINK, OptionClass::Netlink, &[1, 2, 4, 5]), // NETLINK_ADD_MEMBERSHIP and related
    row(libc::AF_VSOCK, OptionClass::Ordinary, &[0, 1, 2, 3, 6, 7, 8]), // SO_VM_SOCKETS_*
    row(libc::SOL_ALG, OptionClass::Ordinary, &[1, 2, 3, 4, 5, 6]), // ALG_SET_*
    row(libc::SOL_CAN_RAW, OptionClass::Ordinary, &[1, 2, 3, 4, 5, 6, 7, 8]), // CAN_RAW_*
    row(106, OptionClass::Ordinary, &[1, 2, 3, 4, 5]), // CAN_ISOTP_*
    row(107, OptionClass::Ordinary, &[1, 2, 3, 4]), // SO_J1939_*
    row(libc::SOL_TIPC, OptionClass::Ordinary, &[127, 128, 129, 130, 131, 132, 135, 136, 137, 138, 139]), // TIPC_*
    row(276, OptionClass::Ordinary, &[1, 5, 6, 8, 10]), // RDS, but for memory that is registered
    row(libc::SOL_TLS, OptionClass::Ordinary, &[1, 2, 3, 4]), // TLS_TX, TLS_RX
    row(libc::SOL_PACKET, OptionClass::Packet, &[]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_in_one_row() {
        for (index, row) in ROWS.iter().enumerate() {
            for name in row.names {
                let others = ROWS.iter().skip(index + 1).filter(|other| other.level == row.level);
                let again = others.filter(|other| other.names.contains(name)).count();
                let own = row.names.iter().filter(|other| *other == name).count();
                assert_eq!((again, own), (0, 1), "level {}, name {name}", row.level);
            }
        }
    }

    #[test]
    fn every_option_of_the_module_has_a_class() {
        let levels = [
            ("SO_", SOL_SOCKET, libc::AF_INET),
            ("TCP_", TCP, libc::AF_INET),
            ("IP_", IP, libc::AF_INET),
            ("IPV6_", IPV6, libc::AF_INET6),
            ("UDPLITE_", libc::IPPROTO_UDPLITE, libc::AF_INET),
            ("CAN_RAW_", libc::SOL_CAN_RAW, libc::AF_CAN),
            ("PACKET_ADD", libc::SOL_PACKET, libc::AF_PACKET),
        ];
        // Values of options rather than options; and those that carry descriptors.
        let others = [
            "IP_DEFAULT_MULTICAST_LOOP",
            "IP_DEFAULT_MULTICAST_TTL",
            "IP_MAX_MEMBERSHIPS",
            "IPV6_RTHDR_TYPE_0",
            "TCP_ZEROCOPY_RECEIVE",
            "IP_PMTUDISC_DO",
        ];
        for (name, number) in sockbroker_proto::constant::names() {
            if name.starts_with("SO_VM_SOCKETS")
                || name == "SO_ORIGINAL_DST"
                || others.contains(&name)
            {
                continue;
            }
            let row = levels.iter().find(|(prefix, ..)| name.starts_with(prefix));
            let Some((_, level, family)) = row.filter(|_| !others.contains(&name)) else {
                continue;
            };
            let class = class_of(*family, *level, number.try_into().unwrap());
            assert_ne!(class, OptionClass::Unknown, "{name} = {number}");
        }
    }

    #[test]
    fn options_that_endanger_others_are_not_ordinary() {
        for (level, name, class) in [
            (SOL_SOCKET, libc::SO_REUSEADDR, OptionClass::Ordinary),
            (SOL_SOCKET, libc::SO_MARK, OptionClass::Mark),
            (SOL_SOCKET, libc::SO_RCVBUFFORCE, OptionClass::BuffersForce),
            (SOL_SOCKET, libc::SO_BINDTODEVICE, OptionClass::BindToDevice),
            (SOL_SOCKET, 73, OptionClass::Memory),
            (SOL_SOCKET, libc::SO_ATTACH_FILTER, OptionClass::Filter),
            (SOL_SOCKET, libc::SO_PRIORITY, OptionClass::Scheduling),
            (IP, libc::IP_HDRINCL, OptionClass::Spoof),
            (IP, libc::IP_TRANSPARENT, OptionClass::Transparent),
            (IP, libc::IP_ADD_MEMBERSHIP, OptionClass::Multicast),
            (IP, libc::IP_OPTIONS, OptionClass::Routing),
            (IPV6, libc::IPV6_RTHDR, OptionClass::Routing),
            (IPV6, libc::IPV6_V6ONLY, OptionClass::Ordinary),
            (TCP, libc::TCP_NODELAY, OptionClass::Ordinary),
            (TCP, libc::TCP_REPAIR, OptionClass::TcpRepair),
            (TCP, libc::TCP_CONGESTION, OptionClass::Modules),
            (132, 100, OptionClass::Unknown),
            (SOL_SOCKET, 9999, OptionClass::Unknown),
        ] {
            assert_eq!(class_of(libc::AF_INET, level, name), class, "level {level}, name {name}");
        }
        assert_eq!(
            class_of_reading(libc::AF_INET, SOL_SOCKET, libc::SO_MARK),
            OptionClass::Ordinary
        );
        assert_eq!(class_of_reading(libc::AF_INET, 132, 100), OptionClass::Unknown);
        assert_eq!(class_of(libc::AF_PACKET, IP, libc::IP_HDRINCL), OptionClass::Ordinary);
    }
}
