//! The framing of each kind of connection: where a message begins and ends.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::Write as _;

use sockbroker_proto::bytes::encode_base64;
use sockbroker_proto::frame::{FrameLimits, Head, read_head, write_head};

use crate::endpoint::Endpoint;
use crate::error::{Error, Result};

/// The largest response that is accepted. It is larger than the broker's default limit, because an
/// operator can raise that.
const LIMITS: FrameLimits =
    FrameLimits { head_bytes: 1024, frame_bytes: 64 << 20, attachments: 64, descriptors: 253 };
/// The longest head of an HTTP response, in bytes.
const HTTP_HEAD_MAX: usize = 8192;

/// How messages are delimited on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Framing {
    /// The base protocol of LSP: header fields with lengths, attachments and descriptors.
    #[default]
    Lsp,
    /// Frames of RFC 6455, one text frame for each message.
    WebSocket,
    /// One HTTP POST for each message. Responses arrive in the order of the requests.
    Http,
}

/// What the beginning of the received bytes is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Scan {
    /// An incomplete message, and its length in bytes; 0 while that is unknown.
    Incomplete(usize),
    /// A complete message: the length of its framing before the JSON, and its parsed head.
    Message(usize, Head),
    /// Bytes without a message, to be skipped: the response to an HTTP notification.
    NoMessage(usize),
}

impl Framing {
    /// The framing of connections to an endpoint.
    pub(crate) fn of(endpoint: &Endpoint) -> Self {
        match endpoint {
            Endpoint::Unix(_) | Endpoint::Ssh(_) | Endpoint::Tls(_) | Endpoint::Stdio(_) => {
                Self::Lsp
            }
            Endpoint::WebSocket(_) => Self::WebSocket,
            Endpoint::Http(_) => Self::Http,
        }
    }

    /// Writes the framing that precedes a message. For a WebSocket this also masks `json` in place, as
    /// RFC 6455 requires of clients.
    pub(crate) fn write_head(
        self,
        head: &mut Vec<u8>,
        json: &mut [u8],
        attachments: Option<&[usize]>,
        descriptors: usize,
    ) {
        match self {
            Self::Lsp => write_head(head, json.len(), attachments, descriptors),
            Self::WebSocket => {
                head.push(0x81);
                match (u8::try_from(json.len()), u16::try_from(json.len())) {
                    (Ok(short @ 0..0x7e), _) => head.push(0x80 | short),
                    (_, Ok(medium)) => {
                        head.push(0x80 | 0x7e);
                        head.extend(medium.to_be_bytes());
                    }
                    _ => {
                        head.push(0x80 | 0x7f);
                        head.extend((json.len() as u64).to_be_bytes());
                    }
                }
                let [a, b, c, d, ..] = random_bytes();
                let mask = [a, b, c, d];
                head.extend(mask);
                json.iter_mut()
                    .zip(mask.into_iter().cycle())
                    .for_each(|(byte, mask)| *byte ^= mask);
            }
            Self::Http => {
                let length = json.len();
                // Writing to memory does not fail.
                drop(write!(
                    head,
                    "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                     content-length: {length}\r\n\r\n"
                ));
            }
        }
    }

    /// Parses the beginning of the received bytes.
    pub(crate) fn scan(self, bytes: &[u8]) -> Result<Scan> {
        match self {
            Self::Lsp => Ok(match read_head(bytes, &LIMITS).map_err(Error::protocol)? {
                None => Scan::Incomplete(0),
                Some((head, length)) => message(bytes, length, head),
            }),
            Self::WebSocket => scan_websocket(bytes),
            Self::Http => scan_http(bytes),
        }
    }

    /// The HTTP request that switches a connection to this framing, if it needs one.
    pub(crate) fn upgrade_request(self) -> Option<String> {
        let key = encode_base64(&[random_bytes(), random_bytes()].concat());
        (self == Self::WebSocket).then(|| {
            format!(
                "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
            )
        })
    }
}

/// Bytes that differ at each call. They are not fit for secrets.
fn random_bytes() -> [u8; 8] {
    RandomState::new().build_hasher().finish().to_ne_bytes()
}

