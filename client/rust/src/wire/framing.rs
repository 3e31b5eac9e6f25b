//! How messages are told apart on each kind of connection.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::Write as _;

use sockbroker_proto::bytes::encode_base64;
use sockbroker_proto::frame::{FrameLimits, Head, read_head, write_head};

use crate::endpoint::Endpoint;
use crate::error::{Error, Result};

/// What a broker may answer with. An operator can raise the broker's own limit, so this is larger
/// than its default.
const LIMITS: FrameLimits =
    FrameLimits { head_bytes: 1024, frame_bytes: 64 << 20, attachments: 64, descriptors: 253 };
/// The longest head of an HTTP response.
const HTTP_HEAD: usize = 8192;

/// The spelling of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Framing {
    /// Heads with lengths, attachments and descriptors.
    #[default]
    Lsp,
    /// Frames of RFC 6455.
    WebSocket,
    /// A request of HTTP for each message; answers come in the order of requests.
    Http,
}

/// What stands at the front of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Not a whole message yet; so long it will be, if that is known.
    Partial(usize),
    /// A message: the length of what stands before its JSON, and what its head says.
    Message(usize, Head),
    /// So many bytes that are no message.
    Nothing(usize),
}

impl Framing {
    /// The framing of connections to an endpoint.
    pub(crate) fn of(endpoint: &Endpoint) -> Self {
        match endpoint {
            Endpoint::Unix(_) | Endpoint::Stdio(_) => Self::Lsp,
            Endpoint::WebSocket(_) => Self::WebSocket,
            Endpoint::Http(_) => Self::Http,
        }
    }

    /// Writes what stands before some JSON. A WebSocket client masks what it sends.
    pub(crate) fn write(
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
                let [a, b, c, d, ..] = random();
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

    /// Looks at what has come.
    pub(crate) fn cut(self, bytes: &[u8]) -> Result<Cut> {
        match self {
            Self::Lsp => Ok(match read_head(bytes, &LIMITS).map_err(Error::protocol)? {
                None => Cut::Partial(0),
                Some((head, length)) => whole(bytes, length, head),
            }),
            Self::WebSocket => cut_websocket(bytes),
            Self::Http => cut_http(bytes),
        }
    }

    /// The request that turns an HTTP connection into one with this framing, if one is needed.
    pub(crate) fn upgrade(self) -> Option<String> {
        let key = encode_base64(&[random(), random()].concat());
        (self == Self::WebSocket).then(|| {
            format!(
                "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
            )
        })
    }
}

/// Numbers that differ each time; nothing secret depends on them.
fn random() -> [u8; 8] {
    RandomState::new().build_hasher().finish().to_ne_bytes()
}

fn whole(bytes: &[u8], length: usize, head: Head) -> Cut {
    let whole = length + head.body_length();
    if bytes.len() < whole { Cut::Partial(whole) } else { Cut::Message(length, head) }
}

fn of_length(bytes: &[u8], length: usize, content_length: usize) -> Result<Cut> {
    if content_length > LIMITS.frame_bytes {
        return Err(Error::protocol(format!("an answer of {content_length} bytes")));
    }
    Ok(whole(bytes, length, Head { content_length, ..Head::default() }))
}

/// The broker sends a message in one frame and no pings; what else comes is no broker's.
fn cut_websocket(bytes: &[u8]) -> Result<Cut> {
    let [kind, length, rest @ ..] = bytes else { return Ok(Cut::Partial(0)) };
    match kind {
        0x81 | 0x82 => {}
        0x88 => return Err(Error::disconnected("it closed the WebSocket")),
        other => return Err(Error::protocol(format!("a WebSocket frame of kind {other:#x}"))),
    }
    let (length, head) = match length {
        0..0x7e => (usize::from(*length), 2),
        0x7e => match rest.first_chunk() {
            Some(medium) => (usize::from(u16::from_be_bytes(*medium)), 4),
            None => return Ok(Cut::Partial(0)),
        },
        0x7f => match rest.first_chunk() {
            Some(long) => (usize::try_from(u64::from_be_bytes(*long)).unwrap_or(usize::MAX), 10),
            None => return Ok(Cut::Partial(0)),
        },
        _ => return Err(Error::protocol("a masked WebSocket frame")),
    };
    of_length(bytes, head, length)
}

fn cut_http(bytes: &[u8]) -> Result<Cut> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if bytes.len() > HTTP_HEAD {
            Err(Error::protocol("the head of a response does not end"))
        } else {
            Ok(Cut::Partial(0))
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
        Some("204") => Ok(Cut::Nothing(end + 4)),
        Some("200") => match lines.find_map(field) {
            Some(length) => of_length(bytes, end + 4, length),
            None => Err(Error::protocol("a response without a length")),
        },
        _ => Err(Error::protocol(format!("it answered {status:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_out_of_every_framing_only_when_they_are_whole() {
        let http = &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"[..];
        for (framing, bytes, before) in [
            (Framing::Lsp, &b"Content-Length: 2\r\n\r\n{}"[..], 21),
            (Framing::WebSocket, b"\x81\x02{}", 2),
            (Framing::WebSocket, b"\x81\x7e\x00\x02{}", 4),
            (Framing::WebSocket, b"\x81\x7f\0\0\0\0\0\0\0\x02{}", 10),
            (Framing::Http, http, 38),
        ] {
            for cut in 0..bytes.len() {
                let found = framing.cut(&bytes[..cut]);
                assert!(matches!(found, Ok(Cut::Partial(_))), "{framing:?} {cut}: {found:?}");
            }
            let head = Head { content_length: 2, ..Head::default() };
            assert_eq!(framing.cut(bytes), Ok(Cut::Message(before, head)), "{framing:?}");
        }
        assert_eq!(Framing::Http.cut(b"HTTP/1.1 204 No Content\r\n\r\n"), Ok(Cut::Nothing(27)));
    }

    #[test]
    fn what_no_broker_sends_is_an_error() {
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
            assert!(framing.cut(bytes).is_err(), "{framing:?} {bytes:?}");
        }
    }
}
