//! How channels end: one direction after the other, in the middle of data, and when a limit is reached.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use sockbroker_proto::channel::{ChannelFrame, write_frame};
use sockbroker_sys::socket;
use sockbroker_test_support::channel::{
    Channel, FRAMES, connected, exact, is_closed, local, narrow, path, rest,
};
use sockbroker_test_support::{Daemon, HANG, bounded, until};

use crate::broker::broker;

/// What a peer receives that answers each piece with one byte, until the connection ends or is reset.
fn received_by_answering(mut peer: TcpStream) -> Vec<u8> {
    let (mut data, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match peer.read(&mut piece) {
            Ok(0) => return data,
            Ok(count) => data.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return data,
            Err(error) => panic!("{error}"),
        }
        // The other end may be closed already.
        drop(peer.write_all(b"a"));
    }
}

fn pattern(length: u32) -> Vec<u8> {
    (0..length).map(|place| (place % 249) as u8).collect()
}

fn large_frame() -> Vec<u8> {
    let mut frame = Vec::new();
    write_frame(&mut frame, ChannelFrame::Data(&pattern(60_000))).unwrap();
    frame
}

/// Writes this again and again, and returns the error with which that ends.
fn write_until_it_fails(stream: &mut UnixStream, data: &[u8]) -> ErrorKind {
    loop {
        if let Err(error) = stream.write_all(data) {
            return error.kind();
        }
    }
}

/// Lets the peer fill everything up to the client of the channel, who does not read.
fn fill(peer: &mut TcpStream) {
    peer.set_nonblocking(true).unwrap();
    let mut full = 0;
    until("all buffers are full", || {
        match peer.write(&large_frame()) {
            Ok(_) => full = 0,
            Err(_full) => full += 1,
        }
        full > 100
    });
}

fn reset(peer: TcpStream) {
    socket::reset_on_close(peer.as_fd()).unwrap();
    drop(peer);
}

#[test]
fn client_that_ends_loses_nothing_while_its_peer_answers() {
    bounded(20, || {
        let broker = broker();
        let data = pattern(150_000);
        // The handle closes with the descriptor, with the session, or alone.
        for end in ["close", "session", "socket.close"] {
            let mut client = broker.lsp();
            let (handle, mut peer) = narrow(&mut client);
            let params = json!({ "handle": handle, "want_fd": true, "close": end == "close" });
            let mut stream = local(&mut client, params);
            peer.write_all(b"not read by the client").unwrap();
            broker.worker_stopped_during(|| {
                stream.write_all(&data).unwrap();
                drop(stream);
                if end == "socket.close" {
                    client.send("socket.close", json!([handle]));
                }
                if end != "close" {
                    drop(client);
                }
            });
            let received = received_by_answering(peer);
            assert!(received == data, "{end}: {} of {} bytes", received.len(), data.len());
        }
    });
}

/// The channel has sent everything to the kernel and has ended, but the peer has not read everything when the handle closes.
#[test]
fn handle_that_closes_after_the_end_of_its_channel_loses_nothing() {
    bounded(20, || {
        let broker = broker();
        let data = pattern(150_000);
        for end in ["session", "socket.close"] {
            let mut client = broker.lsp();
            let (handle, mut peer) = narrow(&mut client);
            let params = json!({ "handle": handle, "want_fd": true });
            let mut stream = local(&mut client, params);
            client.call("socket.settimeout", json!([handle, 0])).result();
            stream.write_all(&data).unwrap();
            drop(stream);
            let mut received = Vec::new();
            let mut has_channel = || {
                let peeked = client.call("socket.recv", json!([handle, 1, "MSG_PEEK"]));
                peeked.is_fault() && peeked.fault().errno() == "EBUSY"
            };
            while has_channel() {
                received.extend(exact(&mut peer, 1000));
            }
            assert!(received.len() < data.len(), "{} bytes", received.len());
            // Unread data makes the kernel reset a connection that is closed.
            peer.write_all(b"not read by the client").unwrap();
            match end {
                "session" => drop(client),
                call => drop(client.call(call, json!([handle]))),
            }
            received.extend(received_by_answering(peer));
            assert!(received == data, "{end}: {} of {} bytes", received.len(), data.len());
        }
    });
}