/// A message whose framing takes the first `start` bytes.
fn message(bytes: &[u8], start: usize, head: Head) -> Scan {
    let length = start + head.body_length();
    if bytes.len() < length { Scan::Incomplete(length) } else { Scan::Message(start, head) }
}

/// A message of `content_length` bytes of JSON without attachments.
fn json_message(bytes: &[u8], start: usize, content_length: usize) -> Result<Scan> {
    if content_length > LIMITS.frame_bytes {
        return Err(Error::protocol(format!("a response of {content_length} bytes")));
    }
    Ok(message(bytes, start, Head { content_length, ..Head::default() }))
}

/// The broker sends each message in one frame, and no pings. Anything else is a protocol error.
fn scan_websocket(bytes: &[u8]) -> Result<Scan> {
    let [first, length, rest @ ..] = bytes else { return Ok(Scan::Incomplete(0)) };
    match first {
        0x81 | 0x82 => {}
        0x88 => return Err(Error::disconnected("the broker closed the WebSocket")),
        other => {
            return Err(Error::protocol(format!(
                "an unexpected WebSocket frame, first byte {other:#x}"
            )));
        }
    }
    let (length, head) = match length {
        0..0x7e => (usize::from(*length), 2),
        0x7e => match rest.first_chunk() {
            Some(medium) => (usize::from(u16::from_be_bytes(*medium)), 4),
            None => return Ok(Scan::Incomplete(0)),
        },
        0x7f => match rest.first_chunk() {
            Some(long) => (usize::try_from(u64::from_be_bytes(*long)).unwrap_or(usize::MAX), 10),
            None => return Ok(Scan::Incomplete(0)),
        },
        _ => return Err(Error::protocol("a masked WebSocket frame")),
    };
    json_message(bytes, head, length)
}

fn scan_http(bytes: &[u8]) -> Result<Scan> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if bytes.len() > HTTP_HEAD_MAX {
            Err(Error::protocol("the head of an HTTP response is longer than 8192 bytes"))
        } else {
            Ok(Scan::Incomplete(0))
        };
    };
    let head = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default());
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    };
    match status.split(' ').nth(1) {
        Some("204") => Ok(Scan::NoMessage(end + 4)),
        Some("200") => match lines.find_map(field) {
            Some(length) => json_message(bytes, end + 4, length),
            None => Err(Error::protocol("an HTTP response without Content-Length")),
        },
        _ => Err(Error::protocol(format!("HTTP status {status:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_scanned_only_when_complete_in_every_framing() {
        let http = &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"[..];
        for (framing, bytes, before) in [
            (Framing::Lsp, &b"Content-Length: 2\r\n\r\n{}"[..], 21),
            (Framing::WebSocket, b"\x81\x02{}", 2),
            (Framing::WebSocket, b"\x81\x7e\x00\x02{}", 4),
            (Framing::WebSocket, b"\x81\x7f\0\0\0\0\0\0\0\x02{}", 10),
            (Framing::Http, http, 38),
        ] {
            for length in 0..bytes.len() {
                let found = framing.scan(&bytes[..length]);
                assert!(
                    matches!(found, Ok(Scan::Incomplete(_))),
                    "{framing:?} {length}: {found:?}"
                );
            }
            let head = Head { content_length: 2, ..Head::default() };
            assert_eq!(framing.scan(bytes), Ok(Scan::Message(before, head)), "{framing:?}");
        }
        assert_eq!(Framing::Http.scan(b"HTTP/1.1 204 No Content\r\n\r\n"), Ok(Scan::NoMessage(27)));
    }

    #[test]
    fn frames_that_no_broker_sends_are_errors() {
        for (framing, bytes) in [
            (Framing::WebSocket, &b"\x01\x02{}"[..]),
            (Framing::WebSocket, b"\x81\x82\0\0\0\0{}"),
            (Framing::WebSocket, b"\x89\x00"),
            (Framing::WebSocket, b"\x88\x00"),
            (Framing::WebSocket, b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff"),
            (Framing::Http, b"HTTP/1.1 403 Forbidden\r\n\r\n"),
            (Framing::Http, b"HTTP/1.1 200 OK\r\n\r\n"),
            (Framing::Http, b"garbage\r\n\r\n"),
        ] {
            assert!(framing.scan(bytes).is_err(), "{framing:?} {bytes:?}");
        }
    }
}
