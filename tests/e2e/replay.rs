//! `capture.replay`: the packets of a file on one end of a pair of interfaces, and a capture on the other end.

use std::fs::File;
use std::io::Read as _;
use std::process::Command;

use serde_json::{Value, json};
use sockbroker_pcapng::{Interface, LinkType, Packet, PcapWriter, Section, Writer};
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::namespace::inside;
use sockbroker_test_support::{Client as _, Daemon, LspClient, Start, base64};

use crate::broker::{broker, limited, prepare};

/// The destination, the source, and an experimental `EtherType` that no host sends.
const HEADER: [u8; 14] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
const MILLISECOND: u64 = 1_000_000;
const HOUR: u64 = 3_600_000 * MILLISECOND;

pub(crate) fn ip(line: &str) {
    assert!(Command::new("ip").args(line.split(' ')).status().unwrap().success(), "{line}");
}

/// Runs a test in a namespace with the interfaces `v0` and `v1`, which are connected, and `w0`, which is down.
fn with_interfaces(test: &str, body: fn()) {
    inside(&format!("replay::{test}"), move || {
        ip("link add v0 type veth peer name v1");
        ip("link add w0 type veth peer name w1");
        for name in ["v0", "v1"] {
            ip(&format!("link set {name} addrgenmode none"));
            ip(&format!("link set {name} up"));
        }
        body();
    });
}

/// A frame that no other one equals.
fn frame(number: usize, length: usize) -> Vec<u8> {
    let mut frame = [&HEADER[..], &number.to_be_bytes()].concat();
    frame.resize(length, 0xaa);
    frame
}

/// A file of frames with these times.
fn pcap(frames: &[(u64, &[u8])]) -> Vec<u8> {
    let mut file = Vec::new();
    let writer = PcapWriter::begin(LinkType::ETHERNET, 65_535, &mut file);
    for (time, frame) in frames {
        let length = u32::try_from(frame.len()).unwrap();
        writer.packet(*time, &[frame], length, &mut file).unwrap();
    }
    file
}

/// A file of frames, all of the same time.
fn at_once(frames: &[Vec<u8>]) -> Vec<u8> {
    let frames: Vec<_> = frames.iter().map(|frame| (HOUR, &frame[..])).collect();
    pcap(&frames)
}

/// A packet socket that sends on an interface.
fn sender(client: &mut LspClient, interface: &str) -> u64 {
    let handle = client.call("socket.socket", json!(["AF_PACKET", "SOCK_RAW", 0])).handle();
    client.call("socket.bind", json!([handle, [interface, 0]])).result();
    handle
}

fn begin(client: &mut LspClient, handle: u64, file: &[u8], options: &Value) -> u64 {
    let params = json!([handle, {"attachment": 0}, options]);
    client.send_with_parts("capture.replay", params, RequestParts::attachments(&[file]))
}

fn replay(client: &mut LspClient, handle: u64, file: &[u8], options: &Value) -> Value {
    let call = begin(client, handle, file, options);
    client.answer(call).result().clone()
}

/// What arrives on `v1`.
struct Arrivals {
    client: LspClient,
    handle: u64,
    stream: File,
    bytes: Vec<u8>,
}

impl Arrivals {
    fn new(broker: &Daemon) -> Self {
        let mut client = broker.lsp();
        let mut opened = client.call("capture.open", json!([["v1"], null, {"direction": "in"}]));
        let handle = opened.result()["handle"].as_u64().unwrap();
        let stream = File::from(opened.descriptors.remove(0));
        Self { client, handle, stream, bytes: Vec::new() }
    }

    /// The frames of the tests so far.
    fn frames(&self) -> Vec<Vec<u8>> {
        let word =
            |at: usize| u32::from_le_bytes(self.bytes[at..at + 4].try_into().unwrap()) as usize;
        let (mut found, mut at) = (Vec::new(), 0);
        while at + 8 <= self.bytes.len() && at + word(at + 4) <= self.bytes.len() {
            if word(at) == 6 {
                found.push(self.bytes[at + 28..at + 28 + word(at + 20)].to_vec());
            }
            at += word(at + 4);
        }
        found.retain(|frame| frame.starts_with(&HEADER));
        found
    }

