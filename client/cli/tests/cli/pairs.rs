//! `sockbroker agent --pair tcp`: descriptors that are TCP sockets.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use serde_json::json;
use sockbroker_client::blocking;
use sockbroker_test_support::channel::{
    connected, exact, expect_half_close, expect_reset_after_data, is_closed, local, rest,
};
use sockbroker_test_support::counts::CHANNELS;
use sockbroker_test_support::{Daemon, LspClient, bounded, until};

use crate::agent::{Agent, channel};
use crate::program::{broker, endpoint};

fn agent(broker: &Daemon) -> Agent {
    Agent::start(&endpoint(broker), &["--pair", "tcp"], |_| {})
}

fn tcp(client: &mut LspClient, handle: u64) -> TcpStream {
    OwnedFd::from(channel(client, handle)).into()
}

#[test]
fn descriptors_of_tcp_pairs_have_half_close_and_exact_resets() {
    bounded(20, || {
        let broker = broker();
        let agent = agent(&broker);
        let mut client = agent.client();
        let (handle, peer) = connected(&mut client);
        let mut stream = tcp(&mut client, handle);
        assert!(stream.peer_addr().unwrap().ip().is_loopback());
        assert!(stream.nodelay().unwrap());
        expect_half_close(&mut stream, peer);
        drop(stream);
        until("the handle is closed", || is_closed(&mut client, handle));
        // The peer resets the connection, after data that is not lost.
        let (handle, peer) = connected(&mut client);
        expect_reset_after_data(&mut tcp(&mut client, handle), peer);
        until("the handle is closed", || is_closed(&mut client, handle));
        // The client closes while the peer sends.
        let (handle, mut peer) = connected(&mut client);
        drop(tcp(&mut client, handle));
        until("the peer gets an error", || peer.write(&[0; 4096]).is_err());
        until("the handle is closed", || is_closed(&mut client, handle));
    });
}

#[test]
fn program_with_a_tcp_pair_that_ends_loses_nothing() {
    bounded(20, || {
        let broker = broker();
        let agent = agent(&broker);
        let mut client = agent.client();
        let (handle, mut peer) = connected(&mut client);
        let mut stream = tcp(&mut client, handle);
        let data: Vec<u8> = (0..1_000_000_u32).map(|place| (place % 251) as u8).collect();
        let written = data.clone();
        let writing = std::thread::spawn(move || stream.write_all(&written));
        drop(client);
        assert!(rest(&mut peer) == data);
        writing.join().unwrap().unwrap();
    });
}

/// The numbers of open files and threads of a process.
fn uses(process: u32) -> (usize, usize) {
    let count = |folder: &str| fs::read_dir(format!("/proc/{process}/{folder}")).unwrap().count();
    (count("fd"), count("task"))
}

#[test]
fn channels_leave_neither_descriptors_nor_threads() {
    bounded(60, || {
        let broker = broker();
        for pair in ["unix", "tcp"] {
            let agent = Agent::start(&endpoint(&broker), &["--pair", pair], |_| {});
            let mut client = agent.client();
            client.expect_service();
            let before = uses(agent.number());
            let mut use_one = || {
                let (handle, mut peer) = connected(&mut client);
                let mut stream = channel(&mut client, handle);
                stream.write_all(b"question").unwrap();
                assert_eq!(exact(&mut peer, 8), b"question");
                drop(stream);
                assert_eq!(rest(&mut peer), b"");
            };
            for _ in 0..CHANNELS.get() {
                use_one();
            }
            until("all is closed", || uses(agent.number()) == before);
        }
    });
}

#[test]
fn frames_have_a_unix_socket_with_every_kind_of_pair() {
    bounded(20, || {
        let broker = broker();
        let agent = agent(&broker);
        let mut client = agent.client();
        let (handle, _peer) = connected(&mut client);
        let frames = json!({ "handle": handle, "want_fd": true, "framing": "frames" });
        assert!(local(&mut client, frames).peer_addr().unwrap().is_unnamed());
    });
}

#[test]
fn rust_client_gets_tcp_sockets() {
    bounded(20, || {
        let broker = broker();
        let agent = agent(&broker);
        let endpoint = format!("unix:{}", agent.path().display()).parse().unwrap();
        let remote = blocking::Broker::connect_to(&endpoint).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = ("127.0.0.1", listener.local_addr().unwrap().port());
        let stream = remote.create_connection(address).unwrap().into_owned_fd();
        let mut stream = stream.map(TcpStream::from).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(b"from Rust").unwrap();
        drop(stream);
        assert_eq!(rest(&mut listener.accept().unwrap().0), b"from Rust");
    });
}
