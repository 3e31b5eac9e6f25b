//! Received datagrams: each one is checked by its sender, whatever peer the socket has.

use std::net::UdpSocket;

use serde_json::{Value, json};

use super::EVERYTHING;
use crate::arena::{Arena, run_with};

const DENY: &str = r#"
[[rule]]
name = "nothing from the vault"
subject = { uids = [4200001] }
deny = ["receive"]
remote = ["127.0.0.66"]
"#;

/// Runs a test under these rules and the rule that allows everything else.
fn under(test: &str, rules: String, body: fn(&mut Arena)) {
    run_with(
        test,
        move |start| {
            start.folder().write("policy.toml", &rules);
            start
        },
        move |mut arena| body(&mut arena),
    );
}

/// Returns a bound UDP socket of the attacker, its port, and two sockets that send to it.
fn bound(arena: &mut Arena) -> (u64, u16, [UdpSocket; 2]) {
    let udp = arena.udp();
    arena.does("bind", json!([udp, ["0.0.0.0", 0]]));
    arena.does("settimeout", json!([udp, 20]));
    let port = arena.does("getsockname", json!([udp]))[1].as_u64().unwrap();
    let senders = ["127.0.0.66", "127.0.0.1"].map(|host| UdpSocket::bind((host, 0)).unwrap());
    (udp, u16::try_from(port).unwrap(), senders)
}

#[test]
fn datagram_of_a_denied_sender_is_dropped_by_every_call() {
    let test = concat!(module_path!(), "::datagram_of_a_denied_sender_is_dropped_by_every_call");
    under(test, format!("{EVERYTHING}{DENY}"), |arena| {
        let (udp, port, [vault, friend]) = bound(arena);
        for (method, params) in [
            ("recv", json!([udp, 9])),
            ("recvfrom", json!([udp, 9])),
            ("recv", json!([udp, 9, "MSG_PEEK"])),
            ("recv", json!([udp, 9])),
            ("recvmsg", json!([udp, 9])),
            ("recvmsg", json!([udp, 9, 0, "MSG_PEEK"])),
            ("recvmsg", json!([udp, 9])),
            ("recvmmsg", json!([udp, 9, 9])),
        ] {
            for _ in 0..2 {
                vault.send_to(b"evil", ("127.0.0.1", port)).unwrap();
            }
            friend.send_to(b"fine", ("127.0.0.1", port)).unwrap();
            let text = arena.does(method, params.clone()).to_string();
            assert!(text.contains("ZmluZQ==") && !text.contains("ZXZpbA=="), "{method}: {text}");
        }
    });
}

#[test]
fn datagram_behind_a_flood_of_denied_ones_is_received() {
    let test = concat!(module_path!(), "::datagram_behind_a_flood_of_denied_ones_is_received");
    under(test, format!("{EVERYTHING}{DENY}"), |arena| {
        let (udp, port, [vault, friend]) = bound(arena);
        for (method, params) in [
            ("recv", json!([udp, 9])),
            ("recvmsg", json!([udp, 9, 0, "MSG_PEEK"])),
            ("recvmsg", json!([udp, 9])),
            ("recvmmsg", json!([udp, 1, 9])),
        ] {
            // More than the broker drops at once.
            for _ in 0..100 {
                vault.send_to(b"evil", ("127.0.0.1", port)).unwrap();
            }
            friend.send_to(b"fine", ("127.0.0.1", port)).unwrap();
            let text = arena.does(method, params.clone()).to_string();
            assert!(text.contains("ZmluZQ=="), "{method}: {text}");
        }
    });
}

#[test]
fn datagram_queued_before_connect_is_checked_by_its_sender() {
    let test = concat!(module_path!(), "::datagram_queued_before_connect_is_checked_by_its_sender");
    let rules = EVERYTHING.replace("\"receive\", ", "");
    let only = "\n[[rule]]\nname = \"from the friend\"\nsubject = { uids = [4200001] }\n\
        allow = [\"receive\"]\nremote = [\"127.0.0.1\"]\n";
    under(test, rules + only, |arena| {
        let (udp, port, [vault, friend]) = bound(arena);
        vault.send_to(b"evil", ("127.0.0.1", port)).unwrap();
        let address: Value = json!(["127.0.0.1", friend.local_addr().unwrap().port()]);
        arena.does("connect", json!([udp, address]));
        friend.send_to(b"fine", ("127.0.0.1", port)).unwrap();
        let received = arena.does("recvfrom", json!([udp, 9]));
        assert_eq!((&received["data"], &received["address"]), (&json!("ZmluZQ=="), &address));
    });
}