    /// Waits for this many frames.
    fn wait(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut part = vec![0; 65_536];
        while self.frames().len() < count {
            let length = self.stream.read(&mut part).unwrap();
            assert!(length > 0, "the capture ended");
            self.bytes.extend_from_slice(&part[..length]);
        }
        self.frames()
    }

    /// All frames, which are at least this many. The kernel delivers them after the send that has sent them.
    fn all(mut self, least: usize) -> Vec<Vec<u8>> {
        self.wait(least);
        self.client.call("capture.stop", json!([self.handle])).result();
        self.stream.read_to_end(&mut self.bytes).unwrap();
        self.frames()
    }
}

/// A broker that serves everybody in one process.
fn single(start: Start) -> Start {
    start.section("[processes]\nworkers = false")
}

#[test]
fn frames_arrive_in_the_order_and_with_the_bytes_of_the_file() {
    with_interfaces("frames_arrive_in_the_order_and_with_the_bytes_of_the_file", || {
        for broker in [broker(), single(prepare()).start()] {
            let arrivals = Arrivals::new(&broker);
            let mut client = broker.lsp();
            let handle = sender(&mut client, "v0");
            let frames: Vec<_> =
                (0..1000).map(|number| frame(number, 60 + number % 1400)).collect();
            let bytes: usize = frames.iter().map(Vec::len).sum();
            let replayed = replay(&mut client, handle, &at_once(&frames), &Value::Null);
            assert_eq!((&replayed["packets"], &replayed["bytes"]), (&json!(1000), &json!(bytes)));
            assert_eq!((&replayed["failed"], &replayed["stopped"]), (&json!(0), &Value::Null));
            assert!(replayed["seconds"].as_f64().unwrap() > 0.0);
            assert_eq!(arrivals.all(frames.len()), frames);
        }
    });
}

#[test]
fn every_schedule_sends_every_frame_in_order() {
    with_interfaces("every_schedule_sends_every_frame_in_order", || {
        let broker = broker();
        let mut arrivals = Arrivals::new(&broker);
        let mut client = broker.lsp();
        let handle = sender(&mut client, "v0");
        let frames: Vec<_> = (0..20).map(|number| frame(number, 100)).collect();
        // The times of the file go back once.
        let timed = (0..20_u64).zip(&frames);
        let times = timed.map(|(at, frame)| (HOUR + (at % 10) * 5 * MILLISECOND, &frame[..]));
        let file = pcap(&times.collect::<Vec<_>>());
        let mut expected = Vec::new();
        for options in [
            json!({}),
            json!({"speed": 3.5}),
            json!({"speed": 0}),
            json!({"packets_per_second": 2000}),
            json!({"delay": 0.02}),
            json!({"delay": -10, "speed": 0.01}),
        ] {
            let replayed = replay(&mut client, handle, &file, &options);
            assert_eq!(replayed["packets"], 20, "{options}");
            expected.extend(frames.clone());
            assert_eq!(arrivals.wait(expected.len()), expected, "{options}");
        }
        let empty = replay(&mut client, handle, &[], &json!({}));
        assert_eq!(empty["packets"], 0);
    });
}

#[test]
fn a_client_without_attachments_sends_a_file_as_base64() {
    with_interfaces("a_client_without_attachments_sends_a_file_as_base64", || {
        let broker = broker();
        let arrivals = Arrivals::new(&broker);
        let mut client = broker.ndjson();
        let handle = client.call("socket.socket", json!(["AF_PACKET", "SOCK_RAW", 0])).handle();
        client.call("socket.bind", json!([handle, ["v0", 0]])).result();
        let file = base64(at_once(&[frame(1, 60), frame(2, 60)]));
        let replayed = client.call("capture.replay", json!({"handle": handle, "bytes": file}));
        assert_eq!(replayed.result()["packets"], 2);
        assert_eq!(arrivals.all(2), [frame(1, 60), frame(2, 60)]);
    });
}

