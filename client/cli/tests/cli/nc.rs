//! `sockbroker nc` against native sockets, both ways.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use sockbroker_test_support::{Folder, HANG, bounded, namespace, until};

use crate::program::{PROGRAM, Ran, broker, endpoint, feed, run, run_with, start};

/// Reads to the end of the stream, and only then answers and ends.
fn answer_at_the_end(mut stream: impl std::io::Read + std::io::Write) -> Vec<u8> {
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    stream.write_all(b"heard it all").unwrap();
    heard
}

/// The address in the line that tells where it listens.
fn listens_at(child: &mut Child) -> (String, BufReader<std::process::ChildStderr>) {
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on ").expect("an address").to_owned();
    (address, said)
}

#[test]
fn tcp_goes_both_ways_and_keeps_its_half_close() {
    bounded(40, || {
        for host in ["127.0.0.1", "::1"] {
            let Ok(listener) = TcpListener::bind((host, 0)) else {
                sockbroker_test_support::skip::skip(
                    "no IPv6 here",
                    "nc::tcp_goes_both_ways_and_keeps_its_half_close",
                );
                continue;
            };
            let port = listener.local_addr().unwrap().port().to_string();
            let server = thread::spawn(move || answer_at_the_end(listener.accept().unwrap().0));
            let ran = run_with(&["--private", "nc", host, &port], b"a line\n");
            assert_eq!(ran.done(), "heard it all");
            assert_eq!(server.join().unwrap(), b"a line\n");
        }
    });
}

#[test]
fn megabytes_arrive_as_they_were() {
    bounded(60, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let server = thread::spawn(move || answer_at_the_end(listener.accept().unwrap().0));
        let data: Vec<u8> =
            (0..8_000_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        let broker = broker();
        let arguments = ["--broker", &endpoint(&broker), "nc", "--progress", "127.0.0.1", &port];
        let ran = run_with(&arguments, &data);
        assert!(
            ran.err.contains("sent 8.0 MB (") && ran.err.contains("received 12 B ("),
            "{}",
            ran.err
        );
        assert_eq!(ran.done(), "heard it all");
        assert!(server.join().unwrap() == data, "the bytes differ");
    });
}

#[test]
fn it_listens_for_one_connection() {
    bounded(40, || {
        let mut child = start(&["--private", "nc", "-l", "127.0.0.1", "0"]);
        let (address, mut said) = listens_at(&mut child);
        let mut peer = TcpStream::connect(address).unwrap();
        peer.set_read_timeout(Some(HANG)).unwrap();
        let child = feed(child, b"from nc");
        let mut heard = [0; 7];
        peer.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"from nc");
        peer.write_all(b"from the peer").unwrap();
        peer.shutdown(Shutdown::Both).unwrap();
        let ran = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&ran.stdout), "from the peer");
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        assert!(ran.status.success() && rest.starts_with("connection from 127.0.0.1:"), "{rest}");
    });
}

#[test]
fn datagrams_go_both_ways_until_nothing_comes() {
    bounded(40, || {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(HANG)).unwrap();
        let port = server.local_addr().unwrap().port().to_string();
        let echo = thread::spawn(move || {
            let mut datagram = [0; 100];
            let (length, from) = server.recv_from(&mut datagram).unwrap();
            server.send_to(&datagram[..length], from).unwrap();
        });
        let ran =
            run_with(&["--private", "nc", "-u", "-w", "0.5", "127.0.0.1", &port], b"a datagram");
        assert_eq!(ran.done(), "a datagram");
        echo.join().unwrap();
    });
}

#[test]
fn it_waits_for_the_first_datagram_and_answers_its_sender() {
    bounded(40, || {
        let mut child = start(&["--private", "nc", "-l", "-u", "-w", "0.5", "127.0.0.1", "0"]);
        let (address, _said) = listens_at(&mut child);
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(HANG)).unwrap();
        peer.send_to(b"first", address).unwrap();
        let child = feed(child, b"answer");
        let mut datagram = [0; 100];
        assert_eq!(peer.recv(&mut datagram).unwrap(), 6);
        let ran = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&ran.stdout), "first");
        assert!(ran.status.success());
    });
}

