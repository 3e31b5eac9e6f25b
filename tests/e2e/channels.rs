//! Channels: the data of a socket on a connection or a descriptor of its own.

use std::io::Write as _;
use std::net::{Shutdown, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sockbroker_proto::channel::ChannelFrame;
use sockbroker_test_support::channel::{
    Channel, FRAMES, connected, exact, is_closed, local, path, rest,
};
use sockbroker_test_support::user::NOBODY;
use sockbroker_test_support::{Answer, HANG, bounded, until};

use crate::broker::broker;
use crate::other_user::available_or_skip;

const RAW: &str = "sockbroker-raw";

#[test]
fn channel_moves_both_directions_and_ends_each_alone() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (handle, mut peer) = connected(&mut client);
        let opened = client.call("channel.open", json!([handle]));
        assert_eq!(opened.result()["fd"], false);
        // What is sent with the request is not lost.
        let mut channel =
            Channel::begin_with(&broker, &path(&opened), &[ChannelFrame::Data(b"early ")]);
        channel.send(ChannelFrame::Data(b"late"));
        channel.send(ChannelFrame::End);
        assert_eq!(rest(&mut peer), b"early late");
        peer.write_all(b"answer").unwrap();
        assert_eq!(channel.data(6), b"answer");
        drop(peer);
        channel.expect(ChannelFrame::End);
        assert!(!is_closed(&mut client, handle));
        channel.send(ChannelFrame::Close);
        assert!(channel.0.wire.ends());
        assert!(is_closed(&mut client, handle));
    });
}

#[test]
fn large_data_arrives_complete_in_both_directions() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (handle, mut peer) = connected(&mut client);
        let mut channel = Channel::open(&broker, &mut client, handle);
        let data: Vec<u8> = (0..3_000_000_u32).map(|place| (place % 251) as u8).collect();
        let mut echo = peer.try_clone().unwrap();
        let expected = data.len();
        let echoing = std::thread::spawn(move || {
            let data = exact(&mut peer, expected);
            echo.write_all(&data).unwrap();
        });
        data.chunks(60_000).for_each(|piece| channel.send(ChannelFrame::Data(piece)));
        assert_eq!(channel.data(data.len()), data);
        echoing.join().unwrap();
    });
}

#[test]
fn descriptor_of_a_channel_is_a_stream_with_half_close() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (handle, mut peer) = connected(&mut client);
        let mut stream = local(&mut client, json!({ "handle": handle, "want_fd": true }));
        stream.write_all(b"to the peer").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut peer), b"to the peer");
        peer.write_all(b"back").unwrap();
        drop(peer);
        assert_eq!(rest(&mut stream), b"back");
        drop(stream);
        assert!(!is_closed(&mut client, handle));
        // The other form: the handle closes with the descriptor.
        let (handle, mut peer) = connected(&mut client);
        let params = json!({ "handle": handle, "want_fd": true, "close": true });
        let mut stream = local(&mut client, params);
        stream.write_all(b"all").unwrap();
        drop(stream);
        assert_eq!(rest(&mut peer), b"all");
        until("the handle is closed", || is_closed(&mut client, handle));
    });
}

#[test]
fn raw_channel_carries_plain_bytes() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (handle, mut peer) = connected(&mut client);
        let path = path(&client.call("channel.open", json!([handle])));
        let mut raw = broker.http();
        raw.send(&format!("GET {path}"), &[("connection", "Upgrade"), ("upgrade", RAW)], b"");
        let response = raw.read().unwrap();
        assert_eq!((response.status, response.field("upgrade")), (101, Some(RAW)));
        raw.wire.send(b"plain", &[]).unwrap();
        raw.wire.close_writing();
        assert_eq!(rest(&mut peer), b"plain");
        peer.write_all(b"bytes").unwrap();
        drop(peer);
        assert_eq!(raw.wire.take(5).unwrap(), b"bytes"[..]);
        assert!(raw.wire.ends());
    });
}

