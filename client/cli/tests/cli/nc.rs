//! `sockbroker nc` against native sockets, as client and as server.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command};
use std::thread;

use sockbroker_test_support::{Folder, HANG, Start, bounded, namespace, until};

use crate::connecting::bound;
use crate::program::{
    Outcome, PROGRAM, broker, endpoint, feed, run, run_at, run_with_input, start,
};

/// A policy that refuses look-ups to everybody.
const NO_LOOKUP: &str = r#"
version = 1

[[rule]]
name = "no look-ups"
subject = { everyone = true }
deny = ["resolve"]
"#;

/// Reads to the end of the stream, then answers and closes it.
fn answer_after_eof(mut stream: impl std::io::Read + std::io::Write) -> Vec<u8> {
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    stream.write_all(b"read it all").unwrap();
    received
}

/// Reads the address in the line `listening on ADDRESS`.
fn listening_address(child: &mut Child) -> (String, BufReader<std::process::ChildStderr>) {
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on ").expect("an address").to_owned();
    (address, stderr)
}

#[test]
fn tcp_copies_both_ways_and_supports_half_close() {
    bounded(40, || {
        for host in ["127.0.0.1", "::1"] {
            let Ok(listener) = TcpListener::bind((host, 0)) else {
                sockbroker_test_support::skip::skip(
                    "no IPv6 here",
                    "nc::tcp_copies_both_ways_and_supports_half_close",
                );
                continue;
            };
            let port = listener.local_addr().unwrap().port().to_string();
            let server = thread::spawn(move || answer_after_eof(listener.accept().unwrap().0));
            let outcome = run_with_input(&["--private", "nc", host, &port], b"a line\n");
            assert_eq!(outcome.success(), "read it all");
            assert_eq!(server.join().unwrap(), b"a line\n");
        }
    });
}

#[test]
fn large_stream_arrives_unchanged() {
    bounded(60, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let server = thread::spawn(move || answer_after_eof(listener.accept().unwrap().0));
        let data: Vec<u8> =
            (0..8_000_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        let broker = broker();
        let arguments = ["--broker", &endpoint(&broker), "nc", "--progress", "127.0.0.1", &port];
        let outcome = run_with_input(&arguments, &data);
        assert!(
            outcome.err.contains("sent 8.0 MB (") && outcome.err.contains("received 11 B ("),
            "{}",
            outcome.err
        );
        assert_eq!(outcome.success(), "read it all");
        assert!(server.join().unwrap() == data, "the bytes differ");
    });
}

#[test]
fn listen_accepts_one_connection() {
    bounded(40, || {
        let mut child = start(&["--private", "nc", "-l", "127.0.0.1", "0"]);
        let (address, mut stderr) = listening_address(&mut child);
        let mut peer = TcpStream::connect(address).unwrap();
        peer.set_read_timeout(Some(HANG)).unwrap();
        let child = feed(child, b"from nc");
        let mut received = [0; 7];
        peer.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"from nc");
        peer.write_all(b"from the peer").unwrap();
        peer.shutdown(Shutdown::Both).unwrap();
        let outcome = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&outcome.stdout), "from the peer");
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        assert!(
            outcome.status.success() && rest.starts_with("connection from 127.0.0.1:"),
            "{rest}"
        );
    });
}

#[test]
fn datagrams_are_copied_both_ways_until_the_timeout() {
    bounded(40, || {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(HANG)).unwrap();
        let port = server.local_addr().unwrap().port().to_string();
        let echo = thread::spawn(move || {
            let mut datagram = [0; 100];
            let (length, from) = server.recv_from(&mut datagram).unwrap();
            server.send_to(&datagram[..length], from).unwrap();
        });
        let outcome = run_with_input(
            &["--private", "nc", "-u", "-w", "5", "127.0.0.1", &port],
            b"a datagram",
        );
        assert_eq!(outcome.success(), "a datagram");
        echo.join().unwrap();
    });
}

#[test]
fn listening_udp_answers_the_first_sender() {
    bounded(40, || {
        let mut child = start(&["--private", "nc", "-l", "-u", "-w", "5", "127.0.0.1", "0"]);
        let (address, _said) = listening_address(&mut child);
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(HANG)).unwrap();
        peer.send_to(b"first", address).unwrap();
        let child = feed(child, b"answer");
        let mut datagram = [0; 100];
        assert_eq!(peer.recv(&mut datagram).unwrap(), 6);
        let outcome = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&outcome.stdout), "first");
        assert!(outcome.status.success());
    });
}

