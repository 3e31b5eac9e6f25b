//! Inputs that choose a destination.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;

use serde_json::json;
use sockbroker_proto::address::Address;
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::socket;
use sockbroker_test_support::{base64, until};

use super::index;
use crate::arena::Arena;

const RULES: &str = r#"
[[rule]]
name = "not the vault"
subject = { uids = [4200001] }
deny = ["connect", "send", "spoof", "receive", "option"]
remote = ["127.0.0.66", "10.99.0.5", "fd99::66", "239.6.6.6"]
"#;

const VAULT: &str = "127.0.0.66";

rows! { RULES;
    address_of_connect: "`connect`: the address", "not the vault", |arena| {
        let (tcp, udp) = (arena.tcp(), arena.udp());
        vec![
            arena.tries("connect", json!([tcp, [VAULT, 9]])),
            arena.tries("connect_ex", json!([udp, [VAULT, 9]])),
        ]
    };
    address_of_a_message: "`sendto`, `sendmsg`, `sendmmsg`: `msg_name`", "not the vault", |arena| {
        let udp = arena.udp();
        arena.sends(udp, &json!([VAULT, 9]), &json!([]))
    };
    v4_mapped_address: "`::ffff:a.b.c.d` leads to IPv4 (`tcp_v6_connect`, `udpv6_sendmsg`)", "not the vault", |arena| {
        let six = arena.udp6();
        let mut answers = arena.sends(six, &json!([format!("::ffff:{VAULT}"), 9]), &json!([]));
        answers.push(arena.tries("connect", json!([six, [format!("::ffff:{VAULT}"), 9]])));
        answers
    };
    raw_bytes_of_an_address: "the opaque form of an address", "not the vault", |arena| {
        let udp = arena.udp();
        let sockaddr = base64([0, 9, 127, 0, 0, 66, 0, 0, 0, 0, 0, 0, 0, 0]);
        arena.sends(udp, &json!({ "family": 2, "base64": sockaddr }), &json!([]))
    };
    address_of_fast_open: "`MSG_FASTOPEN`: the address connects (`tcp_sendmsg_fastopen`)", "not the vault", |arena| {
        let tcp = arena.tcp();
        vec![arena.tries("sendto", json!([tcp, "aGk=", "MSG_FASTOPEN", [VAULT, 9]]))]
    };
    peer_of_a_connection: "an accepted connection: its peer", "not the vault", |arena| {
        let (accepted, _peer) = accepted(arena);
        vec![
            arena.tries("send", json!([accepted, "aGk="])),
            arena.tries("sendall", json!([accepted, "aGk="])),
            arena.tries("sendmsg", json!([accepted, ["aGk="]])),
            arena.tries("recv", json!([accepted, 1])),
        ]
    };
    ignored_address: "an address on a connection, which the kernel ignores (`tcp_sendmsg`)", "not the vault", |arena| {
        let (accepted, mut peer) = accepted(arena);
        let answers = arena.sends(accepted, &json!(["127.0.0.1", 9]), &json!([]));
        peer.set_nonblocking(true).unwrap();
        assert!(peer.read(&mut [0; 8]).is_err(), "the vault received data of the attacker");
        answers
    };
    peer_of_an_adopted_connection: "the peer that a descriptor had before it was adopted", "not the vault", |arena| {
        let vault = TcpListener::bind((VAULT, 0)).unwrap();
        let connected = TcpStream::connect(vault.local_addr().unwrap()).unwrap();
        let handle = arena.attacker.lend(&connected);
        vec![arena.tries("send", json!([handle, "aGk="])), arena.tries("recv", json!([handle, 1]))]
    };
    last_peer_of_a_connection_that_is_over: "a connection that is over: `getpeername` fails, data is still there (`inet_getname`)", "not the vault", |arena| {
        let (accepted, mut peer) = accepted(arena);
        peer.write_all(b"left").unwrap();
        arena.does("shutdown", json!([accepted, "SHUT_WR"]));
        peer.shutdown(Shutdown::Both).unwrap();
        drop(peer);
        // The state of the connection decides whether the kernel still reports the peer: both cases are refused.
        vec![arena.tries("recv", json!([accepted, 9])), arena.tries("recvmsg", json!([accepted, 9]))]
    };
    peer_of_a_dead_connection_that_is_adopted: "an adopted connection that has ended: the kernel no longer reports its peer", "not the vault", |arena| {
        let vault = TcpListener::bind((VAULT, 0)).unwrap();
        let connected = TcpStream::connect(vault.local_addr().unwrap()).unwrap();
        let (mut other, _) = vault.accept().unwrap();
        other.write_all(b"left").unwrap();
        other.shutdown(Shutdown::Both).unwrap();
        connected.shutdown(Shutdown::Write).unwrap();
        until_unnamed(&connected);
        let handle = arena.attacker.lend(&connected);
        vec![arena.tries("recv", json!([handle, 9]))]
    };
    wildcard_with_a_source: "0.0.0.0 with the source of `IP_PKTINFO` (`ip_route_output_key_hash_rcu`)", "not the vault", |arena| {
        let udp = arena.udp();
        let info = base64([0, 0, 0, 0, 10, 99, 0, 5, 0, 0, 0, 0]);
        arena.sends(udp, &json!(["0.0.0.0", 9]), &json!([["IPPROTO_IP", "IP_PKTINFO", info]]))
    };
    wildcard_with_an_interface: "0.0.0.0 with the interface of `IP_PKTINFO`", "not the vault", |arena| {
        let udp = arena.udp();
        let info = base64([&index("lan0").to_ne_bytes()[..], &[0; 8]].concat());
        arena.sends(udp, &json!(["0.0.0.0", 9]), &json!([["IPPROTO_IP", "IP_PKTINFO", info]]))
    };
    mapped_wildcard_with_a_source: "`::ffff:0.0.0.0` with a v4-mapped source of `IPV6_PKTINFO`", "not the vault", |arena| {
        let six = arena.udp6();
        let source = [&[0; 10][..], &[0xff, 0xff, 10, 99, 0, 5], &[0; 4]].concat();
        let item = json!(["IPPROTO_IPV6", "IPV6_PKTINFO", base64(source)]);
        arena.sends(six, &json!(["::ffff:0.0.0.0", 9]), &json!([item]))
    };
    wildcard_on_a_bound_device: "0.0.0.0 on a socket with `SO_BINDTODEVICE`", "not the vault", |arena| {
        let (tcp, udp) = (arena.tcp(), arena.udp());
        for socket in [tcp, udp] {
            let params = json!([socket, "SOL_SOCKET", "SO_BINDTODEVICE", base64("lan0")]);
            arena.does("setsockopt", params);
        }
        let mut answers = arena.sends(udp, &json!(["0.0.0.0", 9]), &json!([]));
        answers.push(arena.tries("connect", json!([tcp, ["0.0.0.0", 9]])));
        answers
    };
    wildcard_with_a_unicast_interface: "0.0.0.0 on a socket with `IP_UNICAST_IF`", "not the vault", |arena| {
        let udp = arena.udp();
        let index = base64(index("lan0").to_be_bytes());
        arena.does("setsockopt", json!([udp, "IPPROTO_IP", 50, index]));
        arena.sends(udp, &json!(["0.0.0.0", 9]), &json!([]))
    };
    wildcard_on_a_bound_socket: "0.0.0.0 on a socket that is bound to an address", "not the vault", |arena| {
        let udp = arena.udp();
        arena.does("bind", json!([udp, ["10.99.0.5", 0]]));
        arena.sends(udp, &json!(["0.0.0.0", 9]), &json!([]))
    };
    destination_of_a_header: "`IP_HDRINCL`: the destination of the packet's own header", "not the vault", |arena| {
        let raw = arena.socket(json!(["AF_INET", "SOCK_RAW", "IPPROTO_RAW"]));
        let packet = base64(header([127, 0, 0, 1], [127, 0, 0, 66], &[]));
        vec![
            arena.tries("sendto", json!([raw, packet, 0, ["127.0.0.1", 0]])),
            arena.tries("sendmsg", json!([raw, [packet], [], 0, ["127.0.0.1", 0]])),
        ]
    };
    route_of_a_header: "`IP_HDRINCL`: a source route in the packet's own header", "not the vault", |arena| {
        let raw = arena.socket(json!(["AF_INET", "SOCK_RAW", "IPPROTO_RAW"]));
        let route = [131, 7, 4, 127, 0, 0, 66, 0];
        let packet = base64(header([127, 0, 0, 1], [127, 0, 0, 1], &route));
        vec![arena.tries("sendto", json!([raw, packet, 0, ["127.0.0.1", 0]]))]
    };
    route_of_an_option: "`IP_OPTIONS` with `LSRR`: hosts on the way", "not the vault", |arena| {
        let udp = arena.udp();
        let route = base64([1, 137, 7, 4, 127, 0, 0, 66]);
        vec![arena.tries("setsockopt", json!([udp, "IPPROTO_IP", "IP_OPTIONS", route]))]
    };
    route_of_an_item: "`IP_RETOPTS` as ancillary data: hosts on the way", "not the vault", |arena| {
        let udp = arena.udp();
        let item = json!(["IPPROTO_IP", "IP_RETOPTS", base64([131, 7, 4, 127, 0, 0, 66, 0])]);
        arena.sends(udp, &json!(["127.0.0.1", 9]), &json!([item]))
    };
    route_of_ipv6: "`IPV6_RTHDR`: hosts on the way, as an option and as ancillary data", "not the vault", |arena| {
        let six = arena.udp6();
        let vault = [&[0xfd, 0x99][..], &[0; 13], &[0x66]].concat();
        let route = base64([&[0, 2, 2, 1, 0, 0, 0, 0][..], &vault].concat());
        let item = json!(["IPPROTO_IPV6", "IPV6_RTHDR", route]);
        let mut answers = arena.sends(six, &json!(["::1", 9]), &json!([item]));
        answers.push(arena.tries("setsockopt", json!([six, "IPPROTO_IPV6", "IPV6_RTHDR", route])));
        answers
    };
    joined_group: "multicast memberships: the group", "not the vault", |arena| {
        let udp = arena.udp();
        let group = base64([239, 6, 6, 6, 127, 0, 0, 1]);
        vec![arena.tries("setsockopt", json!([udp, "IPPROTO_IP", "IP_ADD_MEMBERSHIP", group]))]
    };
    addresses_of_sctp: "SCTP items that add destinations or name associations (`sctp_msghdr_parse`)", "no rule", |arena| {
        let udp = arena.udp();
        // SCTP_SNDRCV, SCTP_SNDINFO, SCTP_DSTADDRSV4, SCTP_DSTADDRSV6.
        let items = [1, 2, 7, 8].map(|kind| json!([[132, kind, base64([127, 0, 0, 66])]]));
        // One association, and all associations.
        let [one, all] = [[&[0; 28][..], &[9, 0, 0, 0]], [&[0, 0, 0, 0, 64], &[0; 27]]];
        let named = [one, all].map(|info| json!([[132, 1, base64(info.concat())]]));
        let to = json!(["127.0.0.1", 9]);
        items.into_iter().chain(named).flat_map(|item| arena.sends(udp, &to, &item)).collect()
    };
    addresses_of_sctp_options: "`SCTP_SOCKOPT_BINDX_ADD`, `SCTP_SOCKOPT_CONNECTX`: addresses in an option", "no rule", |arena| {
        let udp = arena.udp();
        let set = |name| json!([udp, 132, name, base64([0; 16])]);
        [100, 107, 110].map(set).into_iter().map(|set| arena.tries("setsockopt", set)).collect()
    };
    descriptor_that_is_passed: "a passed descriptor: its holder connects it", "not the vault", |arena| {
        let tcp = arena.tcp();
        let wanted = json!({ "family": "AF_INET", "want_fd": true });
        vec![
            arena.tries("fileno", json!([tcp])),
            arena.tries("detach", json!([tcp])),
            arena.tries("dup", json!([tcp, true])),
            arena.tries("socket", wanted),
        ]
    };
}

