//! Captures under rules about packets: exactly the packets that the rules let through are in the stream.

use std::fs::File;
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;

use serde_json::{Value, json};
use sockbroker_pcapng::{Block, Reader};
use sockbroker_test_support::namespace::inside_with_users;
use sockbroker_test_support::skip::skip;
use sockbroker_test_support::{Daemon, LspClient, Start, base64};

use crate::arena::{PROGRAM, attacker};

/// Runs a test under a policy with each kind of broker: one with an opener and a reader, and one of a single process.
fn with_each_broker(test: &str, policy: &'static str, body: fn(&Daemon)) {
    let test = format!("capture_scopes::{test}");
    inside_with_users(&test, move || {
        let start = || Start::new(PROGRAM).policy(policy);
        body(&start().start().open_to_all());
        body(&start().section("[processes]\nworkers = false\n").start().open_to_all());
    });
}

/// A capture, and the client's end of its stream.
struct Capture {
    handle: u64,
    stream: File,
}

impl Capture {
    fn open(client: &mut LspClient, params: Value) -> Self {
        let mut answer = client.call("capture.open", params);
        let handle = answer.result()["handle"].as_u64().unwrap();
        Self { handle, stream: File::from(answer.descriptors.remove(0)) }
    }

    /// Ends it, and returns its packets.
    fn stop(mut self, client: &mut LspClient) -> Vec<Vec<u8>> {
        client.call("capture.stop", json!([self.handle])).result();
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).unwrap();
        client.call("capture.close", json!([self.handle])).result();
        packets(&bytes)
    }
}

fn packets(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut reader, mut found) = (Reader::new(bytes), Vec::new());
    while let Some(block) = reader.next_block().unwrap() {
        if let Block::Packet(packet) = block {
            found.push(packet.data.to_vec());
        }
    }
    found
}

/// What is behind the headers of Ethernet, IPv4 and UDP.
fn data(packets: &[Vec<u8>]) -> Vec<String> {
    let of_udp = packets.iter().filter(|packet| packet.get(23) == Some(&17));
    of_udp.map(|packet| String::from_utf8_lossy(&packet[42..]).into_owned()).collect()
}

/// Sends a datagram with its destination as its data.
fn send(host: Ipv4Addr, port: u16) {
    // Somebody receives it, so that there are no messages of ICMP, and captures have it before the next step.
    let receiver = UdpSocket::bind((host, port)).unwrap();
    let sender = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    sender.send_to(format!("{host}:{port}").as_bytes(), receiver.local_addr().unwrap()).unwrap();
    receiver.recv(&mut []).unwrap();
}

