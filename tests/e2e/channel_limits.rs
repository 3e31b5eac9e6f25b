//! The limits on channels.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use serde_json::json;
use sockbroker_proto::channel::ChannelFrame;
use sockbroker_test_support::channel::{Channel, FRAMES, connected, exact, local, narrow, path};
use sockbroker_test_support::{LspClient, bounded, until};

use crate::broker::limited;

#[test]
fn limits_on_channels_are_enforced_and_named() {
    bounded(20, || {
        let of = |limits: &[(&str, u64)], expected: &str| {
            let broker = limited(limits);
            let mut client = broker.lsp();
            let (left, right) = client.pair();
            let open =
                |client: &mut LspClient, handle: u64| client.call("channel.open", json!([handle]));
            let channel = Channel::open(&broker, &mut client, left);
            if expected == "channel_tokens" {
                open(&mut client, right).result();
                let (further, _) = client.pair();
                assert_eq!(open(&mut client, further).fault().limit(), expected);
                return;
            }
            assert_eq!(open(&mut client, right).fault().limit(), expected);
            let made = client.call("socket.socket", json!({ "want_channel": true }));
            assert_eq!(made.fault().limit(), expected);
            drop(channel);
            until("the channel has ended", || !open(&mut client, right).is_fault());
        };
        of(&[("channels", 1)], "channels");
        of(&[("channels_per_user", 1)], "channels_per_user");
        of(&[("channels_in_all", 1)], "channels_in_all");
        of(&[("channel_tokens", 1)], "channel_tokens");
    });
}

#[test]
fn unused_token_expires_after_channel_token_seconds() {
    bounded(20, || {
        let broker = limited(&[("channel_token_seconds", 1)]);
        let mut client = broker.lsp();
        let (left, _right) = client.pair();
        let opened = client.call("channel.open", json!([left]));
        assert_eq!(opened.result()["seconds"], 1);
        // The direction is free again when the token has expired.
        until("the token has expired", || !client.call("channel.open", json!([left])).is_fault());
        let fields = [("connection", "upgrade"), ("upgrade", FRAMES)];
        let line = format!("GET {}", path(&opened));
        assert_eq!(broker.http().request(&line, &fields, b"").status, 404);
    });
}

#[test]
fn frames_of_a_stream_have_at_most_channel_bytes() {
    bounded(20, || {
        let broker = limited(&[("channel_bytes", 1000)]);
        let mut client = broker.lsp();
        let (handle, mut peer) = connected(&mut client);
        let mut channel = Channel::open(&broker, &mut client, handle);
        peer.write_all(&[1; 10_000]).unwrap();
        let mut received = 0;
        while received < 10_000 {
            received += channel
                .next(|frame| match frame {
                    ChannelFrame::Data(data) if data.len() <= 1000 => data.len(),
                    other => panic!("{other:?}"),
                })
                .unwrap();
        }
        // A larger frame of the client is sent whole.
        channel.send(ChannelFrame::Data(&[2; 10_000]));
        assert_eq!(exact(&mut peer, 10_000), [2; 10_000]);
    });
}

#[test]
fn closed_socket_sends_for_at_most_channel_drain_seconds() {
    bounded(20, || {
        let broker = limited(&[("channel_drain_seconds", 1)]);
        let mut client = broker.lsp();
        // The TCP connection takes less than the pair of the channel holds, whatever the broker has moved so far.
        let (handle, mut peer) = narrow(&mut client);
        let mut stream = local(&mut client, json!({ "handle": handle, "want_fd": true }));
        stream.set_nonblocking(true).unwrap();
        // The peer does not read: all buffers are full.
        let (mut written, mut full) = (0, 0);
        let part = vec![1; 65_536];
        until("all buffers are full", || {
            match stream.write(&part) {
                Ok(count) => (written, full) = (written + count, 0),
                Err(_none) => full += 1,
            }
            full > 100
        });
        let files = broker.open_files();
        client.call("socket.close", json!([handle])).result();
        drop(stream);
        // The socket and the broker's end of the pair.
        broker.wait_for_open_files(files - 2);
        // The peer learns that data is missing.
        let mut received = Vec::new();
        let error = peer.read_to_end(&mut received).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(received.len() < written, "{} of {written}", received.len());
    });
}

#[test]
fn accept_at_a_limit_on_channels_loses_no_connection() {
    bounded(20, || {
        for limit in ["channels", "channel_tokens"] {
            let broker = limited(&[(limit, 1)]);
            let mut client = broker.lsp();
            let server = client.call("socket.create_server", json!([["127.0.0.1", 0]])).handle();
            let address = client.call("socket.getsockname", json!([server])).result().clone();
            let (left, _right) = client.pair();
            let opened = path(&client.call("channel.open", json!([left])));
            let port = u16::try_from(address[1].as_u64().unwrap()).unwrap();
            let mut peer = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let accept = json!({ "handle": server, "want_channel": true });
            let fault = client.call("socket.accept", accept.clone()).fault();
            assert_eq!(fault.limit(), limit);
            // Nothing was connected or created for the others.
            let wanted = json!({ "address": address, "want_channel": true });
            let fault = client.call("socket.create_connection", wanted).fault();
            assert_eq!(fault.limit(), limit);
            drop(Channel::begin_with(&broker, &opened, &[]));
            peer.write_all(b"still there").unwrap();
            let mut accepted = None;
            until("the channel has ended", || {
                let answer = client.call("socket.accept", accept.clone());
                let fails = answer.is_fault();
                accepted = (!fails).then(|| answer.result()["channel"]["path"].clone());
                !fails
            });
            let path = accepted.unwrap();
            let mut accepted = Channel::begin_with(&broker, path.as_str().unwrap(), &[]);
            assert_eq!(accepted.data(11), b"still there", "{limit}");
        }
    });
}