#[test]
fn frames_that_cannot_be_sent_are_counted_and_the_others_arrive() {
    with_interfaces("frames_that_cannot_be_sent_are_counted_and_the_others_arrive", || {
        let broker = broker();
        let arrivals = Arrivals::new(&broker);
        let mut client = broker.lsp();
        let handle = sender(&mut client, "v0");
        let mut file = Vec::new();
        let mut writer = Writer::begin(&Section::default(), &mut file).unwrap();
        for link_type in [LinkType::ETHERNET, LinkType::RAW] {
            writer.interface(&Interface::new("x", link_type, 0), &mut file).unwrap();
        }
        let frames = [60, 3000, 60, 9, 60, 60, 1514].into_iter().enumerate();
        let frames: Vec<_> = frames.map(|(number, length)| frame(number, length.max(22))).collect();
        for (index, frame) in frames.iter().enumerate() {
            let (interface, data, length) = match index {
                2 => (1, &frame[..], 60),
                3 => (0, &frame[..9], 9),
                4 => (0, &frame[..], 61),
                _ => (0, &frame[..], u32::try_from(frame.len()).unwrap()),
            };
            writer.packet(&Packet::new(interface, 1, &[data], length), &mut file).unwrap();
        }
        let replayed = replay(&mut client, handle, &file, &json!({"first": 11}));
        assert_eq!((&replayed["packets"], &replayed["failed"]), (&json!(3), &json!(4)));
        let failures = replayed["failures"].as_array().unwrap();
        let facts = |failure: &Value| {
            let name = failure["error"]["name"].as_str().unwrap_or_default().to_owned();
            (
                failure["packet"].as_u64().unwrap(),
                name,
                failure["reason"].as_str().unwrap().to_owned(),
            )
        };
        let facts: Vec<_> = failures.iter().map(facts).collect();
        let expected = [
            (12, "EMSGSIZE", "its 3000 bytes are more than the MTU allows"),
            (13, "", "its link type 101 is not that of the interface, 1"),
            (14, "EINVAL", "its 9 bytes are too few for a frame of the interface"),
            (15, "", "the file has 60 of its 61 bytes: truncated packets are not sent"),
        ];
        assert_eq!(
            facts,
            expected.map(|(packet, name, reason)| (packet, name.to_owned(), reason.to_owned()))
        );
        let truncated = replay(&mut client, handle, &file, &json!({"truncated": true}));
        assert_eq!((&truncated["packets"], &truncated["failed"]), (&json!(4), &json!(3)));
        let sent = |indexes: &[usize]| {
            indexes.iter().map(|index| frames[*index].clone()).collect::<Vec<_>>()
        };
        assert_eq!(arrivals.all(7), sent(&[0, 5, 6, 0, 4, 5, 6]));
        // Sixteen are described.
        let long: Vec<_> = (0..20).map(|number| frame(number, 2000)).collect();
        let replayed = replay(&mut client, handle, &at_once(&long), &json!({}));
        assert_eq!((&replayed["packets"], &replayed["failed"]), (&json!(0), &json!(20)));
        assert_eq!(replayed["failures"].as_array().unwrap().len(), 16);
    });
}

