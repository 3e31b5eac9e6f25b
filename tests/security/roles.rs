//! The shipped roles: each allows an unprivileged user its purpose and nothing else.

use std::fs;

use serde_json::{Value, json};
use sockbroker_test_support::namespace::inside_with_users;
use sockbroker_test_support::{LspClient, Start, base64};

use crate::arena::{PROGRAM, assert_denied, attacker, neighbour};

/// Returns a shipped policy file, with the attacker in place of the group, which this machine might not have.
pub(crate) fn shipped(name: &str) -> String {
    let path = format!("{}/../deploy/config/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(path).unwrap();
    let member = |line: &str| {
        let about = line.starts_with("subject = ");
        (if about { "subject = { uids = [4200001] }" } else { line }).to_owned()
    };
    text.lines().map(member).collect::<Vec<_>>().join("\n")
}

/// Runs a test with a member of a role, which also has the grants of the group `sockbroker`.
fn holding(test: &str, role: &str, body: impl FnOnce(LspClient, LspClient) + Send + 'static) {
    let (_, test) = test.split_once("::").unwrap();
    let role = shipped(&format!("policy.d/{role}.toml")).replace("version = 1", "");
    let policy = format!("{}\n{role}", shipped("policy.toml"));
    inside_with_users(test, move || {
        fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
        let broker = Start::new(PROGRAM).policy(&policy).start().open_to_all();
        body(attacker().lsp(&broker), neighbour().lsp(&broker));
    });
}

/// Makes calls that must be refused, each with this missing grant.
fn refused(member: &mut LspClient, calls: &[(&str, Value, &str)]) {
    for (method, params, lacks) in calls {
        let answer = member.call(method, params.clone());
        assert_denied(&answer, "no rule", lacks, &format!("{method} {params}"));
    }
}

#[test]
fn ping_role_allows_only_ping() {
    let test = concat!(module_path!(), "::ping_role_allows_only_ping");
    holding(test, "ping", |mut member, _| {
        for (family, protocol, host, echo, reply) in [
            ("AF_INET", "IPPROTO_ICMP", "127.0.0.1", "CAAAAAAAAAE=", "AA"),
            ("AF_INET6", "IPPROTO_ICMPV6", "::1", "gAAAAAAAAAE=", "gQ"),
        ] {
            let ping = member.call("socket.socket", json!([family, "SOCK_DGRAM", protocol]));
            let ping = ping.handle();
            member.call("socket.settimeout", json!([ping, 5])).result();
            member.call("socket.sendto", json!([ping, echo, 0, [host, 0]])).result();
            let answer = member.call("socket.recv", json!([ping, 64])).result().clone();
            assert!(answer["data"].as_str().unwrap().starts_with(reply), "{answer}");
        }
        let tcp = member.call("socket.socket", json!(["AF_INET", "SOCK_STREAM"])).handle();
        refused(
            &mut member,
            &[
                ("socket.socket", json!(["AF_INET", "SOCK_RAW", "IPPROTO_UDP"]), "SOCK_RAW"),
                ("socket.socket", json!(["AF_INET", "SOCK_RAW", "IPPROTO_ICMP"]), "SOCK_RAW"),
                ("socket.socket", json!(["AF_PACKET", "SOCK_RAW", 0]), "AF_PACKET"),
                ("socket.bind", json!([tcp, ["0.0.0.0", 80]]), "local_ports = [\"80\"]"),
                ("socket.sethostname", json!(["mine"]), "sethostname"),
            ],
        );
    });
}

#[test]
fn ports_role_allows_port_80_and_not_81() {
    let test = concat!(module_path!(), "::ports_role_allows_port_80_and_not_81");
    holding(test, "ports", |mut member, _| {
        let listener = member.call("socket.socket", json!(["AF_INET", "SOCK_STREAM"])).handle();
        refused(
            &mut member,
            &[("socket.bind", json!([listener, ["0.0.0.0", 81]]), "local_ports = [\"81\"]")],
        );
        member.call("socket.bind", json!([listener, ["0.0.0.0", 80]])).result();
        member.call("socket.listen", json!([listener, 1])).result();
        let client = member.call("socket.create_connection", json!([["127.0.0.1", 80]])).handle();
        let accepted = member.call("socket.accept", json!([listener])).handle();
        member.call("socket.sendall", json!([client, "aGk="])).result();
        let received = member.call("socket.recv", json!([accepted, 10])).result().clone();
        assert_eq!(received["data"], "aGk=");
    });
}

#[test]
fn capture_role_captures_and_does_not_send_or_receive_descriptors() {
    let test =
        concat!(module_path!(), "::capture_role_captures_and_does_not_send_or_receive_descriptors");
    holding(test, "capture", |mut member, mut neighbour| {
        let packets = member.call("socket.socket", json!(["AF_PACKET", "SOCK_RAW", 768])).handle();
        member.call("socket.bind", json!([packets, ["lo", 0]])).result();
        member.call("socket.settimeout", json!([packets, 5])).result();
        let udp = member.call("socket.socket", json!(["AF_INET", "SOCK_DGRAM"])).handle();
        member.call("socket.sendto", json!([udp, "aGVsbG8=", 0, ["127.0.0.1", 9]])).result();
        assert!(
            member.call("socket.recv", json!([packets, 2000])).result()["n"].as_u64() > Some(40)
        );
        let frame = "A".repeat(80);
        refused(
            &mut member,
            &[
                ("socket.send", json!([packets, frame]), "inject"),
                ("socket.fileno", json!([packets]), "handover"),
                ("socket.detach", json!([packets]), "handover"),
            ],
        );
        // A user without a role has no grant at all.
        let answer = neighbour.call("socket.socket", json!(["AF_INET", "SOCK_DGRAM"]));
        assert_denied(&answer, "no rule", "create", "socket.socket");
    });
}

#[test]
fn scapy_role_sends_any_packet_and_changes_nothing_else() {
    // `rtnetlink(7)`.
    const GET_LINKS: u16 = 18;
    const DELETE_LINK: u16 = 17;
    let test = concat!(module_path!(), "::scapy_role_sends_any_packet_and_changes_nothing_else");
    holding(test, "scapy", |mut member, _| {
        // A frame, received by a packet socket of the same user.
        let packets = member.call("socket.socket", json!(["AF_PACKET", "SOCK_RAW", 3])).handle();
        member.call("socket.bind", json!([packets, ["lo", 3]])).result();
        let frame = base64([[0; 12].as_slice(), &[0x88, 0xb5], b"made by the member"].concat());
        member.call("socket.send", json!([packets, frame])).result();
        let seen = member.call("socket.recv", json!([packets, 2000])).result()["data"].clone();
        assert_eq!(seen, frame);
        // A packet with a custom header, from an address of another host.
        let raw = json!(["AF_INET", "SOCK_RAW", "IPPROTO_RAW"]);
        let raw = member.call("socket.socket", raw).handle();
        let header = [
            0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 192, 0, 2, 7, 127, 0, 0, 1, 0, 9, 0, 9, 0, 8,
            0, 0,
        ];
        let sent = json!([raw, base64(header), 0, ["127.0.0.1", 0]]);
        assert_eq!(*member.call("socket.sendto", sent).result(), 28);
        // Routes can be read. The network cannot be changed, and no descriptor is passed.
        let netlink = json!(["AF_NETLINK", "SOCK_RAW", "NETLINK_ROUTE"]);
        let netlink = member.call("socket.socket", netlink).handle();
        member.call("socket.bind", json!([netlink, [0, 0]])).result();
        let request = |kind: u16, flags: u16| {
            let head = [&36_u32.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes()];
            base64([head.concat(), vec![1, 0, 0, 0, 0, 0, 0, 0], vec![0; 20]].concat())
        };
        member.call("socket.send", json!([netlink, request(GET_LINKS, 0x301)])).result();
        assert!(
            member.call("socket.recv", json!([netlink, 9000])).result()["n"].as_u64() > Some(36)
        );
        let tcp = member.call("socket.socket", json!(["AF_INET", "SOCK_STREAM"])).handle();
        refused(
            &mut member,
            &[
                ("socket.send", json!([netlink, request(DELETE_LINK, 5)]), "netlink"),
                ("socket.fileno", json!([packets]), "handover"),
                ("socket.fileno", json!([raw]), "handover"),
                ("socket.setsockopt", json!([tcp, "SOL_SOCKET", "SO_MARK", 7]), "mark"),
                ("socket.bind", json!([tcp, ["0.0.0.0", 80]]), "local_ports = [\"80\"]"),
                ("socket.sethostname", json!(["mine"]), "sethostname"),
            ],
        );
    });
}
