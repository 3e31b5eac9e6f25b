//! The socket of ping: an ICMP datagram socket if `net.ipv4.ping_group_range` includes a group of the
//! broker, else a raw socket.

use std::net::IpAddr;
use std::time::Instant;

use serde_json::{Value, json};
use sockbroker_proto::address::{AddressItem, AddressValue};
use sockbroker_proto::ancillary::{AncillaryData, AncillaryItem};
use sockbroker_proto::api::values::{Created, ReceivedMessage};
use sockbroker_proto::bytes::Bytes;

use super::args::PingArgs;
use super::packet::{self, Message, Version};
use crate::connection::{Connection, decode};
use crate::failure::{Exit, Failure};

/// The buffer for one message, in bytes.
const BUFFER_SIZE: u32 = 66_000;
/// The buffer for ancillary data (the time to live), in bytes.
const CONTROL: u32 = 64;
/// The most messages to receive with one call, before they are printed.
const BURST: u32 = 2;

/// The hint if the kernel refuses ICMP datagram sockets to the broker, `icmp(7)`.
const OPEN_GROUPS: &str = "net.ipv4.ping_group_range does not include a group of the broker: \
    `sysctl -w net.ipv4.ping_group_range='0 2147483647'` allows all groups to ping";

/// A reply to one of our requests.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    /// The sequence number of the request.
    pub(crate) sequence: u16,
    /// Bytes of the message, including the ICMP header.
    pub(crate) length: usize,
    /// The address of the sender.
    pub(crate) from: String,
    /// The time to live, or hop limit.
    pub(crate) ttl: Option<i32>,
    /// When it was received.
    pub(crate) at: Instant,
}

/// A received message, or an error.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Reply(Reply),
    /// An error about a request, which will get no reply.
    Error {
        /// The sequence number of the request, if it is known.
        sequence: Option<u16>,
        /// The error, in words.
        what: String,
    },
}

#[derive(Debug)]
pub(crate) struct Socket<'a> {
    connection: &'a Connection,
    handle: u64,
    version: Version,
    address: Value,
    raw: bool,
    id: u16,
    timeout: f64,
}

impl<'a> Socket<'a> {
    /// Resolves the host and opens a socket for its address.
    pub(crate) fn open(connection: &'a Connection, args: &PingArgs) -> Result<Self, Failure> {
        let family = match (args.ipv4, args.ipv6) {
            (true, _) => "AF_INET",
            (_, true) => "AF_INET6",
            _ => "AF_UNSPEC",
        };
        let (version, address) = find(connection, &args.host, family)?;
        let (handle, raw) = create(connection, version)?;
        // A raw socket receives all replies to this machine. The identifier selects our own.
        let id = u16::try_from(std::process::id() & 0xFFFF).unwrap_or(0);
        let mut socket = Self { connection, handle, version, address, raw, id, timeout: -1.0 };
        socket.choose_link(args)?;
        socket.prepare(args)?;
        Ok(socket)
    }

    /// Adds the interface of `-I` as the scope of a link-local address.
    fn choose_link(&mut self, args: &PingArgs) -> Result<(), Failure> {
        let Some(interface) = &args.source else { return Ok(()) };
        let host = self.address().parse::<IpAddr>();
        let is_local = matches!(host, Ok(IpAddr::V6(host)) if host.is_unicast_link_local());
        if let Some(scope) = self.address.get_mut(3).filter(|scope| **scope == json!(0))
            && is_local
            && interface.parse::<IpAddr>().is_err()
        {
            *scope = self
                .connection
                .call_within("socket.if_nametoindex", json!({ "if_name": interface }))?;
        }
        Ok(())
    }

