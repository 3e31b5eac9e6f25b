//! Captures: streams of packets, over the real processes.

use std::fs::File;
use std::io::Read as _;
use std::net::UdpSocket;

use serde_json::{Value, json};
use sockbroker_test_support::namespace::{inside, inside_with_users};
use sockbroker_test_support::{Answer, Client as _, Daemon, LspClient, Start};

use crate::broker::{broker, limited, prepare};
use crate::replay::ip;

/// Runs a test in a namespace with each kind of broker: one with an opener and a reader, and one of a single process.
fn with_each_broker(test: &str, body: fn(&Daemon)) {
    let test = format!("captures::{test}");
    inside(&test, move || {
        body(&broker());
        body(&single(prepare()).start());
    });
}

/// A broker that serves everybody in one process.
fn single(start: Start) -> Start {
    start.section("[processes]\nworkers = false")
}

/// A capture, and the client's end of its stream.
fn open(client: &mut LspClient, params: Value) -> (u64, File) {
    let mut answer = client.call("capture.open", params);
    assert_eq!(answer.result()["fd"], true, "{answer:?}");
    (answer.result()["handle"].as_u64().unwrap(), File::from(answer.descriptors.remove(0)))
}

/// Sends datagrams over the loopback.
fn send(data: &[u8]) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(data, socket.local_addr().unwrap()).unwrap();
    socket.recv(&mut []).unwrap();
}

/// The data of the datagrams in a file.
fn datagrams(bytes: &[u8]) -> Vec<Vec<u8>> {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        if word(at) == 6 {
            found.push(bytes[at + 28 + 42..at + 28 + word(at + 20)].to_vec());
        }
        at += word(at + 4);
    }
    found
}

fn rest(mut stream: File) -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    datagrams(&bytes)
}

/// A program that accepts packets of this length alone.
fn of_length(length: u32) -> Vec<u8> {
    let one = |code: u16, if_true: u8, if_false: u8, operand: u32| {
        [&code.to_ne_bytes()[..], &[if_true, if_false], &operand.to_ne_bytes()].concat()
    };
    [one(0x80, 0, 0, 0), one(0x15, 0, 1, length), one(6, 0, 0, 262_144), one(6, 0, 0, 0)].concat()
}

fn filter(length: u32) -> String {
    sockbroker_test_support::base64(of_length(length))
}

#[test]
fn a_capture_has_every_packet_between_open_and_stop() {
    with_each_broker("a_capture_has_every_packet_between_open_and_stop", |broker| {
        let mut client = broker.lsp();
        for number in 0..10_u8 {
            send(b"before");
            let (handle, stream) = open(&mut client, json!([["lo"]]));
            let sent: Vec<_> = (0..50_u8).map(|part| vec![number, part]).collect();
            for data in &sent {
                send(data);
            }
            let stopped = client.call("capture.stop", json!([handle])).result().clone();
            send(b"after");
            assert_eq!(rest(stream), sent);
            let expected = json!({
                "seen": 50, "captured": 50, "dropped": 0, "unread": 0, "bytes": 50 * 44,
                "ended": "stopped", "complete": true,
            });
            assert_eq!(stopped, expected);
            // The handle stays until it is closed.
            let stats = client.call("capture.stats", json!([handle])).result().clone();
            assert_eq!(stats, expected);
            client.call("capture.close", json!([handle])).result();
            let fault = client.call("capture.stats", json!([handle])).fault();
            assert_eq!(fault.data.kind, "handle", "{fault:?}");
        }
    });
}

#[test]
fn what_a_capture_is_is_in_the_response() {
    with_each_broker("what_a_capture_is_is_in_the_response", |broker| {
        let mut client = broker.lsp();
        let options = json!({"snaplen": 96, "buffer_bytes": 1 << 20, "filter_text": "udp"});
        let opened = client.call("capture.open", json!({"interfaces": ["lo"], "options": options}));
        let opened = opened.result();
        assert_eq!(opened["interfaces"], json!([{"index": 1, "name": "lo", "link_type": 1}]));
        assert_eq!((&opened["snaplen"], &opened["buffer_bytes"]), (&json!(96), &json!(1 << 20)));
        assert!(opened["started"]["seconds"].as_u64() >= opened["bind_began"]["seconds"].as_u64());
    });
}