#[test]
fn client_that_has_ended_reading_goes_on_sending() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (handle, mut peer) = connected(&mut client);
        let mut stream = local(&mut client, json!({ "handle": handle, "want_fd": true }));
        stream.shutdown(Shutdown::Read).unwrap();
        for round in 0..100 {
            peer.write_all(&[1; 5000]).unwrap();
            stream.write_all(&[round]).unwrap();
            assert_eq!(exact(&mut peer, 1), [round]);
        }
        drop(stream);
        let again = json!([handle]);
        until("the channel has ended", || !client.call("channel.open", again.clone()).is_fault());
    });
}

#[test]
fn client_that_ends_sending_after_its_peer_does_ends_the_connection() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (handle, mut peer) = connected(&mut client);
        let mut stream = local(&mut client, json!({ "handle": handle, "want_fd": true }));
        peer.write_all(b"question").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut stream), b"question");
        stream.write_all(b"answer").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut peer), b"answer");
        assert!(!is_closed(&mut client, handle));
    });
}

#[test]
fn writing_fails_when_the_peer_has_closed_the_connection() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (handle, mut peer) = connected(&mut client);
        let mut stream = local(&mut client, json!({ "handle": handle, "want_fd": true }));
        peer.write_all(b"too large").unwrap();
        drop(peer);
        assert_eq!(rest(&mut stream), b"too large");
        assert_eq!(write_until_it_fails(&mut stream, &large_frame()), ErrorKind::BrokenPipe);
        // With frames, the reason follows.
        let (handle, mut peer) = connected(&mut client);
        let mut channel = Channel::open(&broker, &mut client, handle);
        peer.write_all(b"too large").unwrap();
        drop(peer);
        assert_eq!(channel.data(9), b"too large");
        channel.expect(ChannelFrame::End);
        while channel.0.wire.send(&large_frame(), &[]).is_ok() {}
        let (errno, reason) = channel.reset();
        assert!([libc::EPIPE, libc::ECONNRESET].contains(&errno), "{errno} {reason}");
    });
}

#[test]
fn writing_fails_after_a_reset_while_the_client_does_not_read() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        for framing in ["raw", "frames"] {
            let (handle, mut peer) = connected(&mut client);
            let params = json!({ "handle": handle, "want_fd": true, "framing": framing });
            let mut stream = local(&mut client, params);
            fill(&mut peer);
            reset(peer);
            let error = write_until_it_fails(&mut stream, &large_frame());
            assert_eq!(error, ErrorKind::BrokenPipe, "{framing}");
        }
    });
}

/// Sends the request of a channel with data and the frame `close`, and closes the connection before the response is
/// written.
fn upgrade_and_close(broker: &Daemon, path: &str, data: &[u8]) {
    let mut http = broker.http();
    broker.worker_stopped_during(|| {
        let fields = [("connection", "upgrade"), ("upgrade", FRAMES)];
        http.send(&format!("GET {path}"), &fields, b"");
        let mut frames = Vec::new();
        for piece in data.chunks(50_000) {
            write_frame(&mut frames, ChannelFrame::Data(piece)).unwrap();
        }
        write_frame(&mut frames, ChannelFrame::Close).unwrap();
        http.wire.send(&frames, &[]).unwrap();
        drop(http);
    });
}

#[test]
fn frames_before_close_are_sent_when_the_connection_ends_before_its_response() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let data = pattern(100_000);
        for talks in [false, true] {
            let (handle, mut peer) = connected(&mut client);
            let path = path(&client.call("channel.open", json!([handle])));
            if talks {
                peer.write_all(b"banner").unwrap();
            }
            upgrade_and_close(&broker, &path, &data);
            let received = received_by_answering(peer);
            assert!(received == data, "{talks}: {} of {} bytes", received.len(), data.len());
            until("the handle is closed", || is_closed(&mut client, handle));
        }
    });
}