#[test]
fn unix_sockets_copy_both_ways() {
    bounded(40, || {
        let folder = Folder::new();
        let path = folder.join("peer");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || answer_after_eof(listener.accept().unwrap().0));
        let outcome = run_with_input(&["--private", "nc", "-U", path.to_str().unwrap()], b"hello");
        assert_eq!(outcome.success(), "read it all");
        assert_eq!(server.join().unwrap(), b"hello");

        let path = folder.join("nc");
        let child = start(&["--private", "nc", "-l", "-U", path.to_str().unwrap()]);
        let mut peer = None;
        until("it listens", || {
            peer = UnixStream::connect(&path).ok();
            peer.is_some()
        });
        let child = feed(child, b"from nc");
        let mut peer = peer.unwrap();
        let mut received = Vec::new();
        peer.read_to_end(&mut received).unwrap();
        assert_eq!(received, b"from nc");
        drop(peer);
        assert!(child.wait_with_output().unwrap().status.success());
    });
}

#[test]
fn refused_connection_is_reported_and_silence_times_out() {
    bounded(40, || {
        let line = run(&["--private", "nc", "127.0.0.1", "1"]).failure(1);
        assert!(line.contains("connect to 127.0.0.1:1: ECONNREFUSED"), "{line}");
        let line = run(&["--private", "nc", "-U", "/nowhere/at/all"]).failure(1);
        assert!(line.contains("ENOENT"), "{line}");
        // A peer that sends nothing and does not close.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        assert_eq!(run(&["--private", "nc", "-w", "5", "127.0.0.1", &port]).success(), "");
    });
}

#[test]
fn killed_broker_ends_nc_with_an_error() {
    bounded(40, || {
        let mut broker = broker();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let child = start(&["--broker", &endpoint(&broker), "nc", "127.0.0.1", &port]);
        let (_peer, _) = listener.accept().unwrap();
        broker.process().child.kill().unwrap();
        let outcome = Outcome::from(child.wait_with_output().unwrap());
        let line = outcome.failure(69);
        // Before the answer to its last call the client connects again.
        assert!(
            line.contains("the connection to the broker ended")
                || line.contains("no broker answers"),
            "{line}"
        );
    });
}

#[test]
fn stopped_broker_ends_nc_with_an_error() {
    bounded(60, || {
        let mut broker = broker();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let child = start(&["--broker", &endpoint(&broker), "nc", "127.0.0.1", &port]);
        let (_peer, _) = listener.accept().unwrap();
        broker.process().terminate();
        let outcome = Outcome::from(child.wait_with_output().unwrap());
        let line = outcome.failure(69);
        // The broker has cancelled the call, or no broker answers any more.
        assert!(
            line.contains("the connection to the broker ended")
                || line.contains("no broker answers"),
            "{line}"
        );
    });
}

#[test]
fn ports_out_of_range_are_usage_errors() {
    bounded(40, || {
        for wrong in [
            &["nc", "127.0.0.1", "65536"][..],
            &["nc", "127.0.0.1", "0"],
            &["nc", "127.0.0.1", "20-30"],
            &["nc", "-z", "127.0.0.1", "0-3"],
            &["nc", "-l", "127.0.0.1", "70000"],
            &["nc", "-l", "70000"],
            &["nc", "-p", "70000", "127.0.0.1", "80"],
        ] {
            let line = run(&[&["--private"], wrong].concat()).failure(2);
            assert!(line.contains("port"), "{line}");
        }
        for wrong in [
            &["nc", "-k", "127.0.0.1", "80"][..],
            &["nc", "-l", "-p", "80", "127.0.0.1", "81"],
            &["nc", "-l", "-z", "127.0.0.1", "81"],
            &["nc", "-s", "no-address", "127.0.0.1", "80"],
        ] {
            assert_eq!(run(wrong).code, 2, "{wrong:?}");
        }
    });
}

#[test]
fn privileged_port_error_names_the_capability() {
    namespace::inside("nc::privileged_port_error_names_the_capability", || {
        let script = format!(
            "exec setpriv --bounding-set=-all --inh-caps=-all {PROGRAM} --private nc -l 127.0.0.1 80"
        );
        let outcome = Outcome::from(Command::new("sh").args(["-c", &script]).output().unwrap());
        let line = outcome.failure(1);
        for part in ["bind to 127.0.0.1:80: EACCES", "CAP_NET_BIND_SERVICE", "roles/ports.conf"] {
            assert!(line.contains(part), "{part} in {line}");
        }
    });
}

#[test]
fn scan_finds_open_ports_and_sends_no_data() {
    bounded(60, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap().port();
        let outcome = run(&["--private", "nc", "-z", "-v", "127.0.0.1", &open.to_string()]);
        assert_eq!((outcome.code, outcome.out.as_str()), (0, ""), "{outcome:?}");
        let line = format!("Connection to 127.0.0.1 {open} port [tcp/");
        assert!(
            outcome.err.starts_with(&line) && outcome.err.ends_with("] succeeded!\n"),
            "{outcome:?}"
        );
        let mut received = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
        assert_eq!(received, b"");
        // One open port of a range is enough. Only -v reports the others.
        let range = format!("{}-{open}", open - 1);
        let outcome = run(&["--private", "nc", "-z", "127.0.0.1", &range]);
        assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "{outcome:?}");
        let (_bound, closed) = bound();
        let line = run(&["--private", "nc", "-z", "127.0.0.1", &closed.to_string()]).failure(1);
        assert!(line.contains("ECONNREFUSED"), "{line}");
        let outcome = run(&["--private", "nc", "-z", "-v", "127.0.0.1", &closed.to_string()]);
        assert_eq!((outcome.code, outcome.err.lines().count()), (1, 1), "{outcome:?}");
    });
}