#[test]
fn a_client_without_descriptors_reads_the_stream_by_calls() {
    with_each_broker("a_client_without_descriptors_reads_the_stream_by_calls", |broker| {
        let mut client = broker.ndjson();
        let opened = client.call("capture.open", json!({"interfaces": ["lo"], "want_fd": false}));
        assert_eq!(opened.result()["fd"], false);
        let handle = opened.result()["handle"].clone();
        send(b"one");
        send(b"two");
        client.call("capture.stop", json!([handle])).result();
        let mut bytes = Vec::new();
        loop {
            let answer = client.call("capture.read", json!([handle, 100]));
            let part = answer.bytes_of(&answer.result()["bytes"]);
            if part.is_empty() {
                break;
            }
            bytes.extend(part);
        }
        assert_eq!(datagrams(&bytes), [b"one", b"two"]);
        let mut web = broker.websocket();
        let opened = web.call("capture.open", json!([["lo"]])).result().clone();
        assert_eq!(opened["fd"], false, "{opened:?}");
        let fault = web.call("capture.open", json!({"want_fd": true})).fault();
        assert_eq!(fault.data.kind, "descriptor", "{fault:?}");
    });
}

#[test]
fn a_read_waits_for_the_stream() {
    with_each_broker("a_read_waits_for_the_stream", |broker| {
        let mut client = broker.lsp();
        let opened = client.call("capture.open", json!({"interfaces": ["lo"], "want_fd": false}));
        let handle = opened.result()["handle"].clone();
        let mut bytes = Vec::new();
        for number in 0..10_u8 {
            let read = client.send("capture.read", json!([handle, 65_536]));
            if number > 0 {
                // Another call is served meanwhile.
                client.call("capture.stats", json!([handle])).result();
                send(&[number]);
            }
            let answer = client.answer(read);
            bytes.extend(answer.bytes_of(&answer.result()["bytes"]));
            let expected: Vec<_> = (1..=number).map(|number| vec![number]).collect();
            assert_eq!(datagrams(&bytes), expected);
        }
    });
}

#[test]
fn filters_select_and_can_be_replaced() {
    with_each_broker("filters_select_and_can_be_replaced", |broker| {
        let mut client = broker.lsp();
        let (handle, stream) = open(&mut client, json!([["lo"], filter(44)]));
        send(b"xx");
        send(b"yyy");
        let replaced = client.call("capture.set_filter", json!([handle, filter(45)]));
        assert!(replaced.result()["after"]["seconds"].as_u64() > Some(0));
        send(b"xx");
        send(b"yyy");
        client.call("capture.set_filter", json!([handle])).result();
        send(b"z");
        client.call("capture.stop", json!([handle])).result();
        assert_eq!(rest(stream), [&b"xx"[..], b"yyy", b"z"]);
        let fault = client.call("capture.set_filter", json!([handle, filter(45)])).fault();
        assert!(fault.message.contains("ended"), "{fault:?}");
    });
}

#[test]
fn a_client_that_closes_the_stream_ends_the_capture() {
    with_each_broker("a_client_that_closes_the_stream_ends_the_capture", |broker| {
        let mut client = broker.lsp();
        let (handle, stream) = open(&mut client, json!([["lo"]]));
        drop(stream);
        let ended = || client.call("capture.stats", json!([handle])).result()["ended"].clone();
        let mut ended = ended;
        while ended() == Value::Null {
            std::thread::yield_now();
        }
        assert_eq!(ended(), "unread");
    });
}

