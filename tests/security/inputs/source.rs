//! Inputs that choose a source address.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd as _;

use serde_json::json;
use sockbroker_proto::address::Address;
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::socket;
use sockbroker_test_support::base64;

const RULES: &str = r#"
[[rule]]
name = "not as the service"
subject = { uids = [4200001] }
deny = ["bind", "connect", "send", "spoof"]
local = ["127.0.0.77", "fd99::77"]
"#;

/// Encodes a `struct in_pktinfo` without an interface.
fn info(source: [u8; 4]) -> String {
    base64([&[0; 4][..], &source, &[0; 4]].concat())
}

/// Encodes a `struct in6_pktinfo` with the address `fd99::77` and without an interface.
fn info6() -> String {
    base64([&[0xfd, 0x99][..], &[0; 13], &[0x77], &[0; 4]].concat())
}

rows! { RULES;
    address_of_bind: "`bind`: the address", "not as the service", |arena| {
        let (udp, six) = (arena.udp(), arena.udp6());
        vec![
            arena.tries("bind", json!([udp, ["127.0.0.77", 0]])),
            arena.tries("bind", json!([six, ["::ffff:127.0.0.77", 0]])),
            arena.tries("bind", json!([six, ["fd99::77", 0]])),
            arena.tries("bind", json!([udp, ["0.0.0.0", 0]])),
        ]
    };
    item_of_a_message: "`IP_PKTINFO`: the source", "not as the service", |arena| {
        let udp = arena.udp();
        arena.does("bind", json!([udp, ["127.0.0.1", 0]]));
        let item = json!(["IPPROTO_IP", "IP_PKTINFO", info([127, 0, 0, 77])]);
        arena.sends(udp, &json!(["127.0.0.1", 9]), &json!([item]))
    };
    last_of_several_items: "several `IP_PKTINFO`: the kernel takes the last (`ip_cmsg_send`)", "not as the service", |arena| {
        let udp = arena.udp();
        arena.does("bind", json!([udp, ["127.0.0.1", 0]]));
        let item = |last: u8| json!(["IPPROTO_IP", "IP_PKTINFO", info([127, 0, 0, last])]);
        let to = json!(["127.0.0.1", 9]);
        let mut answers = arena.sends(udp, &to, &json!([item(1), item(77)]));
        answers.extend(arena.sends(udp, &to, &json!([item(77), item(1)])));
        answers
    };
    item_that_the_kernel_passes_over: "`IP_PKTINFO` towards IPv6, a sticky `IPV6_PKTINFO` towards IPv4: the socket's own source", "not as the service", |arena| {
        let (six, sticky) = (arena.udp6(), arena.udp6());
        let four = json!(["IPPROTO_IP", "IP_PKTINFO", info([127, 0, 0, 1])]);
        let mut answers = arena.sends(six, &json!(["fd99::66", 9]), &json!([four]));
        let own = base64([&[0; 15][..], &[1], &[0; 4]].concat());
        arena.does("setsockopt", json!([sticky, "IPPROTO_IPV6", "IPV6_PKTINFO", own]));
        answers.extend(arena.sends(sticky, &json!(["::ffff:127.0.0.1", 9]), &json!([])));
        answers
    };
    item_on_a_connection: "`IP_PKTINFO` on a connection, which the kernel ignores (`tcp_sendmsg`)", "not as the service", |arena| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = socket::create(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        let at = |host: [u8; 4], port| RawAddress::encode(&Address::Inet { host: host.into(), port });
        let port = listener.local_addr().unwrap().port();
        socket::bind(stream.as_fd(), &at([127, 0, 0, 77], 0)).unwrap();
        socket::connect(stream.as_fd(), &at([127, 0, 0, 1], port)).unwrap();
        let handle = arena.attacker.lend(&stream);
        let item = json!(["IPPROTO_IP", "IP_PKTINFO", info([127, 0, 0, 1])]);
        vec![arena.tries("sendmsg", json!([handle, ["aGk="], [item]]))]
    };
    item_behind_one_of_another_level: "`IPV6_PKTINFO` behind an item of IPv4 (`ip6_datagram_send_ctl`)", "not as the service", |arena| {
        let six = arena.udp6();
        arena.does("bind", json!([six, ["::1", 0]]));
        let four = json!(["IPPROTO_IP", "IP_PKTINFO", info([127, 0, 0, 1])]);
        let item = json!(["IPPROTO_IPV6", "IPV6_PKTINFO", info6()]);
        arena.sends(six, &json!(["::1", 9]), &json!([four, item]))
    };
    mapped_item: "`IPV6_PKTINFO` with a v4-mapped source", "not as the service", |arena| {
        let six = arena.udp6();
        arena.does("bind", json!([six, ["::1", 0]]));
        let source = [&[0; 10][..], &[0xff, 0xff, 127, 0, 0, 77], &[0; 4]].concat();
        let item = json!(["IPPROTO_IPV6", "IPV6_PKTINFO", base64(source)]);
        arena.sends(six, &json!(["::ffff:127.0.0.1", 9]), &json!([item]))
    };
    old_item_of_ipv6: "`IPV6_2292PKTINFO`: the source", "not as the service", |arena| {
        let six = arena.udp6();
        arena.does("bind", json!([six, ["::1", 0]]));
        arena.sends(six, &json!(["::1", 9]), &json!([["IPPROTO_IPV6", 2, info6()]]))
    };
    sticky_item: "`IPV6_PKTINFO` as an option: the source of all later messages", "not as the service", |arena| {
        let six = arena.udp6();
        arena.does("bind", json!([six, ["::1", 0]]));
        vec![arena.tries("setsockopt", json!([six, "IPPROTO_IPV6", "IPV6_PKTINFO", info6()]))]
    };
    source_of_multicast: "`IP_MULTICAST_IF` with an address: the source of multicast", "not as the service", |arena| {
        let udp = arena.udp();
        arena.does("bind", json!([udp, ["127.0.0.1", 0]]));
        let short = base64([127, 0, 0, 77]);
        let long = base64([0, 0, 0, 0, 127, 0, 0, 77, 0, 0, 0, 0]);
        let number = i32::from_ne_bytes([127, 0, 0, 77]);
        [json!(short), json!(long), json!(number)]
            .map(|value| json!([udp, "IPPROTO_IP", "IP_MULTICAST_IF", value]))
            .map(|set| arena.tries("setsockopt", set))
            .into()
    };
    source_of_a_header: "`IP_HDRINCL`: the source of the packet's own header", "not as the service", |arena| {
        let raw = arena.socket(json!(["AF_INET", "SOCK_RAW", "IPPROTO_RAW"]));
        arena.does("bind", json!([raw, ["127.0.0.1", 0]]));
        let header = [
            &[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 255, 0, 0][..],
            &[127, 0, 0, 77],
            &[127, 0, 0, 1],
        ];
        vec![arena.tries("sendto", json!([raw, base64(header.concat()), 0, ["127.0.0.1", 0]]))]
    };
    source_of_create_connection: "`create_connection`: `source_address`", "not as the service", |arena| {
        let udp = arena.udp();
        let adopted = UdpSocket::bind("127.0.0.77:0").unwrap();
        let adopted = arena.attacker.lend(&adopted);
        vec![
            arena.tries("bind", json!([udp, ["127.0.0.77", 0]])),
            // The address that a descriptor was bound to before it was adopted.
            arena.tries("sendto", json!([adopted, "aGk=", 0, ["127.0.0.1", 9]])),
            arena.tries("connect", json!([adopted, ["127.0.0.1", 9]])),
        ]
    };
}