/// Lets the vault connect to the attacker. Returns the accepted handle and the vault's end.
fn accepted(arena: &mut Arena) -> (u64, TcpStream) {
    let server = arena.does("create_server", json!([["127.0.0.1", 0]]))["handle"].clone();
    let port = arena.does("getsockname", json!([server]))[1].as_u64().unwrap();
    let vault = socket::create(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
    let address = |host: [u8; 4], port: u64| {
        let (host, port) = (host.into(), u16::try_from(port).unwrap());
        RawAddress::encode(&Address::Inet { host, port })
    };
    socket::bind(vault.as_fd(), &address([127, 0, 0, 66], 0)).unwrap();
    socket::connect(vault.as_fd(), &address([127, 0, 0, 1], port)).unwrap();
    let accepted = arena.does("accept", json!([server]))["handle"].as_u64().unwrap();
    (accepted, vault.into())
}

/// Waits until the kernel no longer reports the peer, as after the end of a connection.
fn until_unnamed(stream: &TcpStream) {
    until("the kernel no longer reports the peer", || stream.peer_addr().is_err());
}

/// Encodes an IPv4 header with these options and no data.
fn header(source: [u8; 4], destination: [u8; 4], options: &[u8]) -> Vec<u8> {
    let words = u8::try_from(5 + options.len() / 4).unwrap();
    let length = u8::try_from(20 + options.len()).unwrap();
    [&[0x40 | words, 0, 0, length, 0, 0, 0, 0, 64, 255, 0, 0][..], &source, &destination, options]
        .concat()
}