#[test]
fn impossible_replays_are_refused_and_nothing_is_sent() {
    with_interfaces("impossible_replays_are_refused_and_nothing_is_sent", || {
        let broker = broker();
        let arrivals = Arrivals::new(&broker);
        let mut client = broker.lsp();
        let handle = sender(&mut client, "v0");
        let file = at_once(&[frame(1, 60), frame(2, 60)]);
        let mut refused = |handle: u64, file: &[u8], options: Value| {
            let call = begin(&mut client, handle, file, &options);
            client.answer(call).fault()
        };
        let malformed = refused(handle, &file[..file.len() - 1], json!({"first": 5}));
        assert!(
            malformed.message.starts_with("packet 6: the capture is malformed at byte 100"),
            "{malformed:?}"
        );
        for (file, options, reason) in [
            (&b"GET / HTTP/1.1"[..], json!({}), "packet 1: "),
            (&file, json!({"speed": -1}), "speed"),
            (&file, json!({"packets_per_second": 0}), "packets_per_second"),
            (&file, json!({"speed": 1, "packets_per_second": 1}), "exclude each other"),
            (&file, json!({"delay": 1e9}), "delay"),
            (&file, json!({"unknown": 1}), "unknown"),
        ] {
            let fault = refused(handle, file, options);
            assert!(fault.message.contains(reason), "{fault:?}");
        }
        let mut made = |kind: Value| client.call("socket.socket", kind).handle();
        let (datagram, unbound) = (made(json!([])), made(json!(["AF_PACKET", "SOCK_RAW", 0])));
        let cooked = made(json!(["AF_PACKET", "SOCK_DGRAM", 0]));
        let down = sender(&mut client, "w0");
        let mut refused = |handle: u64| {
            let call = begin(&mut client, handle, &file, &json!({}));
            client.answer(call).fault()
        };
        for other in [datagram, cooked] {
            assert!(refused(other).message.contains("SOCK_RAW"));
        }
        assert!(refused(unbound).message.contains("bound to an interface"));
        assert_eq!(refused(down).data.name.as_deref(), Some("ENETDOWN"));
        assert_eq!(refused(1_000_000).data.kind, "handle");
        assert_eq!(arrivals.all(0), Vec::<Vec<u8>>::new());
    });
}

/// Two frames: the first is due now, the second in an hour.
fn endless() -> Vec<u8> {
    pcap(&[(HOUR, &frame(1, 60)), (2 * HOUR, &frame(2, 60))])
}

#[test]
fn a_replay_ends_when_it_is_cancelled_or_its_handle_or_connection_is_closed() {
    let test = "a_replay_ends_when_it_is_cancelled_or_its_handle_or_connection_is_closed";
    with_interfaces(test, || {
        let broker = limited(&[("replays_per_user", 1)]);
        let mut arrivals = Arrivals::new(&broker);
        let mut client = broker.lsp();
        let handle = sender(&mut client, "v0");
        let cancelled = begin(&mut client, handle, &endless(), &json!({}));
        arrivals.wait(1);
        // Other calls are served meanwhile, and calls of the write queue of this handle wait.
        client.call("session.info", Value::Null).result();
        let waiting = begin(&mut client, handle, &at_once(&[frame(3, 60)]), &json!({}));
        client.cancel(cancelled);
        let fault = client.answer(cancelled).fault();
        assert_eq!((fault.data.kind.as_str(), fault.data.sent), ("cancelled", Some(60)));
        assert_eq!(client.answer(waiting).result()["packets"], 1);
        let closed = begin(&mut client, handle, &endless(), &json!({}));
        arrivals.wait(3);
        client.call("socket.close", json!([handle])).result();
        let stopped = client.answer(closed).result().clone();
        assert_eq!((&stopped["packets"], &stopped["stopped"]["packet"]), (&json!(1), &json!(2)));
        assert_eq!(stopped["stopped"]["error"]["kind"], "handle");
        let handle = sender(&mut client, "v0");
        begin(&mut client, handle, &endless(), &json!({}));
        arrivals.wait(4);
        drop(client);
        // The limit of one replay is free again as soon as the broker has noticed the end.
        let mut client = broker.lsp();
        let handle = sender(&mut client, "v0");
        let replayed = loop {
            let call = begin(&mut client, handle, &at_once(&[frame(4, 60)]), &json!({}));
            let answer = client.answer(call);
            if !answer.is_fault() {
                break answer.result().clone();
            }
            assert_eq!(answer.fault().limit(), "replays_per_user");
        };
        assert_eq!(replayed["packets"], 1);
        let numbers = [1, 3, 1, 1, 4].map(|number| frame(number, 60));
        assert_eq!(arrivals.all(numbers.len()), numbers);
    });
}

