//! Opens the socket of nc: resolves names, connects, or listens.

use std::time::Duration;

use serde_json::{Value, json};
use sockbroker_client::blocking::Socket;
use sockbroker_client::option::RawValue;
use sockbroker_client::{Address, Domain, Flags, Protocol, Type};
use sockbroker_proto::address::AddressValue;

use super::args::NcArgs;
use crate::connection::{Connection, failure};
use crate::failure::{Exit, Failure};
use crate::screen::report;

/// The datagrams that a scan of a UDP port sends, as netcat does.
const PROBES: usize = 4;

/// A connected socket.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) socket: Socket,
    /// Whether the socket carries a stream, which has an end, or messages.
    pub(crate) is_stream: bool,
}

/// An address to connect or bind to, from `getaddrinfo`.
#[derive(Debug)]
pub(crate) struct Candidate {
    domain: Domain,
    kind: Type,
    protocol: Protocol,
    address: Address,
}

/// Connects to the first address that accepts the connection.
pub(crate) fn connect(
    connection: &Connection,
    args: &NcArgs,
    port: Option<&str>,
    wait: Option<Duration>,
) -> Result<Opened, Failure> {
    connect_to(connection, args, port, wait, candidates(connection, args, port)?)
}

/// Connects to the first of some addresses that accepts the connection. With -v, it reports all failures but the last one,
/// which it returns.
pub(crate) fn connect_to(
    connection: &Connection,
    args: &NcArgs,
    port: Option<&str>,
    wait: Option<Duration>,
    candidates: Vec<Candidate>,
) -> Result<Opened, Failure> {
    let mut last: Option<Failure> = None;
    for candidate in candidates {
        if let Some(previous) = last.take().filter(|_| args.verbose) {
            report(&previous.to_string());
        }
        let is_stream = candidate.kind == Type::STREAM;
        let connected = connect_one(connection, args, &candidate, wait);
        let connected = connected.map(|socket| Opened { socket, is_stream });
        let probe = |opened: Opened| if args.zero { opened.probe() } else { Ok(opened) };
        match connected.and_then(probe) {
            Ok(opened) => {
                if args.verbose {
                    report(&success(connection, args, port));
                }
                return Ok(opened);
            }
            Err(failed) => last = Some(failed),
        }
    }
    Err(last.unwrap_or_else(|| no_address(&args.host)))
}

impl Opened {
    /// Tests whether the port is open. A stream is connected already. A datagram socket sends probes, as
    /// netcat does: a refusal of the first ones makes a later one fail.
    fn probe(self) -> Result<Self, Failure> {
        if self.is_stream {
            return Ok(self);
        }
        for _ in 0..PROBES {
            self.socket.send(b"X").map_err(|error| failure("send", &error))?;
        }
        Ok(self)
    }
}

/// Returns the line that netcat prints for a connection.
fn success(connection: &Connection, args: &NcArgs, port: Option<&str>) -> String {
    let Some(port) = port else { return format!("Connection to {} succeeded!", args.host) };
    let protocol = if args.udp { "udp" } else { "tcp" };
    let name = port.parse::<u16>().ok().map_or_else(
        || Some(port.to_owned()),
        |number| {
            let query = json!({ "port": number, "protocolname": protocol });
            connection.call_typed("socket.getservbyport", query).ok()
        },
    );
    let name = name.as_deref().unwrap_or("*");
    format!("Connection to {} {port} port [{protocol}/{name}] succeeded!", args.host)
}

/// The addresses to try.
pub(crate) fn candidates(
    connection: &Connection,
    args: &NcArgs,
    port: Option<&str>,
) -> Result<Vec<Candidate>, Failure> {
    if args.unix {
        return Ok(vec![unix(&args.host)]);
    }
    let host = Some(args.host.as_str());
    let Some(protocol) = &args.raw else {
        return resolve(connection, args, host, port, 0);
    };
    let protocol = protocol_number(connection, protocol)?;
    let mut found = resolve(connection, args, host, None, 0)?;
    for candidate in &mut found {
        candidate.protocol = protocol;
    }
    Ok(found)
}

fn connect_one(
    connection: &Connection,
    args: &NcArgs,
    candidate: &Candidate,
    wait: Option<Duration>,
) -> Result<Socket, Failure> {
    let socket = make(connection, candidate)?;
    bind_source(connection, args, candidate, &socket)?;
    let address = &candidate.address;
    let connected = match wait {
        Some(wait) => socket.connect_timeout(address, wait),
        None => socket.connect(address),
    };
    connected.map_err(|error| failure(&format!("connect to {address}"), &error))?;
    Ok(socket)
}

