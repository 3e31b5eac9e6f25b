//! Messages of SOCKS version 5 (RFC 1928), without I/O.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;
use sockbroker_proto::error::ErrorKind;

const VERSION: u8 = 5;
/// The method of authentication "no authentication required".
const NO_AUTHENTICATION: u8 = 0;
/// The answer to a client that offers no usable method, after which it closes.
pub(super) const NO_METHOD: [u8; 2] = [VERSION, 0xff];
/// The answer to a client that offers to use no authentication.
pub(super) const METHOD: [u8; 2] = [VERSION, NO_AUTHENTICATION];
/// The longest message: a request with the longest name.
pub(super) const MESSAGE_BYTES_MAX: usize = 4 + 1 + 255 + 2;

/// What a client wants, or the reason why it cannot have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// A connection to a host, a name or an address, and a port.
    Connect(String, u16),
    Refused(Reply),
}

/// The codes of replies, by their numbers in RFC 1928.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    Succeeded = 0,
    Failure = 1,
    NotAllowed = 2,
    NetworkUnreachable = 3,
    HostUnreachable = 4,
    Refused = 5,
    TimedOut = 6,
    UnknownCommand = 7,
    UnknownAddressType = 8,
}

impl Reply {
    /// The message. The address that it could contain is one of the remote machine, and absent.
    pub(super) fn message(self) -> [u8; 10] {
        [VERSION, self as u8, 0, 1, 0, 0, 0, 0, 0, 0]
    }

    /// The code for an error of the broker.
    pub(super) fn of_error(error: &Value) -> Self {
        let data = error.get("data").unwrap_or(&Value::Null);
        let text = |name: &str| data.get(name).and_then(Value::as_str).unwrap_or_default();
        let is = |kind: ErrorKind| text("kind") == kind.entry().name;
        if is(ErrorKind::Denied) {
            return Self::NotAllowed;
        }
        if is(ErrorKind::Timeout) {
            return Self::TimedOut;
        }
        // The name has no address there.
        if is(ErrorKind::Gai) {
            return Self::HostUnreachable;
        }
        match text("name") {
            "ENETUNREACH" | "ENETDOWN" => Self::NetworkUnreachable,
            "EHOSTUNREACH" | "EHOSTDOWN" => Self::HostUnreachable,
            "ECONNREFUSED" => Self::Refused,
            "ETIMEDOUT" => Self::TimedOut,
            "EAFNOSUPPORT" => Self::UnknownAddressType,
            "EACCES" | "EPERM" => Self::NotAllowed,
            _ => Self::Failure,
        }
    }
}

/// What the beginning of a stream contains: a message and its length, or less than a message.
pub(super) type Parsed<T> = Option<(T, usize)>;

/// A message of another protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotSocks5;

/// Whether the first message of a client offers to use no authentication.
pub(super) fn parse_methods(bytes: &[u8]) -> Result<Parsed<bool>, NotSocks5> {
    let &[version, ref rest @ ..] = bytes else { return Ok(None) };
    if version != VERSION {
        return Err(NotSocks5);
    }
    let &[count, ref rest @ ..] = rest else { return Ok(None) };
    let methods = rest.get(..usize::from(count));
    Ok(methods.map(|methods| (methods.contains(&NO_AUTHENTICATION), 2 + usize::from(count))))
}

