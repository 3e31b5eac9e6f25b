//! Channels of clients on other machines: `GET /channel/TOKEN` through the gateway.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};

use serde_json::{Value, json};
use sockbroker_proto::channel::{ChannelFrame, HEAD_BYTES, read_frame, write_frame};
use sockbroker_test_support::{HANG, bounded};

use super::fixture::{DAY, Files, Lab, Remote};

const FRAMES: &str = "sockbroker-channel";
const RAW: &str = "sockbroker-raw";
/// Bytes in each direction: more than all buffers on the way together.
const BULK: usize = 2 << 20;

/// A socket of the session that is connected to one of the test. Returns its handle and the other end.
fn connected(client: &mut Remote) -> (Value, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let made = client.call("socket.create_connection", json!([["127.0.0.1", port]]));
    let peer = listener.accept().unwrap().0;
    peer.set_read_timeout(Some(HANG)).unwrap();
    (made["result"]["handle"].clone(), peer)
}

fn open(client: &mut Remote, handle: &Value) -> String {
    let opened = client.call("channel.open", json!([handle]));
    assert_eq!(opened["result"]["fd"], false, "{opened}");
    opened["result"]["path"].as_str().unwrap().to_owned()
}

fn send(channel: &mut Remote, frame: ChannelFrame<'_>) {
    let mut bytes = Vec::new();
    write_frame(&mut bytes, frame).unwrap();
    channel.send(&bytes);
}

/// The next frame, as it was sent.
fn next(channel: &mut Remote) -> Vec<u8> {
    let head = channel.take(HEAD_BYTES);
    let length = u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize;
    [head, channel.take(length)].concat()
}

fn expect(channel: &mut Remote, wanted: ChannelFrame<'_>) {
    let bytes = next(channel);
    let Ok(Some((frame, _))) = read_frame(&bytes) else { panic!("{bytes:?}") };
    assert_eq!(frame, wanted);
}

#[test]
fn a_channel_of_frames_passes_the_gateway_and_ends_each_direction_alone() {
    bounded(60, || {
        let lab = Lab::start(Files::new(), "");
        let alice = lab.files.authority.client("spiffe://lab/alice");
        let mut client = lab.connect(Some(&alice));
        let (handle, mut peer) = connected(&mut client);
        let path = open(&mut client, &handle);
        let mut early = Vec::new();
        write_frame(&mut early, ChannelFrame::Data(b"early ")).unwrap();
        let early = String::from_utf8(early).unwrap();
        let mut channel = lab.connect(Some(&alice));
        assert_eq!(channel.upgrade(&path, FRAMES, &early), 101);
        send(&mut channel, ChannelFrame::Data(b"late"));
        send(&mut channel, ChannelFrame::End);
        let mut got = String::new();
        peer.read_to_string(&mut got).unwrap();
        assert_eq!(got, "early late");
        peer.write_all(b"answer").unwrap();
        drop(peer);
        expect(&mut channel, ChannelFrame::Data(b"answer"));
        expect(&mut channel, ChannelFrame::End);
        send(&mut channel, ChannelFrame::Close);
        assert_eq!(channel.rest(), b"");
    });
}

#[test]
fn a_raw_channel_carries_bulk_data_in_both_directions_and_a_half_close() {
    bounded(120, || {
        let files = Files::new();
        files.tokens(&[("ci-7", "sbk_ci", "")]);
        let lab = Lab::start(files, "");
        let bearer = "Authorization: Bearer sbk_ci\r\n";
        let mut client = lab.connect(None);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let params = json!([["127.0.0.1", port]]);
        let made = client.call_lsp(bearer, "socket.create_connection", params);
        let mut peer = listener.accept().unwrap().0;
        peer.set_read_timeout(Some(HANG)).unwrap();
        let opened = client.call_lsp("", "channel.open", json!([made["result"]["handle"]]));
        let path = opened["result"]["path"].as_str().unwrap();
        let mut channel = lab.connect(None);
        let (status, _) = channel.request_head(&format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\n{bearer}Connection: upgrade\r\nUpgrade: {RAW}\r\n\r\n"
        ));
        assert_eq!(status, 101);
        let data: Vec<u8> = (0..BULK).map(|index| index.to_le_bytes()[index % 3]).collect();
        let of_peer = data.clone();
        let peer = std::thread::spawn(move || {
            let mut got = Vec::new();
            peer.read_to_end(&mut got).unwrap();
            peer.write_all(&of_peer).unwrap();
            peer.shutdown(Shutdown::Write).unwrap();
            got
        });
        channel.send(&data);
        channel.end_writing();
        assert!(channel.rest() == data, "what came back differs");
        assert!(peer.join().unwrap() == data, "what arrived differs");
    });
}

#[test]
fn the_token_of_a_channel_is_for_one_use_by_its_principal() {
    bounded(60, || {
        let lab = Lab::start(Files::new(), "");
        let client = |name| lab.files.authority.client(&format!("spiffe://lab/{name}"));
        let (alice, bob) = (client("alice"), client("bob"));
        let mut owner = lab.connect(Some(&alice));
        let (handle, _peer) = connected(&mut owner);
        let path = open(&mut owner, &handle);
        assert_eq!(lab.connect(Some(&bob)).upgrade(&path, RAW, ""), 404);
        assert_eq!(lab.connect(None).upgrade(&path, RAW, ""), 401);
        let mut channel = lab.connect(Some(&alice));
        assert_eq!(channel.upgrade(&path, RAW, ""), 101);
        assert_eq!(lab.connect(Some(&alice)).upgrade(&path, RAW, ""), 404);
        let fields = [("connection", "upgrade"), ("upgrade", RAW)];
        assert_eq!(lab.broker.http().request(&format!("GET {path}"), &fields, b"").status, 404);
    });
}

#[test]
fn a_channel_ends_when_the_certificate_of_its_client_is_revoked() {
    bounded(60, || {
        let files = Files::new();
        files.write("crl.pem", &files.authority.revoke(&[], DAY));
        let crl = format!("revocation = \"{}\"\n", files.path("crl.pem").display());
        let lab = Lab::start(files, &crl);
        let alice = lab.files.authority.client("spiffe://lab/alice");
        let mut client = lab.connect(Some(&alice));
        let (handle, mut peer) = connected(&mut client);
        let path = open(&mut client, &handle);
        let mut channel = lab.connect(Some(&alice));
        assert_eq!(channel.upgrade(&path, RAW, ""), 101);
        peer.write_all(b"hello").unwrap();
        assert_eq!(channel.take(5), b"hello");
        lab.files.write("crl.pem", &lab.files.authority.revoke(&[&alice], DAY));
        assert!(!lab.reload().is_fault());
        // Nobody is left who could use the socket.
        assert_eq!(channel.rest(), b"");
        assert!(matches!(peer.read(&mut [0]), Ok(0) | Err(_)));
    });
}
