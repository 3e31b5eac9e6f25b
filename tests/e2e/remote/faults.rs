//! Bad input to the TLS port, and a gateway that ends.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt as _;

use serde_json::Value;
use sockbroker_test_support::daemon::kill_process;
use sockbroker_test_support::{bounded, until};

use super::fixture::{Files, Lab, Leaf, POLICY, Remote};

/// What a peer of the TLS port reads until the end.
fn read_all(tcp: &mut TcpStream) -> String {
    let mut text = String::new();
    tcp.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn clients_without_tls_read_a_hint_in_their_protocol() {
    bounded(60, || {
        let lab = Lab::start(Files::new(), "");
        for (bytes, begin) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n"),
            ("{\"jsonrpc\":\"2.0\"}\n", "{"),
            ("Content-Length: 2\r\n\r\n{}", "Content-Length: "),
        ] {
            let mut tcp = lab.plain();
            tcp.write_all(bytes.as_bytes()).unwrap();
            let text = read_all(&mut tcp);
            assert!(text.starts_with(begin), "{text}");
            assert!(text.contains("this port speaks TLS 1.3: use https:// or tls://"), "{text}");
        }
        let mut tcp = lab.plain();
        tcp.write_all(&[0, 1, 2]).unwrap();
        let mut rest = Vec::new();
        // Closed with unread input, which resets the connection.
        assert!(matches!(tcp.read_to_end(&mut rest), Ok(0) | Err(_)));
    });
}

#[test]
fn clients_that_stop_within_the_handshake_are_closed() {
    bounded(60, || {
        let with = |start: sockbroker_test_support::Start| {
            start.limit("handshake_seconds", 1).policy(POLICY)
        };
        let lab = Lab::start_with(Files::new(), "", with);
        let alice = lab.files.authority.client("spiffe://lab/alice");
        // Nothing, half a record, and a complete handshake without a first byte.
        let mut silent = lab.plain();
        let mut half = lab.plain();
        half.write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
        // On a machine that is slow, the time is over within the handshake.
        let quiet = lab.try_connect(Some(&alice));
        assert_eq!(silent.read(&mut [0]).unwrap_or(0), 0);
        assert_eq!(half.read(&mut [0]).unwrap_or(0), 0);
        if let Ok(mut quiet) = quiet {
            assert!(matches!(quiet.stream.read(&mut [0]), Ok(0) | Err(_)));
        }
        // A client without certificate that never ends its head.
        if let Ok(mut head) = lab.try_connect(None) {
            // The connection may have ended.
            drop(head.stream.write_all(b"Content-Length: 2\r\n"));
            assert!(matches!(head.stream.read(&mut [0]), Ok(0) | Err(_)));
        }
        lab.wait_for_log("handshake_seconds");
    });
}

#[test]
fn a_flood_of_handshakes_leaves_the_unix_socket_and_other_clients_alone() {
    bounded(60, || {
        let with = |start: sockbroker_test_support::Start| {
            let start = start.limit("handshakes", 4).limit("handshakes_per_address", 2);
            start.limit("handshake_seconds", 2).policy(POLICY)
        };
        let lab = Lab::start_with(Files::new(), "", with);
        let alice = lab.files.authority.client("spiffe://lab/alice");
        let mut served = served_within_the_limit(&lab, &alice);
        let flood: Vec<_> = (0..200).map(|_| lab.plain()).collect();
        // Calls of both kinds of clients go on meanwhile.
        let mut local = lab.broker.lsp();
        for _ in 0..50 {
            local.expect_service();
            assert!(served.call("session.info", Value::Null).get("result").is_some());
        }
        // Those beyond handshakes_per_address are closed at once, the others after handshake_seconds.
        for mut tcp in flood {
            assert_eq!(tcp.read(&mut [0]).unwrap_or(0), 0);
        }
        served_within_the_limit(&lab, &alice);
    });
}

/// A client whose handshake and first call are complete before `handshake_seconds`.
fn served_within_the_limit(lab: &Lab, leaf: &Leaf) -> Remote {
    let connect = || -> Option<Remote> {
        let mut remote = lab.try_connect(Some(leaf)).ok()?;
        let info = remote.try_call("session.info", Value::Null).ok()??;
        info.get("result").is_some().then_some(remote)
    };
    let mut served = None;
    until("a client is served", || {
        served = connect();
        served.is_some()
    });
    served.unwrap()
}

/// The connections that wait in the kernel until the gateway accepts them.
fn waiting(lab: &Lab) -> u32 {
    let port = format!(":{:04X}", lab.address.port());
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let listener = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listener = listener.filter(|fields| fields[1].ends_with(&port) && fields[3] == "0A");
    listener.map(|fields| u32::from_str_radix(&fields[4][9..], 16).unwrap()).sum()
}