#[test]
fn unix_sockets_go_both_ways() {
    bounded(40, || {
        let folder = Folder::new();
        let path = folder.join("peer");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || answer_at_the_end(listener.accept().unwrap().0));
        let ran = run_with(&["--private", "nc", "-U", path.to_str().unwrap()], b"hello");
        assert_eq!(ran.done(), "heard it all");
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
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"from nc");
        drop(peer);
        assert!(child.wait_with_output().unwrap().status.success());
    });
}

#[test]
fn nobody_there_is_told_and_so_is_nothing_that_comes() {
    bounded(40, || {
        let line = run(&["--private", "nc", "127.0.0.1", "1"]).failed_with(1);
        assert!(line.contains("connect to 127.0.0.1:1: ECONNREFUSED"), "{line}");
        let line = run(&["--private", "nc", "-U", "/nowhere/at/all"]).failed_with(1);
        assert!(line.contains("ENOENT"), "{line}");
        // A peer that says nothing and does not end.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        assert_eq!(run(&["--private", "nc", "-w", "0.3", "127.0.0.1", &port]).done(), "");
    });
}

#[test]
fn a_broker_that_dies_ends_it_with_a_line() {
    bounded(40, || {
        let mut broker = broker();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let child = start(&["--broker", &endpoint(&broker), "nc", "127.0.0.1", &port]);
        let (_peer, _) = listener.accept().unwrap();
        broker.process().child.kill().unwrap();
        let ran = Ran::from(child.wait_with_output().unwrap());
        let line = ran.failed_with(69);
        assert!(line.contains("the broker is gone"), "{line}");
    });
}

#[test]
fn a_broker_that_is_stopped_ends_it_as_one_that_dies() {
    bounded(60, || {
        let mut broker = broker();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let child = start(&["--broker", &endpoint(&broker), "nc", "127.0.0.1", &port]);
        let (_peer, _) = listener.accept().unwrap();
        broker.process().terminate();
        let ran = Ran::from(child.wait_with_output().unwrap());
        let line = ran.failed_with(69);
        // By the last answer of the broker, or because there is none at its socket.
        assert!(
            line.contains("the broker is gone") || line.contains("no broker answers"),
            "{line}"
        );
    });
}

#[test]
fn ports_out_of_range_are_errors_of_the_command_line() {
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
            let line = run(&[&["--private"], wrong].concat()).failed_with(2);
            assert!(line.contains("port"), "{line}");
        }
        for wrong in [
            &["nc", "-k", "127.0.0.1", "80"][..],
            &["nc", "-l", "-p", "80", "127.0.0.1", "81"],
            &["nc", "-l", "-z", "127.0.0.1", "81"],
            &["nc", "-s", "nobody", "127.0.0.1", "80"],
        ] {
            assert_eq!(run(wrong).code, 2, "{wrong:?}");
        }
    });
}

#[test]
fn a_low_port_is_refused_with_what_to_grant() {
    namespace::inside("nc::a_low_port_is_refused_with_what_to_grant", || {
        let script = format!(
            "exec setpriv --bounding-set=-all --inh-caps=-all {PROGRAM} --private nc -l 127.0.0.1 80"
        );
        let ran = Ran::from(Command::new("sh").args(["-c", &script]).output().unwrap());
        let line = ran.failed_with(1);
        for part in ["bind to 127.0.0.1:80: EACCES", "CAP_NET_BIND_SERVICE", "roles/ports.conf"] {
            assert!(line.contains(part), "{part} in {line}");
        }
    });
}

#[test]
fn a_scan_finds_who_listens_and_sends_nothing() {
    bounded(60, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap().port();
        let ran = run(&["--private", "nc", "-z", "-v", "127.0.0.1", &open.to_string()]);
        assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{ran:?}");
        let line = format!("Connection to 127.0.0.1 {open} port [tcp/");
        assert!(ran.err.starts_with(&line) && ran.err.ends_with("] succeeded!\n"), "{ran:?}");
        let mut heard = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"");
        // Of a range one is enough; the others are reported with -v alone.
        let range = format!("{}-{open}", open - 1);
        let ran = run(&["--private", "nc", "-z", "127.0.0.1", &range]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
        drop(listener);
        let line = run(&["--private", "nc", "-z", "127.0.0.1", &open.to_string()]).failed_with(1);
        assert!(line.contains("ECONNREFUSED"), "{line}");
        let ran = run(&["--private", "nc", "-z", "-v", "127.0.0.1", &open.to_string()]);
        assert_eq!((ran.code, ran.err.lines().count()), (1, 1), "{ran:?}");
    });
}