#[test]
fn limits_of_the_client_end_the_capture() {
    with_each_broker("limits_of_the_client_end_the_capture", |broker| {
        let mut client = broker.lsp();
        let options = json!({"packets": 2});
        let (_, stream) = open(&mut client, json!([["lo"], null, options]));
        for data in [b"1", b"2", b"3"] {
            send(data);
        }
        assert_eq!(rest(stream), [b"1", b"2"]);
        let options = json!({"seconds": 0.01});
        let (_, stream) = open(&mut client, json!([["lo"], null, options]));
        assert!(rest(stream).is_empty());
    });
}

#[test]
fn the_end_of_the_connection_ends_the_capture() {
    with_each_broker("the_end_of_the_connection_ends_the_capture", |broker| {
        let mut client = broker.lsp();
        let (_, stream) = open(&mut client, json!([["lo"]]));
        send(b"x");
        drop(client);
        assert_eq!(rest(stream), [b"x"]);
    });
}

#[test]
fn impossible_captures_are_refused() {
    with_each_broker("impossible_captures_are_refused", |broker| {
        let mut client = broker.lsp();
        let mut refused = |params: Value| client.call("capture.open", params).fault();
        let fault = refused(json!([["nonexistent0"]]));
        assert_eq!(fault.data.name.as_deref(), Some("ENODEV"), "{fault:?}");
        assert!(
            fault.message.contains(
                "the interface \"nonexistent0\" does not exist here: socket.if_nameindex"
            ),
            "{fault:?}"
        );
        let fault = refused(json!([["lo", "nonexistent0"]]));
        assert!(
            fault.message.contains(
                "one of the interfaces lo, nonexistent0 does not exist here: socket.if_nameindex"
            ),
            "{fault:?}"
        );
        let invalid = sockbroker_test_support::base64([0xff; 8]);
        let names: Vec<_> = (0..17).map(|number| format!("lo{number}")).collect();
        for (params, reason) in [
            (json!([["lo"], invalid]), "unknown code 0xffff"),
            (json!([["lo"], sockbroker_test_support::base64([0; 7])]), "multiple of 8"),
            (json!([["lo"], ""]), "at least one instruction"),
            (
                json!([["lo"], sockbroker_test_support::base64([0x16, 0, 0, 0, 0, 0, 0, 0])]),
                "accumulator",
            ),
            (json!([names]), "at most 16 interfaces"),
            (json!([["lo"], null, {"snaplen": 0}]), "snaplen"),
            (json!([["lo"], null, {"buffer_bytes": 1}]), "buffer_bytes"),
            (json!([["lo"], null, {"seconds": -1}]), "seconds"),
            (json!([null, null, {"format": "pcap"}]), "one interface"),
            (json!([["lo"], null, {"filter_text": "x".repeat(5000)}]), "filter_text"),
            (json!([["lo"], null, {"unknown": 1}]), "unknown"),
        ] {
            let fault = refused(params);
            assert!(fault.message.contains(reason), "{fault:?}");
        }
    });
}

fn limit_of(answer: &Answer) -> String {
    answer.fault().limit().to_owned()
}

#[test]
fn captures_and_their_memory_are_limited_for_each_user_and_in_all() {
    let test = "captures::captures_and_their_memory_are_limited_for_each_user_and_in_all";
    inside(test, || {
        for (name, value, bytes) in [
            ("captures_per_user", 2, 1 << 20),
            ("captures_in_all", 2, 1 << 20),
            ("capture_bytes_per_user", 3 << 20, 1 << 20),
            ("capture_bytes_in_all", 3 << 20, 1 << 20),
        ] {
            let limits = [(name, value)];
            let alone = single(prepare().limit(name, value)).start();
            for broker in [limited(&limits), alone] {
                let mut client = broker.lsp();
                let params = json!([["lo"], null, {"buffer_bytes": bytes}]);
                let count = if name.contains("bytes") { 3 } else { 2 };
                for _ in 0..3 {
                    let opened: Vec<_> =
                        (0..count).map(|_| open(&mut client, params.clone())).collect();
                    let refused = client.call("capture.open", params.clone());
                    assert_eq!(limit_of(&refused), name);
                    for (handle, _stream) in opened {
                        client.call("capture.stop", json!([handle])).result();
                    }
                }
            }
        }
    });
}