#[test]
fn token_is_valid_once_and_for_its_user_alone() {
    if !available_or_skip("channels::token_is_valid_once_and_for_its_user_alone") {
        return;
    }
    bounded(20, || {
        let broker = broker().open_to_all();
        let mut client = broker.lsp();
        let (left, _right) = client.pair();
        let path = path(&client.call("channel.open", json!([left])));
        let upgrade = [("connection", "upgrade"), ("upgrade", FRAMES)];
        let get = |path: &str, fields: &[(&str, &str)]| {
            broker.http().request(&format!("GET {path}"), fields, b"")
        };
        let mut web = broker.http();
        let origin = [upgrade[0], upgrade[1], ("origin", "http://localhost")];
        assert_eq!(web.request(&format!("GET {path}"), &origin, b"").status, 403);
        assert_eq!(web.request(&format!("POST {path}"), &upgrade, b"").status, 405);
        for fields in [&upgrade[..1], &upgrade[1..], &[upgrade[0], ("upgrade", "websocket")]] {
            let refused = get(&path, fields);
            assert_eq!(refused.status, 426, "{fields:?}");
            assert_eq!(refused.field("upgrade"), Some("sockbroker-channel, sockbroker-raw"));
        }
        for wrong in ["/channel/", "/channel/1.00", &format!("{path}0"), &path[..path.len() - 1]] {
            assert_eq!(get(wrong, &upgrade).status, 404, "{wrong}");
        }
        // Another user is answered like one with a wrong token, and the token stays valid.
        let mut command = Command::new("socat");
        command.args(["-t60", "-"]).arg(format!("UNIX-CONNECT:{}", broker.socket().display()));
        command.uid(NOBODY).gid(NOBODY).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut other = command.current_dir("/").spawn().unwrap();
        let text = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: {FRAMES}\r\n\r\n"
        );
        other.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let answer = rest(other.stdout.as_mut().unwrap());
        assert!(answer.starts_with(b"HTTP/1.1 404"), "{}", String::from_utf8_lossy(&answer));
        other.wait().unwrap();
        Channel::begin_with(&broker, &path, &[]);
        assert_eq!(get(&path, &upgrade).status, 404, "the token was used");
    });
}

#[test]
fn token_of_a_closed_socket_returns_409() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (left, right) = client.pair();
        let first = path(&client.call("channel.open", json!([left])));
        let datagrams = client.call("socket.socket", json!({ "type": "SOCK_DGRAM" })).handle();
        let second = path(&client.call("channel.open", json!([datagrams])));
        client.call("socket.close", json!([left])).result();
        let get = |path: &str, upgrade: &str| {
            let fields = [("connection", "upgrade"), ("upgrade", upgrade)];
            let response = broker.http().request(&format!("GET {path}"), &fields, b"");
            (response.status, String::from_utf8(response.body).unwrap())
        };
        let (status, reason) = get(&first, FRAMES);
        // The sweep may have forgotten the token already.
        assert!(matches!(status, 409 | 404), "{status} {reason}");
        let (status, reason) = get(&second, RAW);
        assert!(status == 409 && reason.contains("sockbroker-channel"), "{status} {reason}");
        let params = json!({ "handle": datagrams, "want_fd": true, "framing": "raw" });
        let fault = client.call("channel.open", params).fault();
        assert_eq!(fault.exception(), "ValueError");
        let params = json!({ "handle": right, "framing": "raw" });
        assert_eq!(client.call("channel.open", params).fault().exception(), "ValueError");
    });
}

#[test]
fn receiving_calls_fail_while_a_channel_receives() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (handle, mut peer) = connected(&mut client);
        let channel = Channel::open(&broker, &mut client, handle);
        for (method, params) in [
            ("socket.recv", json!([handle, 9])),
            ("socket.recvmsg", json!([handle, 9])),
            ("socket.recvmmsg", json!([handle, 1, 9])),
            ("channel.open", json!([handle])),
            ("channel.open", json!({ "handle": handle, "direction": "send" })),
        ] {
            assert_eq!(client.call(method, params).fault().errno(), "EBUSY", "{method}");
        }
        client.call("socket.getpeername", json!([handle])).result();
        client.call("socket.setsockopt", json!([handle, "IPPROTO_TCP", "TCP_NODELAY", 1])).result();
        // The end of the connection ends the channel; the handle goes on.
        drop(channel);
        peer.write_all(b"again").unwrap();
        until("the channel has ended", || {
            !client.call("socket.recv", json!([handle, 5, "MSG_PEEK"])).is_fault()
        });
        assert_eq!(client.call("socket.recv", json!([handle, 5])).data(), b"again");
    });
}