/// The request of a client.
pub(super) fn parse_request(bytes: &[u8]) -> Result<Parsed<Request>, NotSocks5> {
    const CONNECT: u8 = 1;
    const HEAD: usize = 4;
    let Some(&[version, command, _reserved, kind]) = bytes.first_chunk() else {
        return if bytes.first().is_some_and(|version| *version != VERSION) {
            Err(NotSocks5)
        } else {
            Ok(None)
        };
    };
    if version != VERSION {
        return Err(NotSocks5);
    }
    let rest = bytes.get(HEAD..).unwrap_or_default();
    let (host, length) = match kind {
        1 => (rest.first_chunk().map(|octets| Ipv4Addr::from(*octets).to_string()), 4),
        4 => (rest.first_chunk().map(|octets| Ipv6Addr::from(*octets).to_string()), 16),
        3 => {
            let Some(&length) = rest.first() else { return Ok(None) };
            let length = usize::from(length);
            let name = rest.get(1..1 + length);
            (name.map(|name| String::from_utf8_lossy(name).into_owned()), 1 + length)
        }
        _ => return Ok(Some((Request::Refused(Reply::UnknownAddressType), HEAD))),
    };
    let port = rest.get(length..).and_then(|rest| rest.first_chunk().copied());
    let (Some(host), Some(port)) = (host, port.map(u16::from_be_bytes)) else { return Ok(None) };
    let request = if command != CONNECT {
        Request::Refused(Reply::UnknownCommand)
    } else if host.is_empty() {
        Request::Refused(Reply::Failure)
    } else {
        Request::Connect(host, port)
    };
    Ok(Some((request, HEAD + length + 2)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A parser accepts a message, and every shorter beginning is incomplete.
    fn whole<T: PartialEq + std::fmt::Debug>(
        parse: impl Fn(&[u8]) -> Result<Parsed<T>, NotSocks5>,
        message: &[u8],
    ) -> T {
        for end in 0..message.len() {
            assert_eq!(parse(&message[..end]), Ok(None), "{end} bytes of {message:?}");
        }
        let followed = [message, b"data"].concat();
        let (value, length) = parse(&followed).unwrap().unwrap();
        assert_eq!(length, message.len());
        value
    }

    #[test]
    fn methods_must_contain_no_authentication() {
        assert!(whole(parse_methods, &[5, 2, 2, 0]));
        assert!(!whole(parse_methods, &[5, 1, 2]));
        assert!(!whole(parse_methods, &[5, 0]));
        assert_eq!(parse_methods(&[4, 1]), Err(NotSocks5));
        assert_eq!(parse_methods(b"GET / HTTP/1.1"), Err(NotSocks5));
    }

    #[test]
    fn requests_name_addresses_and_hosts() {
        let connect = |host: &str| Request::Connect(host.to_owned(), 80);
        assert_eq!(whole(parse_request, &[5, 1, 0, 1, 10, 0, 0, 7, 0, 80]), connect("10.0.0.7"));
        let mut six = vec![5, 1, 0, 4];
        six.extend(Ipv6Addr::LOCALHOST.octets());
        six.extend([0, 80]);
        assert_eq!(whole(parse_request, &six), connect("::1"));
        let named = [&[5, 1, 0, 3, 4][..], b"lab7", &[0, 80]].concat();
        assert_eq!(whole(parse_request, &named), connect("lab7"));
        let longest = [&[5, 1, 0, 3, 255][..], &[b'a'; 255], &[0, 80]].concat();
        assert_eq!(longest.len(), MESSAGE_BYTES_MAX);
        assert_eq!(whole(parse_request, &longest), connect(&"a".repeat(255)));
    }

    #[test]
    fn other_requests_are_refused_with_their_code() {
        let bind = [5, 2, 0, 1, 10, 0, 0, 7, 0, 80];
        assert_eq!(whole(parse_request, &bind), Request::Refused(Reply::UnknownCommand));
        let unnamed = [5, 1, 0, 3, 0, 0, 80];
        assert_eq!(whole(parse_request, &unnamed), Request::Refused(Reply::Failure));
        let unknown = parse_request(&[5, 1, 0, 9]).unwrap();
        assert_eq!(unknown, Some((Request::Refused(Reply::UnknownAddressType), 4)));
        assert_eq!(parse_request(&[4, 1]), Err(NotSocks5));
        assert_eq!(parse_request(&[4, 1, 0, 1]), Err(NotSocks5));
    }

    #[test]
    fn errors_of_the_broker_have_the_nearest_code() {
        let error = |kind: &str, name: &str| {
            Reply::of_error(&json!({ "code": 1, "data": { "kind": kind, "name": name } }))
        };
        assert_eq!(error("denied", "EACCES"), Reply::NotAllowed);
        assert_eq!(error("timeout", ""), Reply::TimedOut);
        assert_eq!(error("gaierror", "EAI_NONAME"), Reply::HostUnreachable);
        assert_eq!(error("OSError", "ECONNREFUSED"), Reply::Refused);
        assert_eq!(error("OSError", "ENETUNREACH"), Reply::NetworkUnreachable);
        assert_eq!(error("OSError", "EHOSTUNREACH"), Reply::HostUnreachable);
        assert_eq!(error("OSError", "ETIMEDOUT"), Reply::TimedOut);
        assert_eq!(error("limit", "ENOBUFS"), Reply::Failure);
        assert_eq!(Reply::of_error(&Value::Null), Reply::Failure);
        assert_eq!(Reply::Refused.message(), [5, 5, 0, 1, 0, 0, 0, 0, 0, 0]);
    }
}
