//! Addresses, packets and socket types without a grant.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;

use serde_json::{Value, json};
use sockbroker_test_support::base64;
use sockbroker_test_support::lsp::RequestParts;

use crate::arena::{POLICY, Victim, assert_denied, attacker, run_with};

attack!(ping_grant_allows_no_raw_socket, mut arena, {
    let victim = Victim::at("127.0.0.1");
    for parameters in [
        json!(["AF_INET", "SOCK_RAW", "IPPROTO_ICMP"]),
        json!(["AF_INET", "SOCK_RAW", "IPPROTO_RAW"]),
        json!(["AF_INET", "SOCK_RAW", "IPPROTO_UDP"]),
        json!(["AF_INET6", "SOCK_RAW", "IPPROTO_ICMPV6"]),
    ] {
        arena.denied("socket.socket", parameters, "no rule", "SOCK_RAW");
    }
    victim.assert_received_nothing();
});

attack!(ping_socket_refuses_custom_headers, mut arena, {
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
    let ping = arena.socket(json!(["AF_INET", "SOCK_DGRAM", "IPPROTO_ICMP"]));
    arena.denied(
        "socket.setsockopt",
        json!([ping, "IPPROTO_IP", "IP_HDRINCL", 1]),
        "no rule",
        "spoof",
    );
    // IPV6_HDRINCL; 36 in linux/in6.h.
    let six = arena.udp6();
    arena.denied("socket.setsockopt", json!([six, "IPPROTO_IPV6", 36, 1]), "no rule", "spoof");
});

attack!(packets_cannot_be_captured, mut arena, {
    for parameters in [
        json!(["AF_PACKET", "SOCK_RAW", 768]),
        json!(["AF_PACKET", "SOCK_DGRAM", 0]),
        // The obsolete SOCK_PACKET, and the network sniffer of Python's documentation.
        json!(["AF_INET", 10, 768]),
        json!(["AF_INET", "SOCK_RAW", "IPPROTO_IP"]),
    ] {
        arena.denied("socket.socket", parameters, "no rule", "create");
    }
});

attack!(ports_outside_the_grant_cannot_be_bound, mut arena, {
    let tcp = arena.tcp();
    for (host, port) in [("0.0.0.0", 81), ("127.0.0.1", 80), ("127.0.0.1", 1023), ("0.0.0.0", 8080)]
    {
        let lacks = format!("local_ports = [\"{port}\"]");
        arena.denied("socket.bind", json!([tcp, [host, port]]), "no rule", &lacks);
    }
    let six = arena.socket(json!(["AF_INET6", "SOCK_STREAM"]));
    for host in ["::ffff:127.0.0.1", "::ffff:0.0.0.0"] {
        arena.denied("socket.bind", json!([six, [host, 81]]), "no rule", "local_ports = [\"81\"]");
    }
    arena.attacker.call("socket.bind", json!([tcp, ["0.0.0.0", 80]])).result();
    arena.denied("socket.create_server", json!([["127.0.0.1", 443]]), "no rule", "443");
});

attack!(v4_mapped_address_is_checked_as_ipv4, mut arena, {
    let victim = Victim::at("127.0.0.66");
    let (udp, six) = (arena.udp(), arena.udp6());
    let rule = "not the vault";
    for (socket, host) in [(udp, "127.0.0.66"), (six, "::ffff:127.0.0.66"), (six, "::ffff:7f00:42")]
    {
        let address = json!([host, victim.port()]);
        for (method, params) in [
            ("socket.sendto", json!([socket, "aGk=", 0, address])),
            ("socket.sendmsg", json!([socket, ["aGk="], [], 0, address])),
            ("socket.connect", json!([socket, address])),
        ] {
            arena.denied(method, params, rule, "127.0.0.66");
        }
    }
    victim.assert_received_nothing();
});

attack!(opaque_address_is_checked_by_its_content, mut arena, {
    let victim = Victim::at("127.0.0.66");
    let udp = arena.udp();
    let mut sockaddr = victim.port().to_be_bytes().to_vec();
    sockaddr.extend([127, 0, 0, 66, 0, 0, 0, 0, 0, 0, 0, 0]);
    let address = json!({ "family": 2, "base64": base64(&sockaddr) });
    arena.denied("socket.connect", json!([udp, address]), "not the vault", "127.0.0.66");
    arena.denied("socket.sendto", json!([udp, "aGk=", 0, address]), "not the vault", "127.0.0.66");
    let other = json!({ "family": 10, "base64": base64(&sockaddr) });
    let refused = arena.attacker.call("socket.sendto", json!([udp, "aGk=", 0, other])).fault();
    assert_eq!(refused.exception(), "ValueError");
    victim.assert_received_nothing();
});