/// Binds the socket to the address of -s and the port of -p.
fn bind_source(
    connection: &Connection,
    args: &NcArgs,
    candidate: &Candidate,
    socket: &Socket,
) -> Result<(), Failure> {
    if args.source.is_none() && args.source_port.is_none() {
        return Ok(());
    }
    let host = args.source.map(|source| source.to_string());
    let port = args.source_port.as_deref().unwrap_or("0");
    let found = resolve(connection, args, host.as_deref(), Some(port), libc::AI_PASSIVE)?;
    let source = found.into_iter().find(|source| source.domain == candidate.domain);
    let Candidate { address, .. } = source.ok_or_else(|| {
        let peer = &candidate.address;
        Failure::new(
            Exit::Failed,
            format!("connect to {peer}: the address of -s has another address family"),
        )
    })?;
    socket.bind(&address).map_err(|error| failure(&format!("bind to {address}"), &error))
}

fn no_address(host: &str) -> Failure {
    Failure::new(Exit::Failed, format!("cannot resolve {host}: the broker returned no address"))
}

/// A socket that is bound and waits for peers.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) socket: Socket,
    /// Whether peers connect to the socket, or send messages.
    pub(crate) is_stream: bool,
}

impl Bound {
    pub(crate) fn accept(&self) -> Result<Opened, Failure> {
        accept(&self.socket)
    }

    /// Waits for one connection, or for the first datagram and connects to its sender.
    pub(crate) fn peer(self) -> Result<Opened, Failure> {
        if self.is_stream { self.accept() } else { connect_to_first_sender(self.socket) }
    }
}

/// Binds a socket, and listens if it carries a stream.
pub(crate) fn bound(
    connection: &Connection,
    args: &NcArgs,
    port: Option<&str>,
) -> Result<Bound, Failure> {
    let candidate = if args.unix {
        unix(&args.host)
    } else {
        // A port without a host means all addresses.
        let host = args.port.as_ref().map(|_| args.host.as_str());
        let found = resolve(connection, args, host, port, libc::AI_PASSIVE)?;
        found.into_iter().next().ok_or_else(|| no_address(&args.host))?
    };
    let socket = make(connection, &candidate)?;
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
    report(&format!("listening on {own}"));
    Ok(Bound { socket, is_stream })
}

fn accept(listener: &Socket) -> Result<Opened, Failure> {
    let (socket, peer) = listener.accept().map_err(|error| failure("accept", &error))?;
    report(&format!("connection from {peer}"));
    Ok(Opened { socket, is_stream: true })
}

fn connect_to_first_sender(socket: Socket) -> Result<Opened, Failure> {
    // The datagram stays in the socket's queue for the copy.
    let first = socket.recv_from_with_flags(&mut [0], Flags::PEEK);
    let (_length, peer) = first.map_err(|error| failure("recvfrom", &error))?;
    report(&format!("datagram from {peer}"));
    socket.connect(&peer).map_err(|error| failure(&format!("connect to {peer}"), &error))?;
    Ok(Opened { socket, is_stream: false })
}

fn make(connection: &Connection, candidate: &Candidate) -> Result<Socket, Failure> {
    let Candidate { domain, kind, protocol, .. } = *candidate;
    let broker = connection.broker();
    let made = match connection.netns() {
        Some(netns) => broker.namespace(netns).socket(domain, kind, protocol),
        None => Socket::new(broker, domain, kind, protocol),
    };
    made.map_err(|error| failure("socket.socket", &error))
}

/// Parses a path in the broker's file system, or after `@` a name in the abstract namespace.
fn unix(path: &str) -> Candidate {
    let address = match path.strip_prefix('@') {
        Some(name) => Address::unix_abstract(name),
        None => Address::unix_path(path),
    };
    Candidate { domain: Domain::UNIX, kind: Type::STREAM, protocol: Protocol::DEFAULT, address }
}

fn resolve(
    connection: &Connection,
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
    let found = connection.resolve(parameters)?;
    let candidate = |info: &Value| {
        let number = |at: usize| i32::try_from(info.get(at)?.as_i64()?).ok();
        let address: AddressValue = serde_json::from_value(info.get(4)?.clone()).ok()?;
        let (domain, protocol) = (number(0)?.into(), number(2)?.into());
        Some(Candidate { domain, kind, protocol, address: address.into() })
    };
    Ok(found.as_array().into_iter().flatten().filter_map(candidate).collect())
}

fn protocol_number(connection: &Connection, protocol: &str) -> Result<Protocol, Failure> {
    if let Ok(number) = protocol.parse::<u8>() {
        return Ok(i32::from(number).into());
    }
    let parameters = json!({ "protocolname": protocol });
    let number: i32 = connection.call_typed("socket.getprotobyname", parameters)?;
    Ok(number.into())
}
