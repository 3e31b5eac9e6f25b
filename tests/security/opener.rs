//! The opener: workers have no capability of the network, and a broker without its opener ends.

use std::fs;

use serde_json::{Value, json};
use sockbroker_test_support::daemon::{kill_process, stop_process};
use sockbroker_test_support::namespace::inside_with_users;
use sockbroker_test_support::{Daemon, Start, base64};

use crate::arena::{PROGRAM, attacker, neighbour};
use crate::roles::shipped;

/// `CAP_NET_BIND_SERVICE`, `CAP_NET_BROADCAST`, `CAP_NET_ADMIN`, `CAP_NET_RAW`, `CAP_SYS_ADMIN`, `CAP_AUDIT_READ`.
const OF_OPENER: u64 = 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 21 | 1 << 37;

/// Grants for everyone that need capabilities in messages.
const MESSAGES: &str = r#"
[[rule]]
name = "marked datagrams"
subject = { uids = [4200001] }
allow = ["create", "bind", "send", "receive", "option"]
family = ["AF_INET"]
type = ["SOCK_DGRAM"]
option = ["ordinary", "mark"]

[[rule]]
name = "links"
subject = { uids = [4200001] }
allow = ["create", "bind", "send", "receive"]
family = ["AF_NETLINK"]
protocol = ["NETLINK_ROUTE"]
netlink = ["get", "link", "address"]
"#;

/// Runs a test with a broker whose policy has these shipped roles for the attacker, and more rules.
fn with_roles(
    test: &str,
    roles: &'static [&str],
    rules: &'static str,
    body: impl FnOnce(Daemon) + Send + 'static,
) {
    let (_, test) = test.split_once("::").unwrap();
    inside_with_users(test, move || {
        let role =
            |role: &&str| shipped(&format!("policy.d/{role}.toml")).replace("version = 1", "");
        let roles: Vec<_> = roles.iter().map(role).collect();
        let policy = format!("{}\n{}\n{rules}", shipped("policy.toml"), roles.join("\n"));
        body(Start::new(PROGRAM).policy(&policy).start().open_to_all());
    });
}

/// The permitted and the effective capabilities of a process.
fn capabilities(process: u32) -> [u64; 2] {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    ["CapPrm:", "CapEff:"].map(|name| {
        let set = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(set.trim(), 16).unwrap()
    })
}

/// The process of the opener.
fn opener(broker: &Daemon) -> u32 {
    let info = broker.lsp().call("broker.info", Value::Null).result()["opener"].clone();
    info["pid"].as_u64().unwrap().try_into().unwrap()
}

#[test]
fn workers_have_no_capability_of_the_network_and_roles_work() {
    let test =
        concat!(module_path!(), "::workers_have_no_capability_of_the_network_and_roles_work");
    with_roles(test, &["scapy", "ports", "options"], MESSAGES, |mut broker| {
        let mut member = attacker().lsp(&broker);
        let worker = broker.process().worker_of(attacker().uid());
        member.call("socket.socket", json!(["AF_PACKET", "SOCK_RAW", 0])).handle();
        member.call("socket.socket", json!(["AF_INET", "SOCK_RAW", "IPPROTO_RAW"])).handle();
        let tcp = member.call("socket.socket", json!(["AF_INET", "SOCK_STREAM"])).handle();
        member.call("socket.bind", json!([tcp, ["0.0.0.0", 80]])).result();
        for (option, value) in
            [(libc::SO_MARK, 7), (libc::SO_PRIORITY, 7), (libc::SO_RCVBUFFORCE, 1 << 20)]
        {
            let set = json!([tcp, libc::SOL_SOCKET, option, value]);
            member.call("socket.setsockopt", set).result();
        }
        member.call("socket.setsockopt", json!([tcp, "SOL_IP", "IP_TRANSPARENT", 1])).result();
        // Calls over HTTP reach the opener too.
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "socket.socket",
                           "params": ["AF_PACKET", "SOCK_RAW", 0] });
        let json = [("content-type", "application/json")];
        let answer = broker.http().request("POST /", &json, call.to_string().as_bytes());
        let answer: Value = serde_json::from_slice(&answer.body).unwrap();
        assert!(answer["result"]["handle"].is_u64(), "{answer}");
        let worker = worker.or_else(|| broker.process().worker_of(attacker().uid())).unwrap();
        let info = member.call("broker.info", Value::Null).result().clone();
        assert_eq!(info["process"]["pid"], worker);
        assert_eq!(capabilities(worker).map(|set| set & OF_OPENER), [0; 2], "{info}");
        let monitor = broker.process().number();
        assert_eq!(capabilities(monitor).map(|set| set & OF_OPENER), [0; 2], "{info}");
        let held = 1 << 10 | 1 << 12 | 1 << 13;
        assert_eq!(capabilities(opener(&broker)), [held; 2], "{info}");
        let names = json!(["CAP_NET_BIND_SERVICE", "CAP_NET_ADMIN", "CAP_NET_RAW"]);
        assert_eq!(info["opener"]["capabilities"], names);
    });
}