#[test]
fn channel_of_one_direction_leaves_the_other_to_calls() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (handle, mut peer) = connected(&mut client);
        let params = json!({ "handle": handle, "direction": "send" });
        let path = path(&client.call("channel.open", params));
        let mut sending = Channel::begin_with(&broker, &path, &[ChannelFrame::Data(b"out")]);
        assert_eq!(exact(&mut peer, 3), b"out");
        peer.write_all(b"in").unwrap();
        assert_eq!(client.call("socket.recv", json!([handle, 2])).data(), b"in");
        let params = json!({ "handle": handle, "direction": "receive", "want_fd": true });
        let mut receiving = local(&mut client, params);
        peer.write_all(b"more").unwrap();
        assert_eq!(exact(&mut receiving, 4), b"more");
        sending.send(ChannelFrame::Data(b"out"));
        assert_eq!(exact(&mut peer, 3), b"out");
        // A channel that only receives sends nothing.
        receiving.write_all(b"refused").unwrap();
        assert_eq!(rest(&mut receiving), b"");
    });
}

#[test]
fn reset_of_the_peer_is_reported_with_its_error() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (handle, mut peer) = connected(&mut client);
        let mut channel = Channel::open(&broker, &mut client, handle);
        channel.send(ChannelFrame::Data(b"unread"));
        peer.write_all(b"last").unwrap();
        assert_eq!(channel.data(4), b"last");
        // Data that is not read makes the kernel reset the connection.
        until("the data has arrived", || peer.peek(&mut [0; 6]).unwrap() == 6);
        drop(peer);
        let (errno, reason) = channel.reset();
        assert_eq!(errno, libc::ECONNRESET, "{reason}");
    });
}

#[test]
fn invalid_frames_end_the_channel_with_a_reason() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let text = |frame: &[u8]| frame.to_vec();
        for (bytes, part) in [
            (text(b"\x09\0\0\0"), "unknown kind 9"),
            (text(b"\0\0\0\0"), "invalid payload"),
            (text(b"\x03\0\0\x02\0\0"), "does not send"),
            (text(b"\x02\0\0\x02\0\0"), "does not send"),
            (text(b"\x01\0\0\0\0\0\0\x01x"), "after the end"),
        ] {
            let (left, _right) = client.pair();
            let mut channel = Channel::open(&broker, &mut client, left);
            channel.0.wire.send(&bytes, &[]).unwrap();
            let (errno, reason) = channel.reset();
            assert!(errno == libc::EPROTO && reason.contains(part), "{errno} {reason}");
            assert!(!is_closed(&mut client, left));
        }
    });
}

#[test]
fn out_of_band_data_has_frames_of_its_own() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (handle, peer) = connected(&mut client);
        let mut channel = Channel::open(&broker, &mut client, handle);
        // Whatever the channel does when the byte arrives, it is not lost: after data it is about to wait.
        for round in 0..=u8::MAX {
            sockbroker_sys::message::send(peer.as_fd(), b"data", 0).unwrap();
            channel.expect(ChannelFrame::Data(b"data"));
            sockbroker_sys::message::send(peer.as_fd(), &[round], libc::MSG_OOB).unwrap();
            channel.expect(ChannelFrame::Urgent(round));
        }
        // The data around it stays in order.
        for round in 0..=u8::MAX {
            let (before, after) = ([round, 1], [round, 2]);
            sockbroker_sys::message::send(peer.as_fd(), &before, 0).unwrap();
            sockbroker_sys::message::send(peer.as_fd(), b"!", libc::MSG_OOB).unwrap();
            sockbroker_sys::message::send(peer.as_fd(), &after, 0).unwrap();
            let (mut data, mut urgent) = (Vec::new(), 0);
            while data.len() < 4 || urgent == 0 {
                channel.next(|frame| match frame {
                    ChannelFrame::Data(piece) => data.extend_from_slice(piece),
                    ChannelFrame::Urgent(b'!') => urgent += 1,
                    other => panic!("{other:?}"),
                });
            }
            assert_eq!((data, urgent), ([before, after].concat(), 1));
        }
        channel.send(ChannelFrame::Urgent(b'?'));
        until("the byte has arrived", || {
            let received = sockbroker_sys::message::receive(peer.as_fd(), 1, libc::MSG_OOB);
            received.is_ok_and(|received| received.data == b"?")
        });
    });
}