    fn prepare(&self, args: &PingArgs) -> Result<(), Failure> {
        let (level, ttl, errors, hops) = match self.version {
            Version::V4 => (
                "IPPROTO_IP",
                libc::IP_RECVTTL,
                libc::IP_RECVERR,
                [libc::IP_TTL, libc::IP_MULTICAST_TTL],
            ),
            Version::V6 => (
                "IPPROTO_IPV6",
                libc::IPV6_RECVHOPLIMIT,
                libc::IPV6_RECVERR,
                [libc::IPV6_UNICAST_HOPS, libc::IPV6_MULTICAST_HOPS],
            ),
        };
        let set_value = |name: i32, value: Value| {
            let option =
                json!({ "handle": self.handle, "level": level, "optname": name, "value": value });
            self.connection.call("socket.setsockopt", option).map(drop)
        };
        let set = |name: i32| set_value(name, json!(1));
        set(ttl)?;
        if !self.raw {
            // A raw socket receives the ICMP errors as messages.
            set(errors)?;
        }
        if let Some(ttl) = args.ttl {
            for name in hops {
                set_value(name, json!(ttl))?;
            }
        }
        args.source.as_ref().map_or(Ok(()), |source| self.send_from(source))
    }

    /// Binds the socket to an address or an interface.
    fn send_from(&self, source: &str) -> Result<(), Failure> {
        if source.parse::<IpAddr>().is_ok() {
            let address = json!([source, 0]);
            let bind = json!({ "handle": self.handle, "address": address });
            return self.connection.call("socket.bind", bind).map(drop);
        }
        let option = json!({
            "handle": self.handle, "level": "SOL_SOCKET", "optname": libc::SO_BINDTODEVICE,
            "value": Bytes::Inline(source.as_bytes().to_vec()),
        });
        self.connection.call("socket.setsockopt", option).map(drop)
    }

    pub(crate) fn address(&self) -> String {
        self.address.get(0).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    pub(crate) fn kind(&self) -> &'static str {
        if self.raw { "raw socket" } else { "datagram socket" }
    }

    /// Bytes of the IP and ICMP headers.
    pub(crate) fn overhead(&self) -> u32 {
        match self.version {
            Version::V4 => 28,
            Version::V6 => 48,
        }
    }

    /// Sets how long [`Socket::receive`] waits, in seconds.
    pub(crate) fn wait(&mut self, seconds: f64) -> Result<(), Failure> {
        // Zero would make the socket non-blocking. A difference of a millisecond does not justify a call.
        let seconds = seconds.max(0.001);
        if (seconds - self.timeout).abs() > 0.001 {
            let parameters = json!({ "handle": self.handle, "value": seconds });
            self.connection.call("socket.settimeout", parameters)?;
            self.timeout = seconds;
        }
        Ok(())
    }

    pub(crate) fn send(&self, sequence: u16, size: usize) -> Result<(), Failure> {
        let request = packet::request(self.version, self.id, sequence, size);
        let bytes = Bytes::Inline(request);
        let parameters = json!({ "handle": self.handle, "bytes": bytes, "address": self.address });
        self.connection.call("socket.sendto", parameters).map(drop)
    }

    /// Returns the received messages. If there are none, waits first.
    pub(crate) fn receive(&self) -> Result<Vec<Event>, Failure> {
        let parameters = json!({
            "handle": self.handle, "vlen": BURST, "bufsize": BUFFER_SIZE, "ancbufsize": CONTROL,
        });
        let messages: Vec<ReceivedMessage> =
            match self.connection.call_typed("socket.recvmmsg", parameters) {
                Ok(messages) => messages,
                Err(failure) if failure.is_timeout() => return Ok(Vec::new()),
                Err(failure) if failure.errno().is_some() => {
                    self.clear_error_queue();
                    let what = failure.to_string();
                    return Ok(vec![Event::Error { sequence: None, what }]);
                }
                Err(failure) => return Err(failure),
            };
        let at = Instant::now();
        Ok(messages.iter().filter_map(|message| self.read(message, at)).collect())
    }

    /// Empties the error queue: the failed call has already reported the error.
    fn clear_error_queue(&self) {
        let parameters = json!({
            "handle": self.handle, "bufsize": BUFFER_SIZE, "ancbufsize": CONTROL, "flags": "MSG_ERRQUEUE|MSG_DONTWAIT",
        });
        while self.connection.call("socket.recvmsg", parameters.clone()).is_ok() {}
    }