attack!(wildcard_destination_is_checked_as_the_local_host, mut arena, {
    let door = TcpListener::bind("127.0.0.1:9999").unwrap();
    let six = TcpListener::bind("[::1]:9999").unwrap();
    door.set_nonblocking(true).unwrap();
    six.set_nonblocking(true).unwrap();
    for (family, host) in [
        ("AF_INET", "0.0.0.0"),
        ("AF_INET", "127.0.0.1"),
        ("AF_INET6", "::"),
        ("AF_INET6", "::1"),
        ("AF_INET6", "::ffff:0.0.0.0"),
        ("AF_INET6", "::ffff:127.0.0.1"),
    ] {
        let tcp = arena.socket(json!([family, "SOCK_STREAM"]));
        let refused = arena.attacker.call("socket.connect", json!([tcp, [host, 9999]]));
        assert_denied(&refused, "not the back door", "9999", host);
    }
    assert!(door.accept().is_err() && six.accept().is_err(), "the connection arrived");
});

attack!(connection_does_not_allow_sends_to_another_address, mut arena, {
    let (friend, victim) = (Victim::at("127.0.0.1"), Victim::at("127.0.0.66"));
    let udp = arena.udp();
    arena.attacker.call("socket.connect", json!([udp, ["127.0.0.1", friend.port()]])).result();
    let vault = json!(["127.0.0.66", victim.port()]);
    let rule = "not the vault";
    arena.denied("socket.sendto", json!([udp, "aGk=", 0, vault]), rule, "send");
    arena.denied("socket.sendmsg", json!([udp, ["aGk="], [], 0, vault]), rule, "send");
    arena.attacker.call("socket.send", json!([udp, "aGk="])).result();
    assert_eq!(friend.receive(), b"hi");
    victim.assert_received_nothing();
});

attack!(sendmmsg_sends_nothing_if_one_message_is_denied, mut arena, {
    let (friend, victim) = (Victim::at("127.0.0.1"), Victim::at("127.0.0.66"));
    let udp = arena.udp();
    let to = |host: &str, port: u16| json!({ "buffers": ["aGk="], "address": [host, port] });
    let messages = json!([to("127.0.0.1", friend.port()), to("127.0.0.66", victim.port())]);
    arena.denied("socket.sendmmsg", json!([udp, messages]), "not the vault", "127.0.0.66");
    friend.assert_received_nothing();
    victim.assert_received_nothing();
});

#[test]
fn chosen_source_address_is_checked() {
    let not_as = "\n[[rule]]\nname = \"not from another address\"\nsubject = { everyone = true }\ndeny = [\"send\"]\nlocal = [\"127.0.0.77\"]\n";
    run_with(
        concat!(module_path!(), "::chosen_source_address_is_checked"),
        move |start| {
            start.folder().write("policy.toml", &format!("{POLICY}{not_as}"));
            start
        },
        |mut arena| {
            let victim = Victim::at("127.0.0.1");
            let udp = arena.udp();
            arena.attacker.call("socket.bind", json!([udp, ["127.0.0.1", 0]])).result();
            let address = json!(["127.0.0.1", victim.port()]);
            // struct in_pktinfo: interface, source, destination.
            let info = base64([0, 0, 0, 0, 127, 0, 0, 77, 0, 0, 0, 0]);
            let item = json!(["IPPROTO_IP", "IP_PKTINFO", info]);
            let params = json!([udp, ["aGk="], [item], 0, address]);
            arena.denied("socket.sendmsg", params, "not from another address", "127.0.0.77");
            let message = json!({ "buffers": ["aGk="], "ancdata": [item], "address": address });
            let params = json!([udp, [message]]);
            arena.denied("socket.sendmmsg", params, "not from another address", "127.0.0.77");
            victim.assert_received_nothing();
        },
    );
}

attack!(fast_open_does_not_connect_to_denied_addresses, mut arena, {
    std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "3").unwrap();
    let victim = TcpListener::bind("127.0.0.66:0").unwrap();
    victim.set_nonblocking(true).unwrap();
    let address = json!(["127.0.0.66", victim.local_addr().unwrap().port()]);
    let tcp = arena.tcp();
    let flags = "MSG_FASTOPEN";
    arena.denied(
        "socket.sendto",
        json!([tcp, "aGk=", flags, address]),
        "not the vault",
        "127.0.0.66",
    );
    let params = json!([tcp, ["aGk="], [], flags, address]);
    arena.denied("socket.sendmsg", params, "not the vault", "127.0.0.66");
    assert!(victim.accept().is_err(), "the connection arrived");
});