#[test]
fn datagrams_keep_their_boundaries_and_addresses() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let handle = client.call("socket.socket", json!({ "type": "SOCK_DGRAM" })).handle();
        client.call("socket.bind", json!([handle, ["127.0.0.1", 0]])).result();
        let address = client.call("socket.getsockname", json!([handle])).result()[1].clone();
        let port = u16::try_from(address.as_u64().unwrap()).unwrap();
        let mut channel = Channel::open(&broker, &mut client, handle);
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(HANG)).unwrap();
        let own = format!("[\"127.0.0.1\",{}]", peer.local_addr().unwrap().port());
        let largest = vec![7; 65_507];
        for data in [&b"one"[..], b"", &largest] {
            peer.send_to(data, ("127.0.0.1", port)).unwrap();
            channel.expect(ChannelFrame::Datagram { address: &own, data });
            channel.send(ChannelFrame::Datagram { address: &own, data });
            let mut buffer = vec![0; 65_536];
            let (length, from) = peer.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from.port()), (data, port));
        }
        // Without a peer the kernel refuses a datagram without a destination. The channel goes on.
        channel.send(ChannelFrame::Datagram { address: "", data: b"lost" });
        let errno = channel.next(|frame| match frame {
            ChannelFrame::Reset { errno, .. } => i32::from(errno),
            other => panic!("{other:?}"),
        });
        assert_eq!(errno, Some(libc::EDESTADDRREQ));
        peer.send_to(b"still", ("127.0.0.1", port)).unwrap();
        channel.expect(ChannelFrame::Datagram { address: &own, data: b"still" });
    });
}

#[test]
fn dropped_datagrams_are_counted() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let handle = client.call("socket.socket", json!({ "type": "SOCK_DGRAM" })).handle();
        client.call("socket.bind", json!([handle, ["127.0.0.1", 0]])).result();
        client.call("socket.setsockopt", json!([handle, "SOL_SOCKET", "SO_RCVBUF", 4096])).result();
        let address = client.call("socket.getsockname", json!([handle])).result()[1].clone();
        let port = u16::try_from(address.as_u64().unwrap()).unwrap();
        let mut channel = Channel::open(&broker, &mut client, handle);
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut sent = 3000;
        for _ in 0..sent {
            peer.send_to(&[1; 1000], ("127.0.0.1", port)).unwrap();
        }
        let (mut received, mut dropped) = (0, 0);
        while received + dropped < sent {
            // The count is reported together with the next datagram.
            if channel.0.wire.receives_within(std::time::Duration::from_millis(20)) {
                channel
                    .next(|frame| match frame {
                        ChannelFrame::Datagram { .. } => received += 1,
                        ChannelFrame::Dropped(count) => dropped += count,
                        other => panic!("{other:?}"),
                    })
                    .unwrap();
            } else {
                peer.send_to(b"next", ("127.0.0.1", port)).unwrap();
                sent += 1;
            }
        }
        assert_eq!(received + dropped, sent);
        assert!(dropped > 0 && received > 0, "{received} received, {dropped} dropped");
    });
}

#[test]
fn channel_ends_with_its_handle_its_session_and_the_broker() {
    bounded(20, || {
        let mut broker = broker();
        let mut client = broker.lsp();
        let (left, right) = client.pair();
        let mut channel = Channel::open(&broker, &mut client, left);
        client.call("socket.close", json!([left])).result();
        assert_eq!(channel.reset(), (libc::EBADF, "the handle was closed".to_owned()));
        assert_eq!(client.call("socket.recv", json!([right, 9])).result()["eof"], true);
        let (left, _right) = client.pair();
        let mut channel = Channel::open(&broker, &mut client, left);
        client.call("session.close", Value::Null).result();
        assert_eq!(channel.reset(), (libc::ECANCELED, "the session has ended".to_owned()));
        let mut client = broker.lsp();
        let (left, _right) = client.pair();
        let mut channel = Channel::open(&broker, &mut client, left);
        drop(client);
        // The channel keeps its session.
        broker.process().terminate();
        assert_eq!(channel.reset(), (libc::ECANCELED, "the broker stops".to_owned()));
        assert!(broker.process().ends().success());
    });
}