#[test]
fn an_interface_has_one_name() {
    with_each_broker("an_interface_has_one_name", |broker| {
        let mut client = broker.lsp();
        // The kernel takes it as one of `lo`, and a rule about `lo` would not be about it.
        for names in [json!(["lo:1"]), json!(["lo", "lo:1"])] {
            let fault = client.call("capture.open", json!([names])).fault();
            assert_eq!(fault.data.name.as_deref(), Some("ENODEV"), "{fault:?}");
        }
        let (handle, stream) = open(&mut client, json!([["lo", "lo"]]));
        send(b"once");
        client.call("capture.stop", json!([handle])).result();
        assert_eq!(rest(stream), [b"once"]);
    });
}

#[test]
fn a_capture_ends_with_its_handle_whatever_waits_for_it() {
    with_each_broker("a_capture_ends_with_its_handle_whatever_waits_for_it", |broker| {
        let mut client = broker.lsp();
        let (handle, stream) = open(&mut client, json!([["lo"]]));
        let stopping = client.send("capture.stop", json!([handle, 3600.0]));
        let opened = client.call("capture.open", json!({"interfaces": ["lo"], "want_fd": false}));
        let pulled = opened.result()["handle"].clone();
        let reading = client.send("capture.read", json!([pulled, 65_536]));
        let head = client.answer(reading).result()["bytes"].clone();
        assert_ne!(head, Value::Null);
        let reading = client.send("capture.read", json!([pulled, 65_536]));
        client.call("capture.close", json!([handle])).result();
        send(b"later");
        assert_eq!(rest(stream), [[0_u8; 0]; 0]);
        assert_eq!(client.answer(stopping).result()["ended"], "stopped");
        client.call("capture.close", json!([pulled])).result();
        client.answer(reading);
        client.call("capture.stats", json!([pulled])).fault();
    });
}

#[test]
fn a_capture_that_is_closed_makes_room() {
    inside("captures::a_capture_that_is_closed_makes_room", || {
        for broker in [
            limited(&[("captures_per_user", 1)]),
            single(prepare().limit("captures_per_user", 1)).start(),
        ] {
            let mut client = broker.lsp();
            for _ in 0..50 {
                let (handle, _stream) = open(&mut client, json!([["lo"]]));
                client.call("capture.close", json!([handle])).result();
            }
        }
    });
}

#[test]
fn a_capture_of_several_interfaces_ends_with_one_of_them() {
    with_each_broker("a_capture_of_several_interfaces_ends_with_one_of_them", |broker| {
        let mut client = broker.lsp();
        ip("link add v0 type veth peer name v1");
        let (handle, mut stream) = open(&mut client, json!([["lo", "v0"]]));
        ip("link del v0");
        stream.read_to_end(&mut Vec::new()).unwrap();
        let ended = client.call("capture.stats", json!([handle])).result()["ended"].clone();
        assert_eq!(ended, "interface");
    });
}

/// A connection whose socket belongs to a new network namespace.
fn elsewhere(broker: &Daemon) -> LspClient {
    let connected = std::thread::scope(|scope| {
        let connect = || {
            sockbroker_sys::namespace::enter_network().unwrap();
            broker.lsp()
        };
        scope.spawn(connect).join()
    });
    connected.unwrap()
}

#[test]
fn captures_of_a_user_count_in_all_network_namespaces() {
    inside("captures::captures_of_a_user_count_in_all_network_namespaces", || {
        let broker = limited(&[("captures_per_user", 2)]);
        let mut clients = [broker.lsp(), elsewhere(&broker), elsewhere(&broker)];
        let [one, two, three] = &mut clients;
        let _running = [open(one, json!([["lo"]])), open(two, json!([["lo"]]))];
        assert_eq!(limit_of(&three.call("capture.open", json!([["lo"]]))), "captures_per_user");
    });
}

