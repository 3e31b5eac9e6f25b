//! The socket that nc copies to and from.

use std::time::Duration;

use serde_json::{Value, json};
use sockbroker_client::blocking::Socket;
use sockbroker_client::option::RawValue;
use sockbroker_client::{Address, Domain, Flags, Protocol, Type};
use sockbroker_proto::address::AddressValue;

use super::say;
use crate::args::NcArgs;
use crate::failure::{Exit, Failure};
use crate::link::{Link, failure};

/// A connected socket.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The socket.
    pub(crate) socket: Socket,
    /// Whether it carries a stream, which has an end, or messages.
    pub(crate) is_stream: bool,
}

/// Where to connect or bind, as `getaddrinfo` answers it.
#[derive(Debug)]
struct Candidate {
    domain: Domain,
    kind: Type,
    protocol: Protocol,
    address: Address,
}

/// Connects to the first address that works.
pub(crate) fn connect(
    link: &Link,
    args: &NcArgs,
    wait: Option<Duration>,
) -> Result<Opened, Failure> {
    let mut last = Failure::new(Exit::Failed, format!("{} has no address", args.host));
    for candidate in candidates(link, args)? {
        match connect_one(link, &candidate, wait) {
            Ok(socket) => {
                return Ok(Opened { socket, is_stream: candidate.kind == Type::STREAM });
            }
            Err(failed) => last = failed,
        }
    }
    Err(last)
}

fn candidates(link: &Link, args: &NcArgs) -> Result<Vec<Candidate>, Failure> {
    if args.unix {
        return Ok(vec![unix(&args.host)]);
    }
    let host = Some(args.host.as_str());
    let Some(protocol) = &args.raw else {
        return look_up(link, args, host, args.port.as_deref(), 0);
    };
    let protocol = protocol_number(link, protocol)?;
    let mut found = look_up(link, args, host, None, 0)?;
    for candidate in &mut found {
        candidate.protocol = protocol;
    }
    Ok(found)
}

fn connect_one(
    link: &Link,
    candidate: &Candidate,
    wait: Option<Duration>,
) -> Result<Socket, Failure> {
    let socket = make(link, candidate)?;
    let address = &candidate.address;
    let connected = match wait {
        Some(wait) => socket.connect_timeout(address, wait),
        None => socket.connect(address),
    };
    connected.map_err(|error| failure(&format!("connect to {address}"), &error))?;
    Ok(socket)
}

/// Waits for a connection, or for the first datagram, whose sender becomes the peer.
pub(crate) fn listen(link: &Link, args: &NcArgs) -> Result<Opened, Failure> {
    let candidate = if args.unix {
        unix(&args.host)
    } else {
        // `-l PORT` listens on every address.
        let (host, port) = match &args.port {
            Some(port) => (Some(args.host.as_str()), port),
            None => (None, &args.host),
        };
        let found = look_up(link, args, host, Some(port), libc::AI_PASSIVE)?;
        let none = || Failure::new(Exit::Failed, format!("{} has no address", args.host));
        found.into_iter().next().ok_or_else(none)?
    };
    let socket = make(link, &candidate)?;
    if !args.unix {
        let reuse = socket.set_option_raw(libc::SOL_SOCKET, libc::SO_REUSEADDR, RawValue::Int(1));
        reuse.map_err(|error| failure("setsockopt", &error))?;
    }
    let address = &candidate.address;
    socket.bind(address).map_err(|error| failure(&format!("bind to {address}"), &error))?;
    let is_stream = candidate.kind == Type::STREAM;
    if is_stream {
        socket.listen(1).map_err(|error| failure("listen", &error))?;
    }
    let own = socket.local_addr().map_err(|error| failure("getsockname", &error))?;
    say(&format!("listening on {own}"));
    if is_stream { accept(&socket) } else { first_sender(socket) }
}

fn accept(listener: &Socket) -> Result<Opened, Failure> {
    let (socket, peer) = listener.accept().map_err(|error| failure("accept", &error))?;
    say(&format!("connection from {peer}"));
    Ok(Opened { socket, is_stream: true })
}

fn first_sender(socket: Socket) -> Result<Opened, Failure> {
    // The datagram itself stays for the copying.
    let first = socket.recv_from_with_flags(&mut [0], Flags::PEEK);
    let (_length, peer) = first.map_err(|error| failure("recvfrom", &error))?;
    say(&format!("datagram from {peer}"));
    socket.connect(&peer).map_err(|error| failure(&format!("connect to {peer}"), &error))?;
    Ok(Opened { socket, is_stream: false })
}

fn make(link: &Link, candidate: &Candidate) -> Result<Socket, Failure> {
    let Candidate { domain, kind, protocol, .. } = *candidate;
    Socket::new(link.broker(), domain, kind, protocol)
        .map_err(|error| failure("socket.socket", &error))
}

/// A path of the broker's file system; with `@` before it, a name of the abstract namespace.
fn unix(path: &str) -> Candidate {
    let address = match path.strip_prefix('@') {
        Some(name) => Address::unix_abstract(name),
        None => Address::unix_path(path),
    };
    Candidate { domain: Domain::UNIX, kind: Type::STREAM, protocol: Protocol::DEFAULT, address }
}

fn look_up(
    link: &Link,
    args: &NcArgs,
    host: Option<&str>,
    port: Option<&str>,
    flags: i32,
) -> Result<Vec<Candidate>, Failure> {
    let family = match (args.ipv4, args.ipv6) {
        (true, _) => "AF_INET",
        (_, true) => "AF_INET6",
        _ => "AF_UNSPEC",
    };
    let kind = match (args.udp, &args.raw) {
        (true, _) => Type::DGRAM,
        (_, Some(_)) => Type::RAW,
        _ => Type::STREAM,
    };
    let parameters = json!({
        "host": host, "port": port, "family": family, "type": kind.number(), "flags": flags,
    });
    let found = link.call("socket.getaddrinfo", parameters)?;
    let candidate = |info: &Value| {
        let number = |at: usize| i32::try_from(info.get(at)?.as_i64()?).ok();
        let address: AddressValue = serde_json::from_value(info.get(4)?.clone()).ok()?;
        let (domain, protocol) = (number(0)?.into(), number(2)?.into());
        Some(Candidate { domain, kind, protocol, address: address.into() })
    };
    Ok(found.as_array().into_iter().flatten().filter_map(candidate).collect())
}

fn protocol_number(link: &Link, protocol: &str) -> Result<Protocol, Failure> {
    if let Ok(number) = protocol.parse::<u8>() {
        return Ok(i32::from(number).into());
    }
    let parameters = json!({ "protocolname": protocol });
    let number: i32 = link.call_typed("socket.getprotobyname", parameters)?;
    Ok(number.into())
}