#[test]
fn each_receive_and_each_send_is_judged() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let udp = client.call("socket.socket", json!({ "type": "SOCK_DGRAM" })).handle();
        client.call("socket.bind", json!([udp, ["127.0.0.1", 0]])).result();
        let mut datagrams = Channel::open(&broker, &mut client, udp);
        let (handle, mut peer) = connected(&mut client);
        let mut stream = Channel::open(&broker, &mut client, handle);
        peer.write_all(b"granted").unwrap();
        assert_eq!(stream.data(7), b"granted");
        let filters = json!([{ "allow": ["receive"], "type": ["SOCK_DGRAM"] },
            { "allow": ["send"], "type": ["SOCK_DGRAM"], "remote": ["127.0.0.1"] }]);
        client.call("session.restrict", json!({ "filters": filters })).result();
        // What arrives later is not given to the client.
        peer.write_all(b"secret").unwrap();
        let (errno, reason) = stream.reset();
        assert!(errno == libc::EACCES && reason.contains("session.restrict"), "{reason}");
        let (handle, reason) = (udp, "[\"127.0.0.2\",9]");
        datagrams.send(ChannelFrame::Datagram { address: "[\"127.0.0.1\",9]", data: b"granted" });
        datagrams.send(ChannelFrame::Datagram { address: reason, data: b"refused" });
        loop {
            // The first may be answered by the kernel.
            let errno = datagrams.next(|frame| match frame {
                ChannelFrame::Reset { errno, reason } => (i32::from(errno), reason.to_owned()),
                other => panic!("{other:?}"),
            });
            let (errno, reason) = errno.unwrap();
            if errno == libc::EPERM {
                assert!(reason.contains("EPERM") && reason.contains("127.0.0.2"), "{reason}");
                break;
            }
            assert_eq!(errno, libc::ECONNREFUSED, "{reason} on {handle}");
        }
        assert!(datagrams.0.wire.ends());
    });
}

#[test]
fn client_that_ends_after_writing_loses_nothing() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let data: Vec<u8> = (0..100_000_u32).map(|place| (place % 249) as u8).collect();
        for close in [true, false] {
            let mut client = broker.lsp();
            let (handle, mut peer) = connected(&mut client);
            let params = json!({ "handle": handle, "want_fd": true, "close": close });
            let mut stream = local(&mut client, params);
            // The program writes and ends before the broker reads anything.
            broker.worker_stopped_during(|| {
                stream.write_all(&data).unwrap();
                drop((stream, client));
            });
            assert!(rest(&mut peer) == data, "close: {close}");
        }
        client.expect_service();
    });
}

#[test]
fn new_sockets_have_channels_at_once() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let server = client.call("socket.create_server", json!([["127.0.0.1", 0]])).handle();
        let address = client.call("socket.getsockname", json!([server])).result().clone();
        let params = json!({ "address": address, "want_channel": true });
        let made = client.call("socket.create_connection", params);
        let channel_of = |answer: &Answer| {
            let channel = &answer.result()["channel"];
            assert_eq!((&channel["fd"], &channel["seconds"]), (&json!(false), &json!(30)));
            channel["path"].as_str().unwrap().to_owned()
        };
        let mut connected = Channel::begin_with(&broker, &channel_of(&made), &[]);
        let params = json!({ "handle": server, "want_channel": true });
        let accepted = client.call("socket.accept", params);
        let mut accepted = Channel::begin_with(&broker, &channel_of(&accepted), &[]);
        connected.send(ChannelFrame::Data(b"hello"));
        assert_eq!(accepted.data(5), b"hello");
        // A channel of a socket that is not connected yet waits for the connection.
        let made = client.call("socket.socket", json!({ "want_channel": true, "timeout": 0 }));
        let early = [ChannelFrame::Data(b"first")];
        let mut waiting = Channel::begin_with(&broker, &channel_of(&made), &early);
        let params = json!([made.handle(), address]);
        client.call("socket.connect_ex", params).result();
        let params = json!({ "handle": server, "want_channel": true });
        let accepted = client.call("socket.accept", params);
        let mut accepted = Channel::begin_with(&broker, &channel_of(&accepted), &[]);
        assert_eq!(accepted.data(5), b"first");
        accepted.send(ChannelFrame::Data(b"second"));
        assert_eq!(waiting.data(6), b"second");
        // Calls without the parameter return no channel.
        assert!(client.call("socket.socket", Value::Null).result().get("channel").is_none());
    });
}