/// A policy that grants captures of the loopback with a snaplen, and `capture.open` nothing else.
fn policy(interface: &str) -> String {
    format!(
        "version = 1\nrevoke_on_reload = true\n[[rule]]\nname = \"capture\"\nsubject = {{ everyone = true }}\n\
         allow = [\"capture\"]\ninterface = [\"{interface}\"]\nsnaplen = 128\n\
         [[rule]]\nname = \"reload\"\nsubject = {{ everyone = true }}\nallow = [\"admin\"]\n\
         [[rule]]\nname = \"nobody else\"\nsubject = {{ everyone = true }}\n\
         deny = [\"capture\"]\ninterface = [\"v0\", \"v1\"]\n"
    )
}

#[test]
fn the_policy_judges_interfaces_and_ends_captures_that_it_no_longer_grants() {
    let test = "captures::the_policy_judges_interfaces_and_ends_captures_that_it_no_longer_grants";
    inside(test, || {
        for start in [prepare(), single(prepare())] {
            let broker = start.policy(&policy("lo")).start();
            let mut client = broker.lsp();
            let granted = json!([["lo"], null, {"snaplen": 128}]);
            let (handle, stream) = open(&mut client, granted);
            for denied in [json!([["v0"]]), json!([["lo", "v0"]]), json!([])] {
                let fault = client.call("capture.open", denied).fault();
                assert_eq!(fault.data.kind, "denied", "{fault:?}");
            }
            let deny = policy("lo").replace("\"v0\", \"v1\"", "\"lo\"");
            broker.folder().write("policy.toml", &deny);
            client.call("admin.reload", Value::Null).result();
            let fault = client.call("capture.stats", json!([handle])).fault();
            assert_eq!(fault.data.kind, "handle", "{fault:?}");
            let mut bytes = Vec::new();
            { stream }.read_to_end(&mut bytes).unwrap();
            assert!(bytes.windows(6).any(|part| part == b"policy"), "the reason is in the stream");
        }
    });
}

/// The inodes of the packet sockets of this namespace.
fn packet_sockets() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/net/packet").unwrap();
    let inode = |line: &str| format!("socket:[{}]", line.split_whitespace().last().unwrap());
    table.lines().skip(1).map(inode).collect()
}

fn holds(process: u32, sockets: &[String]) -> usize {
    let files = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let targets = files.filter_map(|file| std::fs::read_link(file.unwrap().path()).ok());
    targets.filter(|target| sockets.iter().any(|own| *own == target.to_string_lossy())).count()
}

#[test]
fn a_reader_without_capabilities_holds_the_socket_and_no_other_process_does() {
    let test = "captures::a_reader_without_capabilities_holds_the_socket_and_no_other_process_does";
    inside_with_users(test, || {
        let mut broker = broker();
        let mut client = broker.lsp();
        let (handle, stream) = open(&mut client, json!([["lo"]]));
        let reader = broker.process().reader_of(0).unwrap();
        let sockets = packet_sockets();
        assert_eq!(sockets.len(), 1);
        assert!(holds(reader, &sockets) > 0);
        let opener = client.call("broker.info", Value::Null).result()["opener"]["pid"].clone();
        let opener = u32::try_from(opener.as_u64().unwrap()).unwrap();
        for other in [broker.worker(), opener, broker.process().number()] {
            assert_eq!(holds(other, &sockets), 0);
        }
        let status = std::fs::read_to_string(format!("/proc/{reader}/status")).unwrap();
        for fact in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"] {
            assert!(status.contains(fact), "{status}");
        }
        assert!(status.contains("Seccomp:\t2"), "{status}");
        // A reader that is killed ends its captures, and the next capture has another one.
        sockbroker_test_support::daemon::kill_process(reader);
        let stats = client.call("capture.stop", json!([handle])).result().clone();
        assert_eq!((&stats["ended"], &stats["complete"]), (&json!("failed"), &json!(false)));
        drop(rest(stream));
        let (handle, stream) = open(&mut client, json!([["lo"]]));
        send(b"x");
        client.call("capture.stop", json!([handle])).result();
        assert_eq!(rest(stream), [b"x"]);
    });
}
