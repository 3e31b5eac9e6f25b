//! What a raw channel moves from a TCP socket to its client without a copy.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;

use serde_json::json;
use sockbroker_sys::{message, poll};
use sockbroker_test_support::channel::{connected_channel, exact, rest};
use sockbroker_test_support::{bounded, until};

use crate::broker::broker;

/// More than both sockets and the broker hold.
const LENGTH: u32 = 9_000_000;

#[test]
fn data_is_complete_and_in_order_whatever_the_client_takes_at_a_time() {
    bounded(30, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (_, mut stream, mut peer) = connected_channel(&mut client);
        let data: Vec<u8> = (0..LENGTH).map(|place| (place % 251) as u8).collect();
        let sent = data.clone();
        let sending = std::thread::spawn(move || {
            // Pieces of every size, from one byte on.
            let mut rest = sent.as_slice();
            for length in (1..).step_by(97) {
                let (piece, others) = rest.split_at(rest.len().min(length));
                peer.write_all(piece).unwrap();
                rest = others;
                if rest.is_empty() {
                    return;
                }
            }
        });
        let mut received = Vec::new();
        for length in (1..).step_by(251) {
            let left = data.len() - received.len();
            if left == 0 {
                break;
            }
            received.extend(exact(&mut stream, left.min(length)));
        }
        sending.join().unwrap();
        assert!(received == data);
        assert_eq!(rest(&mut stream), b"");
    });
}

#[test]
fn out_of_band_byte_at_the_head_of_the_data_delays_nothing() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (_, mut stream, mut peer) = connected_channel(&mut client);
        for round in 0..50_u8 {
            message::send(peer.as_fd(), b"!", libc::MSG_OOB).unwrap();
            // The byte is there, and the broker serves other calls.
            client.expect_service();
            peer.write_all(&[round, 1, 2]).unwrap();
            assert_eq!(exact(&mut stream, 3), [round, 1, 2]);
        }
    });
}

#[test]
fn each_piece_is_judged() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (_, mut stream, mut peer) = connected_channel(&mut client);
        peer.write_all(b"granted").unwrap();
        assert_eq!(exact(&mut stream, 7), b"granted");
        let filters = json!([{ "allow": ["receive"], "type": ["SOCK_DGRAM"] }]);
        client.call("session.restrict", json!({ "filters": filters })).result();
        peer.write_all(b"secret").unwrap();
        assert_eq!(rest(&mut stream), b"");
    });
}

#[test]
fn client_that_takes_nothing_holds_only_what_its_socket_has_room_for() {
    bounded(30, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (_, mut stream, mut peer) = connected_channel(&mut client);
        peer.set_nonblocking(true).unwrap();
        let piece = vec![7; 65_536];
        let mut sent = 0;
        // The data has filled the descriptor, the socket of the broker and that of the peer.
        until("the peer can send nothing more", || {
            while let Ok(count) = peer.write(&piece) {
                sent += count;
            }
            poll::poll_now(&[(peer.as_fd(), libc::POLLOUT)]).unwrap() == [0]
        });
        client.expect_service();
        let waiting = poll::poll_now(&[(stream.as_fd(), libc::POLLIN)]).unwrap();
        assert_eq!(waiting, [libc::POLLIN]);
        peer.set_nonblocking(false).unwrap();
        let reading = std::thread::spawn(move || {
            let mut total = 0;
            let mut buffer = vec![0; 1 << 20];
            loop {
                match stream.read(&mut buffer).unwrap() {
                    0 => return total,
                    count => total += count,
                }
            }
        });
        drop(peer);
        assert_eq!(reading.join().unwrap(), sent);
    });
}