#[test]
fn a_scan_by_datagrams_hears_refusals() {
    namespace::inside("nc::a_scan_by_datagrams_hears_refusals", || {
        let bound = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = bound.local_addr().unwrap().port().to_string();
        run(&["--private", "nc", "-z", "-u", "127.0.0.1", &port]).done();
        let mut datagram = [0; 10];
        assert_eq!((bound.recv(&mut datagram).unwrap(), datagram[0]), (1, b'X'));
        drop(bound);
        let line = run(&["--private", "nc", "-z", "-u", "127.0.0.1", &port]).failed_with(1);
        assert!(line.contains("ECONNREFUSED"), "{line}");
    });
}

#[test]
fn a_connection_comes_from_the_address_and_port_that_were_given() {
    namespace::inside("nc::a_connection_comes_from_the_address_and_port_that_were_given", || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let from = ["-s", "127.0.0.2", "-p", "4000"];
        run(&[&["--private", "nc", "-z"], &from[..], &["127.0.0.1", &port]].concat()).done();
        assert_eq!(listener.accept().unwrap().1.to_string(), "127.0.0.2:4000");
        let ran = run(&["--private", "nc", "-z", "-s", "::1", "127.0.0.1", &port]);
        assert!(ran.failed_with(1).contains("another family"));
    });
}

#[test]
fn it_goes_on_listening_where_that_is_asked() {
    bounded(60, || {
        let mut child = start(&["--private", "nc", "-l", "-k", "127.0.0.1", "0"]);
        let (address, mut said) = listens_at(&mut child);
        let mut input = child.stdin.take().unwrap();
        for number in 1..=3 {
            let mut peer = TcpStream::connect(&address).unwrap();
            peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut line = String::new();
            said.read_line(&mut line).unwrap();
            assert!(line.starts_with("connection from 127.0.0.1:"), "{line}");
            // Standard input goes to the connection that there is.
            input.write_all(b"to you").unwrap();
            let mut heard = [0; 6];
            peer.read_exact(&mut heard).unwrap();
            writeln!(peer, "number {number}").unwrap();
        }
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for number in 1..=3 {
            assert_eq!(lines.next().unwrap().unwrap(), format!("number {number}"));
        }
        assert_eq!(child.try_wait().unwrap(), None);
        // Through timeout(1), which would leave the program behind if it were killed itself.
        let mut kill = Command::new("kill");
        assert!(kill.args(["-TERM", &child.id().to_string()]).status().unwrap().success());
        child.wait().unwrap();
    });
}

#[test]
fn datagrams_of_all_senders_are_taken_where_that_is_asked() {
    bounded(40, || {
        let mut child = start(&["--private", "nc", "-l", "-k", "-u", "-w", "1", "127.0.0.1", "0"]);
        let (address, _said) = listens_at(&mut child);
        for _ in 0..2 {
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            sender.send_to(b"one of two\n", &address).unwrap();
        }
        let ran = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&ran.stdout), "one of two\n".repeat(2));
        assert!(ran.status.success());
    });
}

#[test]
fn raw_sockets_carry_packets() {
    namespace::inside("nc::raw_sockets_carry_packets", || {
        // A protocol that is for experiments (RFC 3692): it comes back over the loopback.
        let command = format!("printf hello | {PROGRAM} --private nc --raw 253 -w 0.5 127.0.0.1");
        let ran = Command::new("sh").args(["-c", &command]).output().unwrap();
        let packet = ran.stdout;
        assert_eq!((packet.len(), &packet[..1], packet[9]), (25, &b"\x45"[..], 253));
        assert_eq!(&packet[20..], b"hello");
        let line =
            run(&["--private", "nc", "--raw", "no-such-protocol", "127.0.0.1"]).failed_with(1);
        assert!(line.contains("socket.getprotobyname"), "{line}");
    });
}
