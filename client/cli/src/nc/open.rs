//! The socket that nc copies to and from.

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

/// Datagrams that a scan sends, as netcat does.
const PROBES: usize = 4;

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
    connection: &Connection,
    args: &NcArgs,
    port: Option<&str>,
    wait: Option<Duration>,
) -> Result<Opened, Failure> {
    let mut last = Failure::new(Exit::Failed, format!("{} has no address", args.host));
    for candidate in candidates(connection, args, port)? {
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
            Err(failed) => {
                if args.verbose {
                    report(&failed.to_string());
                }
                last = failed;
            }
        }
    }
    Err(last)
}

impl Opened {
    /// Whether somebody is there: a stream is connected, and a datagram is not refused. As by netcat, an
    /// answer to the first datagrams fails the later ones.
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

/// The line that netcat prints of a connection.
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

fn candidates(
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

/// Binds to what -s and -p say.
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
            format!("connect to {peer}: the address of -s is of another family"),
        )
    })?;
    socket.bind(&address).map_err(|error| failure(&format!("bind to {address}"), &error))
}

/// A socket that waits for peers.
#[derive(Debug)]
pub(crate) struct Bound {
    /// The socket.
    pub(crate) socket: Socket,
    /// Whether peers connect, or send messages.
    pub(crate) is_stream: bool,
}

impl Bound {
    /// Waits for a connection.
    pub(crate) fn accept(&self) -> Result<Opened, Failure> {
        accept(&self.socket)
    }

    /// Waits for one connection, or for the first datagram, whose sender becomes the peer.
    pub(crate) fn peer(self) -> Result<Opened, Failure> {
        if self.is_stream { self.accept() } else { connect_to_first_sender(self.socket) }
    }
}

/// Binds, and listens if the socket carries a stream.
pub(crate) fn bound(
    connection: &Connection,
    args: &NcArgs,
    port: Option<&str>,
) -> Result<Bound, Failure> {
    let candidate = if args.unix {
        unix(&args.host)
    } else {
        // Where the port stands alone it is on every address.
        let host = args.port.as_ref().map(|_| args.host.as_str());
        let found = resolve(connection, args, host, port, libc::AI_PASSIVE)?;
        let none = || Failure::new(Exit::Failed, format!("{} has no address", args.host));
        found.into_iter().next().ok_or_else(none)?
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
    // The datagram itself stays for the copying.
    let first = socket.recv_from_with_flags(&mut [0], Flags::PEEK);
    let (_length, peer) = first.map_err(|error| failure("recvfrom", &error))?;
    report(&format!("datagram from {peer}"));
    socket.connect(&peer).map_err(|error| failure(&format!("connect to {peer}"), &error))?;
    Ok(Opened { socket, is_stream: false })
}

fn make(connection: &Connection, candidate: &Candidate) -> Result<Socket, Failure> {
    let Candidate { domain, kind, protocol, .. } = *candidate;
    Socket::new(connection.broker(), domain, kind, protocol)
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
    let found = connection.call("socket.getaddrinfo", parameters)?;
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