#[test]
fn limits_of_a_replay_are_named() {
    with_interfaces("limits_of_a_replay_are_named", || {
        let two = at_once(&[frame(1, 60), frame(2, 60)]);
        // The header of the file is a block.
        let broker = limited(&[("replay_blocks", 3)]);
        let mut client = broker.lsp();
        let handle = sender(&mut client, "v0");
        assert_eq!(replay(&mut client, handle, &two, &json!({}))["packets"], 2);
        let three = at_once(&[frame(1, 60), frame(2, 60), frame(3, 60)]);
        let call = begin(&mut client, handle, &three, &json!({}));
        assert_eq!(client.answer(call).fault().limit(), "replay_blocks");
        for name in ["replays_per_user", "replays_in_all"] {
            let broker = limited(&[(name, 2)]);
            let mut client = broker.lsp();
            let handles: Vec<_> = (0..3).map(|_| sender(&mut client, "v0")).collect();
            let mut calls = Vec::new();
            for handle in &handles[..2] {
                calls.push(begin(&mut client, *handle, &endless(), &json!({})));
            }
            let call = begin(&mut client, handles[2], &two, &json!({}));
            assert_eq!(client.answer(call).fault().limit(), name);
            client.cancel(calls[0]);
            client.answer(calls[0]).fault();
            assert_eq!(replay(&mut client, handles[2], &two, &json!({}))["packets"], 2);
        }
    });
}

/// A policy that grants packet sockets and refuses `inject` on an interface. The broker's own user has everything else.
fn policy(interface: &str) -> String {
    format!(
        "version = 1\n[[rule]]\nname = \"sockets\"\nsubject = {{ everyone = true }}\n\
         allow = [\"create\", \"bind\", \"capture\"]\nfamily = [\"AF_PACKET\"]\n\
         [[rule]]\nname = \"no frames\"\nsubject = {{ everyone = true }}\n\
         deny = [\"inject\"]\nfamily = [\"AF_PACKET\"]\ninterface = [\"{interface}\"]\n"
    )
}

#[test]
fn the_policy_judges_a_replay_as_a_send_and_each_batch_again() {
    with_interfaces("the_policy_judges_a_replay_as_a_send_and_each_batch_again", || {
        let broker = prepare().policy(&policy("v1")).start();
        let mut arrivals = Arrivals::new(&broker);
        let mut client = broker.lsp();
        let [allowed, denied] = ["v0", "v1"].map(|interface| sender(&mut client, interface));
        let file = at_once(&[frame(1, 60)]);
        assert_eq!(replay(&mut client, allowed, &file, &json!({}))["packets"], 1);
        let call = begin(&mut client, denied, &file, &json!({}));
        let fault = client.answer(call).fault();
        let sent = client.call("socket.send", json!([denied, base64(frame(1, 60))])).fault();
        assert_eq!(fault.data.kind, "denied");
        assert_eq!((&fault.data.rule, &fault.data.grant), (&sent.data.rule, &sent.data.grant));
        assert_eq!(fault.data.rule.as_deref(), Some("no frames"));
        // The socket is bound again, or the policy changes, while the second frame waits.
        for (change, count) in [("bind", 2), ("policy", 3)] {
            let call = begin(&mut client, allowed, &endless(), &json!({}));
            arrivals.wait(count);
            let mut other = broker.lsp();
            if change == "bind" {
                let twin = client.call("socket.dup", json!([allowed])).handle();
                client.call("socket.bind", json!([twin, ["v1", 0]])).result();
            } else {
                broker.folder().write("policy.toml", &policy("v0"));
                other.call("admin.reload", Value::Null).result();
            }
            let stopped = client.answer(call).result().clone();
            assert_eq!(
                (&stopped["packets"], &stopped["stopped"]["packet"]),
                (&json!(1), &json!(2))
            );
            assert_eq!(stopped["stopped"]["error"]["kind"], "denied", "{change}");
            client.call("socket.bind", json!([allowed, ["v0", 0]])).result();
        }
    });
}
