//! Channels: a client of frames, descriptors, and handles that are connected to sockets of the test.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use sockbroker_proto::channel::{ChannelFrame, HEAD_BYTES, read_frame, write_frame};
use sockbroker_sys::option;

use crate::daemon::Daemon;
use crate::http::HttpClient;
use crate::lsp::LspClient;
use crate::message::Answer;
use crate::watch::{HANG, until};

/// The protocol of channels with frames, for `Upgrade`.
pub const FRAMES: &str = "sockbroker-channel";

/// A channel of frames.
#[derive(Debug)]
pub struct Channel(pub HttpClient);

impl Channel {
    /// Begins the channel of a token, and sends this after the request, without waiting for the response.
    pub fn begin_with(broker: &Daemon, path: &str, early: &[ChannelFrame<'_>]) -> Self {
        let mut client = broker.http();
        let fields = [("connection", "upgrade"), ("upgrade", FRAMES)];
        client.send(&format!("GET {path}"), &fields, b"");
        let mut channel = Self(client);
        for frame in early {
            channel.send(*frame);
        }
        let response = channel.0.read().unwrap();
        assert_eq!((response.status, response.field("upgrade")), (101, Some(FRAMES)));
        channel
    }

    pub fn open(broker: &Daemon, client: &mut LspClient, handle: u64) -> Self {
        Self::begin_with(broker, &path(&client.call("channel.open", json!([handle]))), &[])
    }

    pub fn send(&mut self, frame: ChannelFrame<'_>) {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, frame).unwrap();
        self.0.wire.send(&bytes, &[]).unwrap();
    }

    /// Passes the next frame to a function; `None` at the end of the connection.
    pub fn next<T>(&mut self, read: impl FnOnce(ChannelFrame<'_>) -> T) -> Option<T> {
        let head = self.0.wire.take(HEAD_BYTES)?.to_vec();
        let length = u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize;
        let bytes = [head, self.0.wire.take(length)?.to_vec()].concat();
        let Ok(Some((frame, whole))) = read_frame(&bytes) else { panic!("{bytes:?}") };
        assert_eq!(whole, bytes.len());
        Some(read(frame))
    }

    /// Reads this many bytes of data frames.
    pub fn data(&mut self, length: usize) -> Vec<u8> {
        let mut data = Vec::new();
        while data.len() < length {
            self.next(|frame| match frame {
                ChannelFrame::Data(piece) => data.extend_from_slice(piece),
                other => panic!("{other:?}"),
            })
            .unwrap();
        }
        data
    }

    pub fn expect(&mut self, wanted: ChannelFrame<'_>) {
        self.next(|frame| assert_eq!(frame, wanted)).unwrap();
    }

    /// The error number and the reason of the last frame.
    pub fn reset(&mut self) -> (i32, String) {
        let reset = self.next(|frame| match frame {
            ChannelFrame::Reset { errno, reason } => (errno.into(), reason.to_owned()),
            other => panic!("{other:?}"),
        });
        assert!(self.0.wire.take(1).is_none(), "a frame after the last one");
        reset.unwrap()
    }
}

pub fn path(answer: &Answer) -> String {
    answer.result()["path"].as_str().unwrap().to_owned()
}

/// The descriptor of a channel.
pub fn local(client: &mut LspClient, params: Value) -> UnixStream {
    let mut answer = client.call("channel.open", params);
    assert_eq!(answer.result()["fd"], true);
    let stream = UnixStream::from(answer.descriptors.remove(0));
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream
}

/// A handle that is connected to a socket of the test.
pub fn connected(client: &mut LspClient) -> (u64, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let handle = client.call("socket.create_connection", json!([["127.0.0.1", port]])).handle();
    let peer = listener.accept().unwrap().0;
    peer.set_read_timeout(Some(HANG)).unwrap();
    (handle, peer)
}

/// A handle that is connected to a socket of the test, the descriptor of its channel, and that socket.
pub fn connected_channel(client: &mut LspClient) -> (u64, UnixStream, TcpStream) {
    let (handle, peer) = connected(client);
    let stream = local(client, json!({ "handle": handle, "want_fd": true }));
    (handle, stream, peer)
}

/// A handle that is connected to a socket of the test; the kernel buffers little between them.
pub fn narrow(client: &mut LspClient) -> (u64, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    option::set_int(listener.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, 8192).unwrap();
    let address = json!(["127.0.0.1", listener.local_addr().unwrap().port()]);
    let handle = client.call("socket.socket", Value::Null).handle();
    let small = json!([handle, "SOL_SOCKET", "SO_SNDBUF", 16_384]);
    client.call("socket.setsockopt", small).result();
    client.call("socket.connect", json!([handle, address])).result();
    let peer = listener.accept().unwrap().0;
    peer.set_read_timeout(Some(HANG)).unwrap();
    (handle, peer)
}

pub fn rest(stream: &mut impl Read) -> Vec<u8> {
    let mut data = Vec::new();
    stream.read_to_end(&mut data).unwrap();
    data
}

pub fn exact(stream: &mut impl Read, length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    stream.read_exact(&mut data).unwrap();
    data
}

pub fn is_closed(client: &mut LspClient, handle: u64) -> bool {
    let answer = client.call("socket.attributes", json!([handle]));
    answer.is_fault() && answer.fault().kind() == (4000, "handle")
}

/// A local end of a stream socket of a broker.
pub trait LocalEnd: Read + Write {
    fn end_writing(&self) -> io::Result<()>;
}

impl LocalEnd for UnixStream {
    fn end_writing(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl LocalEnd for TcpStream {
    fn end_writing(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// The peer gets a question to its end, and its answer arrives after that.
pub fn expect_half_close(stream: &mut impl LocalEnd, mut peer: TcpStream) {
    stream.write_all(b"question").unwrap();
    stream.end_writing().unwrap();
    assert_eq!(rest(&mut peer), b"question");
    peer.write_all(b"answer").unwrap();
    drop(peer);
    assert_eq!(rest(stream), b"answer");
}

/// A peer that resets the connection resets this end, after data that is not lost.
pub fn expect_reset_after_data(stream: &mut TcpStream, mut peer: TcpStream) {
    peer.write_all(b"last").unwrap();
    assert_eq!(exact(stream, 4), b"last");
    stream.write_all(b"unread").unwrap();
    until("the data has arrived", || peer.peek(&mut [0; 6]).unwrap() == 6);
    drop(peer);
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}