attack!(reconnected_socket_is_checked_again, mut arena, {
    let (friend, victim) = (Victim::at("127.0.0.1"), Victim::at("127.0.0.66"));
    let udp = arena.udp();
    arena.attacker.call("socket.connect", json!([udp, ["127.0.0.1", friend.port()]])).result();
    let unspecified = json!({ "family": 0, "base64": base64([0; 14]) });
    arena.attacker.call("socket.connect", json!([udp, unspecified]));
    let vault = json!(["127.0.0.66", victim.port()]);
    arena.denied("socket.connect", json!([udp, vault]), "not the vault", "connect");
    arena.attacker.call("socket.send", json!([udp, "aGk="]));
    victim.assert_received_nothing();
});

attack!(create_connection_and_names_are_checked, mut arena, {
    let victim = TcpListener::bind("127.0.0.66:0").unwrap();
    victim.set_nonblocking(true).unwrap();
    let port = victim.local_addr().unwrap().port();
    // Without the grant to resolve, not even an address literal is resolved.
    arena.denied("socket.create_connection", json!([["127.0.0.66", port]]), "no rule", "resolve");
    let tcp = arena.tcp();
    arena.denied("socket.connect", json!([tcp, ["localhost", port]]), "no rule", "resolve");
    for (method, params) in [
        ("socket.getaddrinfo", json!(["localhost", 80])),
        ("socket.gethostbyname", json!(["localhost"])),
        ("socket.gethostbyaddr", json!(["127.0.0.1"])),
        ("socket.getnameinfo", json!([["127.0.0.1", 80], 0])),
        ("socket.getservbyname", json!(["http"])),
    ] {
        arena.denied(method, params, "no rule", "resolve");
    }
    assert!(victim.accept().is_err(), "the connection arrived");
});

attack!(passed_descriptor_does_not_bypass_create, mut arena, {
    // As if a privileged process had passed them.
    let packet = sockbroker_sys::socket::create(17, 3, 0).unwrap();
    let raw = sockbroker_sys::socket::create(2, 3, 1).unwrap();
    for (socket, family) in [(&packet, "AF_PACKET"), (&raw, "AF_INET")] {
        let descriptors = [socket.as_fd()];
        for params in [
            Value::Null,
            json!({ "family": "AF_INET", "type": "SOCK_DGRAM", "proto": 17 }),
            json!({ "family": "AF_UNIX", "type": "SOCK_STREAM", "proto": 0 }),
        ] {
            let parts = RequestParts::descriptors(&descriptors);
            let refused = arena.attacker.call_with_parts("socket.fromfd", params.clone(), parts);
            assert_denied(&refused, "no rule", family, &params.to_string());
        }
    }
    assert_eq!(arena.attacker.call("session.info", Value::Null).result()["handles"], 0);
});

attack!(declared_type_of_an_adopted_socket_is_ignored, mut arena, {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let descriptors = [theirs.as_fd()];
    let parts = RequestParts::descriptors(&descriptors);
    let stated = json!({ "family": "AF_INET", "type": "SOCK_DGRAM", "proto": 17 });
    let handle = arena.attacker.call_with_parts("socket.fromfd", stated, parts).handle();
    sockbroker_sys::option::set_int(ours.as_fd(), 1, 16, 1).unwrap();
    // It is still a Unix socket: sent messages have the attacker's credentials.
    arena.attacker.call("socket.send", json!([handle, "aGk="])).result();
    let seen = sockbroker_sys::message::receive_message(ours.as_fd(), 8, 64, 0).unwrap();
    let sockbroker_sys::control::ControlMessage::Data { data, .. } = &seen.control[0] else {
        panic!("no credentials: {seen:?}");
    };
    assert_eq!(data[4..8], attacker().uid().to_ne_bytes());
});

attack!(descriptors_without_a_grant_are_not_passed, mut arena, {
    let tcp = arena.tcp();
    for method in ["socket.fileno", "socket.detach"] {
        arena.denied(method, json!([tcp]), "no rule", "handover");
    }
    let wanted = json!({ "family": "AF_INET", "want_fd": true });
    arena.denied("socket.socket", wanted, "no rule", "handover");
    let netlink = arena.socket(json!(["AF_NETLINK", "SOCK_RAW", "NETLINK_ROUTE"]));
    arena.denied("socket.fileno", json!([netlink]), "no rule", "unrevocable");
    // The handle is still open: the refused detach had no effect.
    arena.attacker.call("socket.gettimeout", json!([tcp])).result();
});

