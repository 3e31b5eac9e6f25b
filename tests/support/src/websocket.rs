//! A minimal WebSocket client (RFC 6455).

use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::message::Client;
use crate::wire::Wire;

/// The key of RFC 6455, section 1.3, and the answer to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const PROOF: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The opcode of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of RFC 6455, section 5.2")]
pub enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    /// Whether the frame is the last one of its message.
    pub last: bool,
    pub payload: Vec<u8>,
}

/// A WebSocket connection.
#[derive(Debug)]
pub struct WebSocketClient {
    /// The underlying connection.
    pub wire: Wire,
}

impl WebSocketClient {
    /// Upgrades an HTTP connection.
    pub fn over(stream: UnixStream) -> Self {
        let mut wire = Wire::socket(stream);
        wire.send(Self::handshake("").as_bytes(), &[]).unwrap();
        let head = wire.take_through(b"\r\n\r\n").expect("an answer to the handshake");
        let head = String::from_utf8(head.to_vec()).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains(PROOF), "{head}");
        Self { wire }
    }

    /// Builds the HTTP request that upgrades the connection, with further header lines.
    pub fn handshake(further: &str) -> String {
        format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{further}\r\n"
        )
    }

    /// Encodes a frame.
    pub fn frame(opcode: Opcode, last: bool, masked: bool, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![u8::from(last) << 7 | opcode as u8];
        let mask = u8::from(masked) << 7;
        match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
            (Ok(short @ 0..0x7e), _) => bytes.push(mask | short),
            (_, Ok(medium)) => {
                bytes.push(mask | 0x7e);
                bytes.extend(medium.to_be_bytes());
            }
            _ => {
                bytes.push(mask | 0x7f);
                bytes.extend((payload.len() as u64).to_be_bytes());
            }
        }
        if masked {
            bytes.extend(MASK);
            let mask = MASK.iter().cycle();
            bytes.extend(payload.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
        } else {
            bytes.extend(payload);
        }
        bytes
    }

    /// Sends a masked frame.
    pub fn send(&mut self, opcode: Opcode, last: bool, payload: &[u8]) {
        self.wire.send(&Self::frame(opcode, last, true, payload), &[]).unwrap();
    }

    /// Reads the next frame; returns `None` at the end of the connection.
    pub fn read(&mut self) -> Option<Frame> {
        let head = self.wire.take(2)?;
        assert_eq!(head[1] & 0x80, 0, "a server's frames are not masked");
        let length = match head[1] {
            0x7e => u16::from_be_bytes(self.wire.take(2)?[..].try_into().unwrap()).into(),
            0x7f => u64::from_be_bytes(self.wire.take(8)?[..].try_into().unwrap()),
            short => short.into(),
        };
        let payload = self.wire.take(usize::try_from(length).unwrap())?.to_vec();
        Some(Frame { opcode: head[0] & 0x0f, last: head[0] & 0x80 != 0, payload })
    }
}

impl Client for WebSocketClient {
    fn send_json(&mut self, message: &Value) {
        self.send(Opcode::Text, true, message.to_string().as_bytes());
    }

    fn read_json(&mut self) -> Option<Value> {
        let frame = self.read()?;
        assert_eq!((frame.opcode, frame.last), (Opcode::Text as u8, true), "{frame:?}");
        Some(serde_json::from_slice(&frame.payload).unwrap())
    }
}