#[test]
fn channel_that_only_sends_goes_on_after_a_datagram_that_cannot_be_sent() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(HANG)).unwrap();
        let address = format!("[\"127.0.0.1\",{}]", peer.local_addr().unwrap().port());
        let handle = client.call("socket.socket", json!({ "type": "SOCK_DGRAM" })).handle();
        let params = json!({ "handle": handle, "direction": "send" });
        let path = path(&client.call("channel.open", params));
        let mut channel = Channel::begin_with(&broker, &path, &[]);
        let send = |channel: &mut Channel, address: &str, data: &[u8]| {
            channel.send(ChannelFrame::Datagram { address, data });
        };
        let reason = |channel: &mut Channel| {
            let reset = channel.next(|frame| match frame {
                ChannelFrame::Reset { errno, reason } => (i32::from(errno), reason.to_owned()),
                other => panic!("{other:?}"),
            });
            reset.unwrap()
        };
        send(&mut channel, &address, &pattern(65_530));
        assert_eq!(reason(&mut channel).0, libc::EMSGSIZE);
        send(&mut channel, "nonsense", b"lost");
        let (errno, text) = reason(&mut channel);
        assert!(errno == 0 && text.contains("the address of a datagram"), "{errno} {text}");
        send(&mut channel, "7", b"lost");
        let (errno, text) = reason(&mut channel);
        assert!(errno == 0 && text.contains("address"), "{errno} {text}");
        send(&mut channel, &address, b"sent");
        assert_eq!(peer.recv(&mut [0; 9]).unwrap(), 4);
    });
}

#[test]
fn listening_socket_has_no_channel() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let server = client.call("socket.create_server", json!([["127.0.0.1", 0]])).handle();
        let fault = client.call("channel.open", json!([server])).fault();
        assert_eq!(fault.errno(), "EINVAL");
        assert!(fault.message.contains("listens"), "{}", fault.message);
        // A socket that begins to listen ends its channel.
        let later = client.call("socket.socket", Value::Null).handle();
        client.call("socket.bind", json!([later, ["127.0.0.1", 0]])).result();
        let mut channel = Channel::open(&broker, &mut client, later);
        client.call("socket.listen", json!([later])).result();
        let (errno, reason) = channel.reset();
        assert!(errno == libc::EINVAL && reason.contains("listens"), "{errno} {reason}");
    });
}

#[test]
fn failed_send_after_the_end_of_the_peer_ends_the_channel() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (handle, peer) = connected(&mut client);
        let params = json!({ "handle": handle, "want_fd": true, "close": true });
        let mut stream = local(&mut client, params);
        drop(peer);
        assert_eq!(rest(&mut stream), b"");
        // The peer resets the connection when data arrives: the next send fails.
        stream.set_write_timeout(Some(HANG)).unwrap();
        let error = loop {
            if let Err(error) = stream.write_all(&[0; 4096]) {
                break error;
            }
        };
        // A reset if the broker had not read everything.
        let kinds = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
        assert!(kinds.contains(&error.kind()), "{error}");
        until("the handle is closed", || is_closed(&mut client, handle));
    });
}

#[test]
fn client_that_closes_without_reading_ends_the_channel() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (handle, mut peer) = connected(&mut client);
        let params = json!({ "handle": handle, "want_fd": true, "close": true });
        let mut stream = local(&mut client, params);
        peer.write_all(b"first, and never read").unwrap();
        assert_eq!(exact(&mut stream, 5), b"first");
        stream.write_all(b"last").unwrap();
        drop(stream);
        assert_eq!(rest(&mut peer), b"last");
        until("the handle is closed", || is_closed(&mut client, handle));
    });
}

#[test]
fn client_that_does_not_read_gets_the_failure_of_its_writes() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (handle, mut peer) = connected(&mut client);
        let params = json!({ "handle": handle, "want_fd": true, "close": true });
        let mut stream = local(&mut client, params);
        // More than the pair holds.
        let mut written = 0;
        peer.set_nonblocking(true).unwrap();
        until("the peer has written", || {
            written += peer.write(&[1; 8192]).unwrap_or(0);
            written > 600_000
        });
        stream.set_write_timeout(Some(HANG)).unwrap();
        stream.write_all(b"unread").unwrap();
        until("the data has arrived", || peer.peek(&mut [0; 6]).is_ok());
        drop(peer);
        let error = loop {
            if let Err(error) = stream.write_all(&[0; 4096]) {
                break error;
            }
        };
        // The second if the broker has closed its end, in which data of the client was.
        let kinds = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
        assert!(kinds.contains(&error.kind()), "{error}");
        drop(stream);
        until("the handle is closed", || is_closed(&mut client, handle));
    });
}