#[test]
fn messages_that_need_a_capability_are_sent_by_the_opener() {
    // `rtnetlink(7)`: struct nlmsghdr, struct ifinfomsg.
    const NEW_LINK: u16 = 16;
    let test = concat!(module_path!(), "::messages_that_need_a_capability_are_sent_by_the_opener");
    with_roles(test, &[], MESSAGES, |broker| {
        let mut member = attacker().lsp(&broker);
        let udp = member.call("socket.socket", json!(["AF_INET", "SOCK_DGRAM"])).handle();
        member.call("socket.bind", json!([udp, ["127.0.0.1", 0]])).result();
        let own = member.call("socket.getsockname", json!([udp])).result().clone();
        let mark = json!([["SOL_SOCKET", "SO_MARK", base64(7_i32.to_ne_bytes())]]);
        let data = base64(b"marked");
        let sent = json!([udp, [data], mark, 0, own]);
        assert_eq!(*member.call("socket.sendmsg", sent).result(), 6);
        let messages = json!([udp, [
            { "buffers": [data] , "address": own },
            { "buffers": [data], "ancdata": mark, "address": own },
            { "buffers": [data], "address": own },
        ]]);
        let sent = member.call("socket.sendmmsg", messages).result().clone();
        assert_eq!(sent.as_array().unwrap().len(), 3, "{sent}");
        for _ in 0..4 {
            assert_eq!(member.call("socket.recv", json!([udp, 10])).result()["data"], data);
        }
        // A message that changes a link. The kernel answers with error number 0.
        let netlink = json!(["AF_NETLINK", "SOCK_RAW", "NETLINK_ROUTE"]);
        let netlink = member.call("socket.socket", netlink).handle();
        member.call("socket.settimeout", json!([netlink, 120])).result();
        member.call("socket.bind", json!([netlink, [0, 0]])).result();
        let link = [
            &32_u32.to_ne_bytes()[..],
            &NEW_LINK.to_ne_bytes(),
            &5_u16.to_ne_bytes(),
            &[1, 0, 0, 0, 0, 0, 0, 0],
            // The loopback interface, up.
            &[0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0],
        ];
        member.call("socket.send", json!([netlink, base64(link.concat())])).result();
        let answer = member.call("socket.recv", json!([netlink, 100])).result().clone();
        // The error number after the header of the answer.
        let answer = sockbroker_proto::bytes::decode_base64(answer["data"].as_str().unwrap());
        assert_eq!(answer.unwrap()[16..20], [0; 4]);
    });
}

#[test]
fn a_broker_without_its_opener_ends() {
    let test = concat!(module_path!(), "::a_broker_without_its_opener_ends");
    with_roles(test, &["ports"], "", |mut broker| {
        let mut member = attacker().lsp(&broker);
        member.call("socket.socket", json!(["AF_INET", "SOCK_STREAM"])).handle();
        kill_process(opener(&broker));
        assert!(member.wire.ends());
        let status = broker.process().ends();
        assert_eq!(status.code(), Some(71));
        assert!(broker.log().contains("the opener has ended"), "{}", broker.log());
    });
}

#[test]
fn a_stopped_opener_delays_only_calls_that_need_it_and_is_noticed() {
    let test =
        concat!(module_path!(), "::a_stopped_opener_delays_only_calls_that_need_it_and_is_noticed");
    with_roles(test, &["ports"], "", |mut broker| {
        let mut member = attacker().lsp(&broker);
        let tcp = member.call("socket.socket", json!(["AF_INET", "SOCK_STREAM"])).handle();
        let mut other = neighbour().lsp(&broker);
        other.expect_service();
        stop_process(opener(&broker));
        other.expect_service();
        member.call("socket.bind", json!([tcp, ["127.0.0.1", 0]])).result();
        other.expect_service();
        let low = member.call("socket.socket", json!(["AF_INET", "SOCK_STREAM"])).handle();
        // The call fails after a while, and its worker ends: an answer could come too late.
        let bind = member.send("socket.bind", json!([low, ["0.0.0.0", 80]]));
        other.expect_service();
        assert!(member.answer(bind).is_fault());
        // The opener does not answer the monitor either.
        assert!(other.wire.ends() && member.wire.ends());
        assert_eq!(broker.process().ends().code(), Some(71));
        assert!(broker.log().contains("the opener does not respond"), "{}", broker.log());
    });
}
