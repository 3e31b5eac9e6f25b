//! `sockbroker nc` against native sockets, both ways.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command};
use std::thread;

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
