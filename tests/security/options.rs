//! Options and ioctl requests that affect more than the socket.

use std::process::Command;

use serde_json::json;
use sockbroker_test_support::base64;

attack!(options_without_a_grant_cannot_be_set, mut arena, {
    let (tcp, udp) = (arena.tcp(), arena.udp());
    let set = "socket.setsockopt";
    for (socket, level, name, value, lacks) in [
        (tcp, "SOL_SOCKET", json!("SO_MARK"), json!(7), "\"mark\""),
        (udp, "SOL_SOCKET", json!("SO_BINDTODEVICE"), json!(base64("lo\0")), "\"bind-to-device\""),
        // SO_BINDTOIFINDEX; 62 in asm-generic/socket.h.
        (udp, "SOL_SOCKET", json!(62), json!(1), "\"bind-to-device\""),
        (tcp, "IPPROTO_IP", json!("IP_TRANSPARENT"), json!(1), "transparent"),
        // IP_FREEBIND; 15 in linux/in.h.
        (tcp, "IPPROTO_IP", json!(15), json!(1), "transparent"),
        // SO_RCVBUFFORCE.
        (tcp, "SOL_SOCKET", json!(33), json!(1 << 26), "\"buffers-force\""),
        // SO_RESERVE_MEM.
        (tcp, "SOL_SOCKET", json!(73), json!(1 << 20), "\"memory\""),
        // TCP_REPAIR; 19 in linux/tcp.h.
        (tcp, "IPPROTO_TCP", json!(19), json!(1), "\"tcp-repair\""),
        (tcp, "IPPROTO_TCP", json!("TCP_CONGESTION"), json!(base64("reno")), "\"modules\""),
        (
            udp,
            "IPPROTO_IP",
            json!("IP_OPTIONS"),
            json!(base64([131, 7, 4, 127, 0, 0, 66, 0])),
            "\"routing\"",
        ),
    ] {
        arena.denied(set, json!([socket, level, name, value]), "no rule", lacks);
    }
    let mark = arena.attacker.call("socket.getsockopt", json!([tcp, "SOL_SOCKET", "SO_MARK"]));
    assert_eq!(*mark.result(), 0);
});

attack!(multicast_groups_without_a_grant_cannot_be_joined, mut arena, {
    let udp = arena.udp();
    // struct ip_mreqn.
    let group = base64([224, 0, 0, 251, 127, 0, 0, 1, 1, 0, 0, 0]);
    let params = json!([udp, "IPPROTO_IP", "IP_ADD_MEMBERSHIP", group]);
    arena.denied("socket.setsockopt", params, "no rule", "multicast");
    let six = arena.udp6();
    let group = base64([&[0xff, 2][..], &[0; 13], &[0xfb], &1_u32.to_ne_bytes()].concat());
    let params = json!([six, "IPPROTO_IPV6", "IPV6_JOIN_GROUP", group]);
    arena.denied("socket.setsockopt", params, "no rule", "multicast");
    let shown = Command::new("ip").args(["maddress", "show", "dev", "lo"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&shown.stdout).contains("224.0.0.251"));
});

attack!(pointers_and_descriptors_in_options_are_refused, mut arena, {
    let (left, _) = arena.attacker.pair();
    // A struct sock_fprog with an address in the broker, and a descriptor of the broker.
    let program = base64([&1_u64.to_ne_bytes()[..], &0x7f00_0000_0000_u64.to_ne_bytes()].concat());
    for (name, value) in [
        // SO_ATTACH_FILTER, SO_ATTACH_BPF, SO_ATTACH_REUSEPORT_CBPF, SO_ATTACH_REUSEPORT_EBPF.
        (26, json!(program)),
        (50, json!(3)),
        (51, json!(program)),
        (52, json!(3)),
    ] {
        let refused =
            arena.attacker.call("socket.setsockopt", json!([left, 1, name, value])).fault();
        assert_eq!(refused.errno(), "EACCES", "{name}");
    }
    // SO_GET_FILTER; and SO_PEERPIDFD, which is not in a granted class either.
    let refused = arena.attacker.call("socket.getsockopt", json!([left, 1, 26, 64])).fault();
    assert_eq!(refused.errno(), "EACCES");
    arena.denied("socket.getsockopt", json!([left, 1, 77, 64]), "no rule", "\"unknown\"");
    let mut root = arena.broker.lsp();
    let (own, _) = root.pair();
    let refused = root.call("socket.getsockopt", json!([own, 1, 77, 64])).fault();
    assert_eq!(refused.errno(), "EACCES", "refused to root too");
});

attack!(writing_ioctl_requests_are_unknown, mut arena, {
    let udp = arena.udp();
    // SIOCSIFFLAGS, SIOCSIFADDR, SIOCADDRT, SIOCSIFNAME, SIOCETHTOOL, SIOCBRADDBR.
    for request in [0x8914, 0x8916, 0x890b, 0x8923, 0x8946, 0x89a0] {
        let refused = arena.attacker.call("socket.ioctl", json!([udp, request, "lo"])).fault();
        let known = [(1000, "OSError"), (3000, "denied"), (-32602, "argument")];
        assert!(known.contains(&refused.kind()), "{request:#x}: {refused:?}");
    }
    arena.denied("socket.ioctl", json!([udp, "SIOCGIFADDR", "lo"]), "no rule", "interfaces");
    let shown = Command::new("ip").args(["link", "show", "lo"]).output().unwrap();
    assert!(String::from_utf8_lossy(&shown.stdout).contains("LOOPBACK,UP"));
});

attack!(socket_filter_requires_its_grant, mut arena, {
    let udp = arena.udp();
    // ret 0
    let program = base64([6, 0, 0, 0, 0, 0, 0, 0]);
    arena.denied("socket.attach_filter", json!([udp, program]), "no rule", "\"filter\"");
    arena.denied("socket.detach_filter", json!([udp]), "no rule", "\"filter\"");
});