    fn read(&self, message: &ReceivedMessage, at: Instant) -> Option<Event> {
        let Bytes::Inline(data) = &message.data else { return None };
        // The kernel chooses the identifier of a datagram socket and passes only its own replies.
        let ours = |id| !self.raw || id == self.id;
        match packet::read(self.version, data) {
            Message::Reply { id, sequence, length } if ours(id) => {
                let from = host(&message.address);
                let ttl = ttl(&message.ancdata);
                Some(Event::Reply(Reply { sequence, length, from, ttl, at }))
            }
            Message::Error { id, sequence, what } if ours(id) => {
                let what = format!("from {}: {what}", host(&message.address));
                Some(Event::Error { sequence: Some(sequence), what })
            }
            Message::Reply { .. } | Message::Error { .. } | Message::Other => None,
        }
    }
}

/// Returns the first address of the host.
fn find(connection: &Connection, host: &str, family: &str) -> Result<(Version, Value), Failure> {
    let parameters = json!({ "host": host, "port": 0, "family": family, "type": "SOCK_DGRAM" });
    let found = connection.resolve(parameters)?;
    let usable = found.as_array().into_iter().flatten().find_map(|info| {
        let version = match i32::try_from(info.get(0)?.as_i64()?).ok()? {
            libc::AF_INET => Version::V4,
            libc::AF_INET6 => Version::V6,
            _ => return None,
        };
        Some((version, info.get(4)?.clone()))
    });
    usable.ok_or_else(|| {
        Failure::new(
            Exit::Failed,
            format!("cannot resolve {host}: it has no address of this family"),
        )
    })
}

/// Creates the socket. Returns its handle and whether it is a raw socket.
fn create(connection: &Connection, version: Version) -> Result<(u64, bool), Failure> {
    let (family, proto) = match version {
        Version::V4 => ("AF_INET", "IPPROTO_ICMP"),
        Version::V6 => ("AF_INET6", "IPPROTO_ICMPV6"),
    };
    let make = |socktype: &str| -> Result<u64, Failure> {
        let parameters = json!({ "family": family, "type": socktype, "proto": proto });
        let made: Created =
            decode("socket.socket", connection.call_within("socket.socket", parameters)?)?;
        Ok(made.handle.number())
    };
    let refused = match make("SOCK_DGRAM") {
        Ok(handle) => return Ok((handle, false)),
        Err(failure) if failure.errno().is_some() => failure,
        Err(failure) => return Err(failure),
    };
    // Report the refusal of the datagram socket: it needs the smaller grant.
    match make("SOCK_RAW") {
        Ok(handle) => Ok((handle, true)),
        Err(_raw) if refused.errno() == Some(libc::EACCES) && !refused.is_denied() => {
            Err(refused.with_hint(OPEN_GROUPS))
        }
        Err(_raw) => Err(refused),
    }
}

fn host(address: &AddressValue) -> String {
    match address {
        AddressValue::Tuple(items) => match items.first() {
            Some(AddressItem::Text(host)) => host.clone(),
            _ => String::from("an unknown host"),
        },
        _ => String::from("an unknown host"),
    }
}

/// Returns the value of `IP_TTL` or `IPV6_HOPLIMIT`.
fn ttl(items: &[AncillaryItem]) -> Option<i32> {
    let wanted = [(libc::IPPROTO_IP, libc::IP_TTL), (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT)]
        .map(|(level, kind)| (i64::from(level), i64::from(kind)));
    items.iter().find_map(|AncillaryItem(level, kind, data)| {
        let AncillaryData::Bytes(Bytes::Inline(bytes)) = data else { return None };
        wanted
            .contains(&(level.0, kind.0))
            .then(|| bytes.first_chunk().copied())?
            .map(i32::from_ne_bytes)
    })
}