#[test]
fn handshakes_beyond_the_limit_wait_until_others_end() {
    bounded(60, || {
        let with = |start: sockbroker_test_support::Start| {
            let start = start.limit("handshakes", 3).limit("handshakes_per_address", 100);
            start.limit("handshake_seconds", 300).policy(POLICY)
        };
        let lab = Lab::start_with(Files::new(), "", with);
        // One more is accepted, and waits for its turn.
        let silent: Vec<_> = (0..8).map(|_| lab.plain()).collect();
        until("four connections wait in the kernel", || waiting(&lab) == 4);
        lab.broker.lsp().expect_service();
        drop(silent);
        let mut served = lab.connect(Some(&lab.files.authority.client("spiffe://lab/alice")));
        assert!(served.call("session.info", Value::Null).get("result").is_some());
    });
}

#[test]
fn clients_that_do_not_read_keep_no_place_when_their_worker_has_ended_the_connection() {
    bounded(100, || {
        let with = |start: sockbroker_test_support::Start| {
            let start = start.limit("remote_connections", 2).limit("handshakes", 1);
            start.limit("stall_seconds", 1).policy(POLICY)
        };
        let lab = Lab::start_with(Files::new(), "", with);
        let alice = lab.files.authority.client("spiffe://lab/alice");
        let calls = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"rpc.discover\"}\n".repeat(100);
        let mut deaf = Vec::new();
        // More than there are places.
        while deaf.len() < 6 {
            let mut client = lab.connect(Some(&alice));
            let Ok(Some(answer)) = client.try_call("session.info", Value::Null) else { continue };
            // A refusal: the earlier ones are still served.
            if answer.get("result").is_some() {
                client.send(calls.as_bytes());
                deaf.push(client);
            }
        }
        until("another client is served", || {
            let mut bob = lab.connect(Some(&lab.files.authority.client("spiffe://lab/bob")));
            let answer = bob.try_call("session.info", Value::Null);
            answer.is_ok_and(|answer| answer.is_some_and(|answer| answer.get("result").is_some()))
        });
    });
}

/// The number of the gateway of a broker.
fn gateway(broker: u32) -> Option<u32> {
    let processes = fs::read_dir("/proc").unwrap();
    let mut numbers =
        processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    numbers.find(|number| {
        let read = |file| fs::read_to_string(format!("/proc/{number}/{file}")).unwrap_or_default();
        let stat = read("stat");
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        parent == Some(&broker.to_string()) && read("cmdline").starts_with("sockbrokerd: gateway")
    })
}

#[test]
fn a_gateway_that_is_killed_is_replaced_and_local_clients_go_on() {
    bounded(60, || {
        let mut lab = Lab::start(Files::new(), "");
        let alice = lab.files.authority.client("spiffe://lab/alice");
        let mut served = lab.connect(Some(&alice));
        served.call("session.info", Value::Null);
        let mut local = lab.broker.lsp();
        local.expect_service();
        let broker = lab.broker.process().number();
        let first = gateway(broker).expect("a gateway runs");
        kill_process(first);
        assert!(matches!(served.stream.read(&mut [0]), Ok(0) | Err(_)));
        local.expect_service();
        until("another gateway runs", || gateway(broker).is_some_and(|other| other != first));
        // The port stays open, so that the client only waits.
        let mut again = lab.connect(Some(&alice));
        assert!(again.call("session.info", Value::Null).get("result").is_some());
    });
}

#[test]
fn the_gateway_is_confined_and_has_ids_of_its_own() {
    bounded(60, || {
        let mut lab = Lab::start(Files::new(), "");
        let alice = lab.files.authority.client("spiffe://lab/alice");
        let mut served = lab.connect(Some(&alice));
        served.call("session.info", Value::Null);
        let broker = lab.broker.process().number();
        let number = gateway(broker).expect("a gateway runs");
        let status = fs::read_to_string(format!("/proc/{number}/status")).unwrap();
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name}: {status}")).trim().to_owned()
        };
        let mut sets = vec!["CapPrm:", "CapEff:", "CapInh:", "CapAmb:"];
        // An ordinary user can give neither ids nor a bounding set to a process.
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            sets.push("CapBnd:");
            let ids = value("Uid:");
            assert!(ids.split('\t').all(|id| id != "0"), "{ids}");
        }
        for set in sets {
            let bits = u64::from_str_radix(&value(set), 16).unwrap();
            assert_eq!(bits, 0, "{set} {bits:x}");
        }
        assert_eq!((value("NoNewPrivs:"), value("Seccomp:")), ("1".to_owned(), "2".to_owned()));
    });
}

#[test]
fn the_broker_stops_while_remote_clients_are_connected() {
    bounded(60, || {
        let mut lab = Lab::start(Files::new(), "");
        let alice = lab.files.authority.client("spiffe://lab/alice");
        let mut served = lab.connect(Some(&alice));
        served.call("session.info", Value::Null);
        lab.broker.process().terminate();
        assert!(lab.broker.process().ends().success());
        assert!(matches!(served.stream.read(&mut [0]), Ok(0) | Err(_)));
    });
}