const ONE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const TWO: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const THREE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// Sends datagrams to two ports of three hosts, and makes a TCP connection.
fn traffic() {
    for host in [ONE, TWO, THREE] {
        for port in [5000, 6000] {
            send(host, port);
        }
    }
    let listener = TcpListener::bind((TWO, 0)).unwrap();
    drop(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
}

const HOSTS: &str = r#"
version = 1

[[rule]]
name = "the second host, and a port of the third"
subject = { uids = [4200001] }
allow = ["capture"]
interface = ["lo"]
protocol = ["IPPROTO_UDP"]
remote = ["127.0.0.2"]

[[rule]]
name = "a port of the third"
subject = { uids = [4200001] }
allow = ["capture"]
interface = ["lo"]
remote = ["127.0.0.3"]
remote_ports = ["5500-7000"]

[[rule]]
name = "tcp"
subject = { uids = [4200002] }
allow = ["capture"]
protocol = ["IPPROTO_TCP"]
"#;

#[test]
fn rules_let_exactly_their_packets_through() {
    with_each_broker("rules_let_exactly_their_packets_through", HOSTS, |broker| {
        let mut client = attacker().lsp(broker);
        let granted = ["127.0.0.2:5000", "127.0.0.2:6000", "127.0.0.3:6000"];
        for params in [json!([["lo"]]), json!([["lo", "lo"]])] {
            let capture = Capture::open(&mut client, params);
            traffic();
            let packets = capture.stop(&mut client);
            assert_eq!(data(&packets), granted);
            assert_eq!(packets.len(), granted.len());
        }
        // No rule is about other interfaces.
        for params in [json!([]), json!([["eth9"]])] {
            let fault = client.call("capture.open", params).fault();
            assert_eq!(fault.data.kind, "denied", "{fault:?}");
        }
        let mut other = crate::arena::neighbour().lsp(broker);
        for params in [json!([]), json!([["lo"]])] {
            let capture = Capture::open(&mut other, params);
            traffic();
            let packets = capture.stop(&mut other);
            assert!(data(&packets).is_empty() && packets.len() >= 3, "{packets:?}");
            assert!(packets.iter().all(|packet| packet[23] == 6), "{packets:?}");
        }
        // The owner of the broker sees everything.
        let mut owner = broker.lsp();
        let capture = Capture::open(&mut owner, json!([["lo"]]));
        traffic();
        assert_eq!(data(&capture.stop(&mut owner)).len(), 6);
    });
}

/// A program that accepts everything.
fn everything() -> String {
    base64([6, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f])
}

#[test]
fn a_filter_of_the_client_cannot_widen_what_rules_let_through() {
    let test = "a_filter_of_the_client_cannot_widen_what_rules_let_through";
    with_each_broker(test, HOSTS, |broker| {
        let mut client = attacker().lsp(broker);
        let capture = Capture::open(&mut client, json!([["lo"], everything()]));
        send(ONE, 5000);
        send(TWO, 5000);
        client.call("capture.set_filter", json!([capture.handle, everything()])).result();
        send(ONE, 5001);
        send(TWO, 5001);
        client.call("capture.set_filter", json!([capture.handle])).result();
        send(ONE, 5002);
        send(TWO, 5002);
        let expected = ["127.0.0.2:5000", "127.0.0.2:5001", "127.0.0.2:5002"];
        assert_eq!(data(&capture.stop(&mut client)), expected);
    });
}

const DENIED: &str = r#"
version = 1

[[rule]]
name = "all"
subject = { uids = [4200001] }
allow = ["capture"]

[[rule]]
name = "not the secrets"
subject = { everyone = true }
deny = ["capture"]
remote_ports = ["6000"]
"#;

#[test]
fn denied_packets_are_hidden_from_everybody() {
    with_each_broker("denied_packets_are_hidden_from_everybody", DENIED, |broker| {
        for mut client in [attacker().lsp(broker), broker.lsp()] {
            let capture = Capture::open(&mut client, json!([["lo"]]));
            traffic();
            let expected = ["127.0.0.1:5000", "127.0.0.2:5000", "127.0.0.3:5000"];
            assert_eq!(data(&capture.stop(&mut client)), expected);
        }
    });
}

#[test]
fn a_session_restricts_its_captures() {
    with_each_broker("a_session_restricts_its_captures", DENIED, |broker| {
        let mut client = broker.lsp();
        let running = Capture::open(&mut client, json!([["lo"]]));
        let restriction = json!({
            "filters": [{"allow": ["capture"], "remote": ["127.0.0.2"]}, {"allow": ["session"]}],
        });
        client.call("session.restrict", restriction).result();
        let capture = Capture::open(&mut client, json!([["lo"]]));
        traffic();
        assert_eq!(data(&capture.stop(&mut client)), ["127.0.0.2:5000"]);
        // What was opened before is an open file: the restriction is about what is asked later.
        let fault = client.call("capture.set_filter", json!([running.handle, everything()]));
        assert!(!fault.is_fault(), "{fault:?}");
        let capture = running;
        send(ONE, 5003);
        send(TWO, 5003);
        let seen = data(&capture.stop(&mut client));
        assert_eq!(seen.last().map(String::as_str), Some("127.0.0.2:5003"));
        assert!(!seen.contains(&"127.0.0.1:5003".to_owned()), "{seen:?}");
    });
}

#[test]
fn rules_and_a_filter_that_are_too_long_together_are_refused() {
    let test = "rules_and_a_filter_that_are_too_long_together_are_refused";
    with_each_broker(test, HOSTS, |broker| {
        let mut client = attacker().lsp(broker);
        let program = |length: usize| {
            let mut bytes = [0_u8; 8].repeat(length - 1);
            bytes.extend([6, 0, 0, 0, 0xff, 0xff, 0, 0]);
            base64(bytes)
        };
        let fault = client.call("capture.open", json!([["lo"], program(4096)])).fault();
        assert!(fault.message.contains("the kernel accepts at most 4096"), "{fault:?}");
        let fault = client.call("capture.open", json!([["lo"], program(4097)])).fault();
        assert!(fault.message.contains("4097 instructions"), "{fault:?}");
        let capture = Capture::open(&mut client, json!([["lo"], program(2000)]));
        let handle = capture.handle;
        let fault = client.call("capture.set_filter", json!([handle, program(4096)])).fault();
        assert!(fault.message.contains("the kernel accepts at most 4096"), "{fault:?}");
        send(TWO, 5000);
        assert_eq!(data(&capture.stop(&mut client)), ["127.0.0.2:5000"]);
    });
}

/// A frame with tags and a datagram to a port.
fn frame(tags: &[[u8; 4]], port: u16) -> Vec<u8> {
    let mut frame = [[0xff; 6], [2, 0, 0, 0, 0, 1]].concat();
    frame.extend(tags.concat());
    frame.extend([8, 0]);
    frame.extend([0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([5000_u16, port, 12, 0].map(u16::to_be_bytes).concat());
    frame.extend(*b"data");
    frame
}

const PORTS: &str = r#"
version = 1

[[rule]]
name = "a port"
subject = { uids = [4200001] }
allow = ["capture"]
protocol = ["IPPROTO_UDP"]
remote_ports = ["67"]
"#;

/// Sends frames through a packet socket of this process.
const SEND: &str = "import base64, socket, sys\n\
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n\
    s.bind((sys.argv[1], 0))\n\
    [s.send(base64.b64decode(frame)) for frame in sys.argv[2:]]";

#[test]
fn rules_find_ports_behind_vlan_tags() {
    with_each_broker("rules_find_ports_behind_vlan_tags", PORTS, |broker| {
        let mut ip = Command::new("ip");
        ip.args(["link", "add", "t0", "type", "veth", "peer", "name", "t1"]);
        if !ip.output().unwrap().status.success() {
            return skip("no veth interfaces here", "rules_find_ports_behind_vlan_tags");
        }
        for name in ["t0", "t1"] {
            let up = Command::new("ip").args(["link", "set", name, "up"]).status();
            assert!(up.unwrap().success());
        }
        let (single, double) = ([[0x81, 0, 0, 100]], [[0x88, 0xa8, 0, 5], [0x81, 0, 0, 100]]);
        let tags: [&[[u8; 4]]; 3] = [&[], &single, &double];
        let frames = tags.map(|tags| [frame(tags, 67), frame(tags, 68)]).concat();
        let wanted: Vec<_> = frames.iter().step_by(2).cloned().collect();
        let mut client = attacker().lsp(broker);
        for interfaces in [json!(["t1"]), Value::Null] {
            let options = json!({"direction": "in"});
            let capture = Capture::open(&mut client, json!([interfaces, null, options]));
            let frames = frames.iter().map(base64);
            let sent = Command::new("python3").args(["-c", SEND, "t0"]).args(frames).status();
            assert!(sent.unwrap().success());
            assert_eq!(capture.stop(&mut client), wanted);
        }
        let removed = Command::new("ip").args(["link", "del", "t0"]).status();
        assert!(removed.unwrap().success());
    });
}
