//! Inputs that choose a port.

use std::net::UdpSocket;

use serde_json::json;
use sockbroker_test_support::base64;

const RULES: &str = r#"
[[rule]]
name = "not these ports"
subject = { uids = [4200001] }
deny = ["bind", "connect", "send", "listen", "spoof"]
local_ports = ["6000-6999"]
[[rule]]
name = "not those ports"
subject = { uids = [4200001] }
deny = ["connect", "send"]
remote_ports = ["7000-7999"]
"#;

rows! { RULES;
    port_of_bind: "`bind`: the port, in every form of an address", "not these ports", |arena| {
        let (tcp, six) = (arena.tcp(), arena.udp6());
        let raw = base64([0x17, 0x70, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        vec![
            arena.tries("bind", json!([tcp, ["127.0.0.1", 6000]])),
            arena.tries("bind", json!([tcp, ["", 6999]])),
            arena.tries("bind", json!([six, ["::ffff:127.0.0.1", 6500]])),
            arena.tries("bind", json!([tcp, { "family": 2, "base64": raw }])),
            arena.tries("create_server", json!([["127.0.0.1", 6000]])),
        ]
    };
    port_before_adoption: "the port that a descriptor was bound to before it was adopted", "not these ports", |arena| {
        let bound = UdpSocket::bind("127.0.0.1:6000").unwrap();
        let handle = arena.attacker.lend(&bound);
        arena.sends(handle, &json!(["127.0.0.1", 9]), &json!([]))
    };
    port_of_a_named_source: "`IP_PKTINFO` chooses the source, the port stays that of the socket", "not these ports", |arena| {
        let bound = UdpSocket::bind("127.0.0.1:6001").unwrap();
        let handle = arena.attacker.lend(&bound);
        let info = base64([0, 0, 0, 0, 127, 0, 0, 5, 0, 0, 0, 0]);
        let item = json!(["IPPROTO_IP", "IP_PKTINFO", info]);
        arena.sends(handle, &json!(["127.0.0.1", 9]), &json!([item]))
    };
    port_of_a_destination: "the port of a destination", "not those ports", |arena| {
        let (tcp, udp) = (arena.tcp(), arena.udp());
        let mut answers = arena.sends(udp, &json!(["127.0.0.1", 7000]), &json!([]));
        answers.push(arena.tries("connect", json!([tcp, ["0.0.0.0", 7999]])));
        answers
    };
}