#[test]
fn scan_reports_a_refused_look_up_once() {
    bounded(60, || {
        let broker = Start::new(PROGRAM).shell("set -- broker \"$@\"").policy(NO_LOOKUP).start();
        for options in [&["-z"][..], &["-z", "-v"]] {
            let words = [&["nc"], options, &["127.0.0.1", "1-3"]].concat();
            let line = run_at(&broker, &words).failure(1);
            assert!(line.contains("no look-ups"), "{line}");
        }
    });
}

#[test]
fn udp_scan_reports_refused_ports() {
    namespace::inside("nc::udp_scan_reports_refused_ports", || {
        let bound = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = bound.local_addr().unwrap().port().to_string();
        run(&["--private", "nc", "-z", "-u", "127.0.0.1", &port]).success();
        let mut datagram = [0; 10];
        assert_eq!((bound.recv(&mut datagram).unwrap(), datagram[0]), (1, b'X'));
        drop(bound);
        let line = run(&["--private", "nc", "-z", "-u", "127.0.0.1", &port]).failure(1);
        assert!(line.contains("ECONNREFUSED"), "{line}");
    });
}

#[test]
fn connection_uses_the_given_source_address_and_port() {
    namespace::inside("nc::connection_uses_the_given_source_address_and_port", || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let from = ["-s", "127.0.0.2", "-p", "4000"];
        run(&[&["--private", "nc", "-z"], &from[..], &["127.0.0.1", &port]].concat()).success();
        assert_eq!(listener.accept().unwrap().1.to_string(), "127.0.0.2:4000");
        let outcome = run(&["--private", "nc", "-z", "-s", "::1", "127.0.0.1", &port]);
        assert!(outcome.failure(1).contains("another address family"));
    });
}

#[test]
fn keep_accepts_connections_one_after_the_other() {
    bounded(60, || {
        let mut child = start(&["--private", "nc", "-l", "-k", "127.0.0.1", "0"]);
        let (address, mut stderr) = listening_address(&mut child);
        let mut input = child.stdin.take().unwrap();
        for number in 1..=3 {
            let mut peer = TcpStream::connect(&address).unwrap();
            peer.set_read_timeout(Some(HANG)).unwrap();
            let mut line = String::new();
            stderr.read_line(&mut line).unwrap();
            assert!(line.starts_with("connection from 127.0.0.1:"), "{line}");
            // Standard input goes to the current connection.
            input.write_all(b"to you").unwrap();
            let mut received = [0; 6];
            peer.read_exact(&mut received).unwrap();
            writeln!(peer, "number {number}").unwrap();
        }
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for number in 1..=3 {
            assert_eq!(lines.next().unwrap().unwrap(), format!("number {number}"));
        }
        assert_eq!(child.try_wait().unwrap(), None);
        // Signal timeout(1): if it were killed, the program would continue.
        let mut kill = Command::new("kill");
        assert!(kill.args(["-TERM", &child.id().to_string()]).status().unwrap().success());
        child.wait().unwrap();
    });
}

#[test]
fn keep_receives_datagrams_of_all_senders() {
    bounded(40, || {
        let mut child = start(&["--private", "nc", "-l", "-k", "-u", "-w", "5", "127.0.0.1", "0"]);
        let (address, _said) = listening_address(&mut child);
        for _ in 0..2 {
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            sender.send_to(b"one of two\n", &address).unwrap();
        }
        let outcome = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&outcome.stdout), "one of two\n".repeat(2));
        assert!(outcome.status.success());
    });
}

#[test]
fn raw_socket_sends_and_receives_packets() {
    namespace::inside("nc::raw_socket_sends_and_receives_packets", || {
        // A protocol for experiments (RFC 3692). The packet returns over the loopback interface.
        let command = format!("printf hello | {PROGRAM} --private nc --raw 253 -w 5 127.0.0.1");
        let outcome = Command::new("sh").args(["-c", &command]).output().unwrap();
        let packet = outcome.stdout;
        assert_eq!((packet.len(), &packet[..1], packet[9]), (25, &b"\x45"[..], 253));
        assert_eq!(&packet[20..], b"hello");
        let line = run(&["--private", "nc", "--raw", "no-such-protocol", "127.0.0.1"]).failure(1);
        assert!(line.contains("socket.getprotobyname"), "{line}");
    });
}