/// Encodes `RTM_NEWADDR` with 127.9.9.9/32 on interface 1 (`rtnetlink(7)`).
fn new_address() -> Vec<u8> {
    let mut message = Vec::new();
    message.extend(32_u32.to_ne_bytes());
    message.extend(20_u16.to_ne_bytes());
    message.extend(0x401_u16.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([2, 32, 0, 0]);
    message.extend(1_u32.to_ne_bytes());
    message.extend([8, 0, 2, 0, 127, 9, 9, 9]);
    message
}

attack!(netlink_read_grant_allows_no_changes, mut arena, {
    let netlink = arena.socket(json!(["AF_NETLINK", "SOCK_RAW", "NETLINK_ROUTE"]));
    let data = base64(new_address());
    let kernel = json!([0, 0]);
    // A read request before it does not hide it.
    let mut both = vec![20, 0, 0, 0];
    both.extend(18_u16.to_ne_bytes());
    both.extend(0x301_u16.to_ne_bytes());
    both.extend([0; 12]);
    both[0] = 20;
    both.extend(new_address());
    for (method, params) in [
        ("socket.send", json!([netlink, data])),
        ("socket.sendto", json!([netlink, data, 0, kernel])),
        ("socket.sendmsg", json!([netlink, [data], [], 0, kernel])),
        ("socket.sendmmsg", json!([netlink, [{ "buffers": [data] }]])),
        ("socket.sendall", json!([netlink, base64(both)])),
    ] {
        let refused = arena.attacker.call(method, params).fault();
        assert_eq!(refused.kind(), (3000, "denied"), "{method}: {refused:?}");
        assert!(refused.data.grant.unwrap().contains("netlink"), "{method}");
    }
    let shown = Command::new("ip").args(["address", "show"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&shown.stdout).contains("127.9.9.9"));
    for (protocol, name) in [(16, "NETLINK_GENERIC"), (12, "NETLINK_NETFILTER")] {
        arena.denied("socket.socket", json!(["AF_NETLINK", "SOCK_RAW", protocol]), "no rule", name);
    }
});

attack!(no_call_uses_the_old_policy_after_a_reload, mut arena, {
    let victim = TcpListener::bind("127.0.0.1:8123").unwrap();
    // Until a client reports that it is the last: the queue has the order of the connections.
    let counter = std::thread::spawn(move || {
        let is_last = |mut peer: &TcpStream| {
            let mut output_text = Vec::new();
            // A peer that resets its connection sends nothing.
            peer.read_to_end(&mut output_text).is_ok() && output_text == b"the last"
        };
        victim.incoming().map(Result::unwrap).take_while(|peer| !is_last(peer)).count()
    });
    let file = arena.broker.folder().join("policy.toml");
    let closed =
        POLICY.replace("[\"127.0.0.0/8\", \"::1\"]\nremote_ports", "[\"192.0.2.1\"]\nremote_ports");
    assert_ne!(closed, POLICY);
    let mut root = arena.broker.lsp();
    let mut succeeded = 0;
    for round in 0..20 {
        let open = round % 2 == 0;
        std::fs::write(&file, if open { POLICY } else { &closed }).unwrap();
        // Some calls are in flight while the policy changes.
        let ahead: Vec<_> = (0..5)
            .map(|_| {
                let tcp = arena.tcp();
                arena.attacker.send("socket.connect", json!([tcp, ["127.0.0.1", 8123]]))
            })
            .collect();
        root.call("admin.reload", Value::Null).result();
        let tcp = arena.tcp();
        let answer = arena.attacker.call("socket.connect", json!([tcp, ["127.0.0.1", 8123]]));
        assert_eq!(!answer.is_fault(), open, "{round}: {answer:?}");
        for id in ahead {
            succeeded += usize::from(!arena.attacker.answer(id).is_fault());
        }
        succeeded += usize::from(open);
        arena.attacker.call("session.close", Value::Null).result();
        arena.attacker = attacker().lsp(&arena.broker);
    }
    TcpStream::connect("127.0.0.1:8123").unwrap().write_all(b"the last").unwrap();
    assert_eq!(counter.join().unwrap(), succeeded, "a refused call has connected");
});
