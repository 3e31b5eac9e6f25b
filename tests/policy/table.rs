//! The grants that each method requires, written by hand in the words of the rule language.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use serde_json::{Value, json};
use sockbroker_test_support::base64;

use crate::dice::Dice;
use crate::fixture::{Fixture, HeldSocket, descriptor};
use crate::model::RequiredGrant;

/// A call and the grants that it requires, in order.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: &'static str,
    pub(crate) params: Value,
    pub(crate) required: Vec<RequiredGrant>,
    pub(crate) descriptor: Option<OwnedFd>,
    /// Whether the call changes the sockets of the fixture.
    pub(crate) spoils: bool,
}

type Maker = fn(&mut Dice, &Fixture) -> (Value, Vec<RequiredGrant>);

/// Generates a random call.
pub(crate) fn random(dice: &mut Dice, fixture: &Fixture) -> Call {
    let (method, make) = *dice.one(METHODS);
    let (params, required) = make(dice, fixture);
    let descriptor =
        ["socket.apply", "socket.fromfd", "socket.sendfile"].contains(&method).then(descriptor);
    // The kernel binds a datagram socket before it finds out that there is no peer (`inet_send_prepare`).
    let is_unbound = |grant: &RequiredGrant| {
        grant.verb == "send" && grant.local.is_some_and(|(ip, _)| ip.is_unspecified())
    };
    let spoils = SPOILERS.contains(&method) || required.iter().any(is_unbound);
    Call { method, params, required, descriptor, spoils }
}

const SPOILERS: &[&str] = &[
    "session.close",
    "session.restrict",
    "socket.accept",
    "socket.bind",
    "socket.close",
    "socket.connect",
    "socket.connect_ex",
    "socket.detach",
    "socket.listen",
    "socket.sendmmsg",
    "socket.sendmsg",
    "socket.sendto",
    "socket.shutdown",
];

/// Every method of the contract.
#[rustfmt::skip]
pub(crate) const METHODS: &[(&str, Maker)] = &[
    ("admin.handles", |_, _| (json!([1]), plain("admin"))),
    ("admin.reload", |_, _| (json!([]), plain("admin"))),
    ("admin.sessions", |_, _| (json!([]), plain("admin"))),
    ("broker.info", |_, _| (json!([]), Vec::new())),
    ("call.resolve", |_, _| (json!([1_000_000, 1]), Vec::new())),
    // There is no such capture.
    ("capture.close", |_, _| (json!([1]), Vec::new())),
    ("capture.open", |_, _| {
        let required = RequiredGrant {
            verb: "capture",
            family: Some("AF_PACKET"),
            kind: Some("SOCK_RAW"),
            interface: Some("lo"),
            length: Some(9),
            opens_capture: true,
            ..RequiredGrant::default()
        };
        let options = json!({ "snaplen": 9, "buffer_bytes": 65_536, "seconds": 0 });
        (json!([["lo"], null, options]), vec![required])
    }),
    ("capture.read", |_, _| (json!([1, 9]), Vec::new())),
    // The file is empty.
    ("capture.replay", |dice, fixture| with(dice, fixture, &[json!("")], |held| vec![send(held, "unknown")])),
    ("capture.set_filter", |_, _| (json!([1]), Vec::new())),
    ("capture.stats", |_, _| (json!([1]), Vec::new())),
    ("capture.stop", |_, _| (json!([1]), Vec::new())),
    // What it receives and sends is judged, not the channel. There is no such socket.
    ("channel.open", |_, _| (json!([1]), Vec::new())),
    ("policy.check", |_, _| (json!(["create AF_PACKET"]), Vec::new())),
    ("policy.wait", |_, _| (json!([0]), Vec::new())),
    ("policy.whoami", |_, _| (json!([]), Vec::new())),
    ("rpc.discover", |_, _| (json!([]), Vec::new())),
    ("session.attach", |_, fixture| (json!([fixture.token]), Vec::new())),
    ("session.clone", |_, _| (json!([]), plain("session"))),
    ("session.close", |_, _| (json!([]), Vec::new())),
    ("session.handles", |_, fixture| (json!([]), fixture.sockets.iter().flat_map(|held| about("inspect", held)).collect())),
    ("session.info", |_, _| (json!([]), Vec::new())),
    ("session.limits", |_, _| (json!([]), Vec::new())),
    ("session.open", |_, _| (json!([]), plain("session"))),
    ("session.restrict", |_, _| (json!([]), Vec::new())),
    ("socket.CMSG_LEN", |_, _| (json!([1]), Vec::new())),
    ("socket.CMSG_SPACE", |_, _| (json!([1]), Vec::new())),
    ("socket.accept", |dice, fixture| with(dice, fixture, &[], |held| vec![local("accept", held)])),
    // The descriptor is an end of a Unix socket pair, which takes the option.
    ("socket.apply", |_, _| {
        let passed = created("AF_UNIX", "SOCK_STREAM", NUMBER_0);
        let set = RequiredGrant { verb: "option", option: Some("ordinary"), ..passed };
        let option = json!({ "level": "SOL_SOCKET", "optname": "SO_KEEPALIVE", "value": 1 });
        (json!({ "fd": 0, "option": option }), vec![set])
    }),
    ("socket.attach_filter", |dice, fixture| with(dice, fixture, &[json!("BgAAAP////8=")], |held| option("filter", held))),
    ("socket.attributes", |dice, fixture| with(dice, fixture, &[], |_| Vec::new())),
    ("socket.bind", bind),
    ("socket.close", |dice, fixture| with(dice, fixture, &[], |_| Vec::new())),
    ("socket.connect", connect),
    ("socket.connect_ex", connect),
    ("socket.constants", |_, _| (json!([]), Vec::new())),
    ("socket.create_connection", |_, _| {
        let made = created("AF_INET", "SOCK_STREAM", "IPPROTO_TCP");
        let to = RequiredGrant { local: ip("0.0.0.0", 0), remote: ip("127.0.0.1", 9), verb: "connect", ..made.clone() };
        (json!([["127.0.0.1", 9]]), vec![verb("resolve"), made, to])
    }),
    ("socket.create_server", |_, _| {
        let made = created("AF_INET", "SOCK_STREAM", "IPPROTO_TCP");
        let reuse = RequiredGrant { verb: "option", option: Some("ordinary"), ..made.clone() };
        let bound = RequiredGrant { verb: "bind", local: ip("127.0.0.1", 0), ..made.clone() };
        // The kernel chooses an ephemeral port.
        let listens = RequiredGrant { verb: "listen", local: ip("127.0.0.1", 40_000), ..made.clone() };
        (json!([["127.0.0.1", 0]]), vec![made, reuse, bound, listens])
    }),
    ("socket.delegate", |dice, _| {
        let (family, kind, protocol) = *dice.one(&[
            ("AF_INET", "SOCK_STREAM", "IPPROTO_TCP"),
            ("AF_INET6", "SOCK_DGRAM", "IPPROTO_UDP"),
            ("AF_INET", "SOCK_RAW", "IPPROTO_ICMP"),
        ]);
        let made = created(family, kind, protocol);
        let passed = RequiredGrant { verb: "handover", ..made.clone() };
        (json!([family, kind, protocol]), vec![made, passed])
    }),
    ("socket.delegate", |_, _| {
        let made = within("lab1", &created("AF_PACKET", "SOCK_RAW", NUMBER_0));
        // There is no such namespace, so that there is no socket to pass.
        (json!({"family": "AF_PACKET", "type": "SOCK_RAW", "netns": "lab1"}), vec![made])
    }),
    ("socket.create_connection", |_, _| {
        let made = within("lab1", &created("AF_INET", "SOCK_STREAM", "IPPROTO_TCP"));
        // There is no such namespace, so that there is no connection.
        (json!({"address": ["127.0.0.1", 9], "netns": "lab1"}), vec![within("lab1", &verb("resolve")), made])
    }),
    ("socket.create_server", |_, _| {
        let made = within("lab1", &created("AF_INET", "SOCK_STREAM", "IPPROTO_TCP"));
        (json!({"address": ["127.0.0.1", 0], "netns": "lab1"}), vec![made])
    }),
    ("socket.socket", |_, _| {
        let made = within("lab2", &created("AF_PACKET", "SOCK_RAW", NUMBER_0));
        (json!({"family": "AF_PACKET", "type": "SOCK_RAW", "netns": "lab2"}), vec![made])
    }),
    ("socket.socketpair", |_, _| {
        (json!({"netns": "lab1"}), vec![within("lab1", &created("AF_UNIX", "SOCK_STREAM", NUMBER_0))])
    }),
    ("socket.getaddrinfo", |_, _| (json!({"host": "127.0.0.1", "port": 80, "netns": "lab1"}), vec![within("lab1", &verb("resolve"))])),
    ("socket.getfqdn", |_, _| (json!({"name": "127.0.0.1", "netns": "lab1"}), vec![within("lab1", &verb("resolve"))])),
    ("socket.gethostbyaddr", |_, _| (json!({"ip_address": "127.0.0.1", "netns": "lab2"}), vec![within("lab2", &verb("resolve"))])),
    ("socket.gethostbyname_ex", |_, _| (json!({"hostname": "127.0.0.1", "netns": "lab2"}), vec![within("lab2", &verb("resolve"))])),
    ("socket.getnameinfo", |_, _| {
        (json!({"sockaddr": ["127.0.0.1", 80], "flags": 3, "netns": "lab1"}), vec![within("lab1", &verb("resolve"))])
    }),
    ("socket.if_indextoname", |_, _| (json!({"if_index": 1, "netns": "lab1"}), vec![within("lab1", &verb("interfaces"))])),
    ("socket.if_nameindex", |_, _| (json!({"netns": "lab1"}), vec![within("lab1", &verb("interfaces"))])),
    ("socket.if_nametoindex", |_, _| (json!({"if_name": "lo", "netns": "lab2"}), vec![within("lab2", &verb("interfaces"))])),
    ("socket.detach", |dice, fixture| with(dice, fixture, &[], |held| about("handover", held))),
    ("socket.detach_filter", |dice, fixture| with(dice, fixture, &[], |held| option("filter", held))),
    ("socket.dup", |dice, fixture| with(dice, fixture, &[], |held| about("inspect", held))),
    ("socket.fileno", |dice, fixture| with(dice, fixture, &[], |held| about("handover", held))),
    ("socket.fromfd", |dice, _| {
        // The broker ignores what the caller declares about the socket.
        let declared = *dice.one(&["AF_UNIX", "AF_INET", "AF_PACKET"]);
        (json!([0, declared]), vec![RequiredGrant { verb: "adopt", ..created("AF_UNIX", "SOCK_STREAM", NUMBER_0) }])
    }),
    ("socket.get_inheritable", |dice, fixture| with(dice, fixture, &[], |_| Vec::new())),
    ("socket.getaddrinfo", |_, _| (json!(["127.0.0.1", 80]), plain("resolve"))),
    ("socket.getblocking", |dice, fixture| with(dice, fixture, &[], |_| Vec::new())),
    ("socket.getdefaulttimeout", |_, _| (json!([]), Vec::new())),
    ("socket.getfqdn", |_, _| (json!(["127.0.0.1"]), plain("resolve"))),
    ("socket.gethostbyaddr", |_, _| (json!(["127.0.0.1"]), plain("resolve"))),
    ("socket.gethostbyname", |_, _| (json!(["127.0.0.1"]), Vec::new())),
    ("socket.gethostbyname_ex", |_, _| (json!(["127.0.0.1"]), plain("resolve"))),
    ("socket.gethostname", |_, _| (json!([]), plain("hostname"))),
    ("socket.getnameinfo", |_, _| (json!([["127.0.0.1", 80], 3]), plain("resolve"))),
    ("socket.getpeername", |dice, fixture| with(dice, fixture, &[], |held| about("inspect", held))),
    ("socket.getprotobyname", |_, _| (json!(["icmp"]), plain("resolve"))),
    ("socket.getservbyname", |_, _| (json!(["http"]), plain("resolve"))),
    ("socket.getservbyport", |_, _| (json!([80]), plain("resolve"))),
    ("socket.getsockname", |dice, fixture| with(dice, fixture, &[], |held| about("inspect", held))),
    ("socket.getsockopt", |dice, fixture| {
        let (name, class) = *dice.one(&[("SO_REUSEADDR", "ordinary"), ("SO_MARK", "ordinary"), ("SO_PEERCRED", "ordinary")]);
        with(dice, fixture, &[json!("SOL_SOCKET"), json!(name), json!(12)], |held| option(class, held))
    }),
    ("socket.gettimeout", |dice, fixture| with(dice, fixture, &[], |_| Vec::new())),
    // If the policy refuses the option, the method returns false: no dual stack.
    ("socket.has_dualstack_ipv6", |_, _| (json!([]), vec![created("AF_INET6", "SOCK_STREAM", "IPPROTO_TCP")])),
    ("socket.htonl", |_, _| (json!([1]), Vec::new())),
    ("socket.htons", |_, _| (json!([1]), Vec::new())),
    ("socket.if_indextoname", |_, _| (json!([1]), plain("interfaces"))),
    ("socket.if_nameindex", |_, _| (json!([]), plain("interfaces"))),
    ("socket.if_nametoindex", |_, _| (json!(["lo"]), plain("interfaces"))),
    ("socket.inet_aton", |_, _| (json!(["127.0.0.1"]), Vec::new())),
    ("socket.inet_ntoa", |_, _| (json!(["fwAAAQ=="]), Vec::new())),
    ("socket.inet_ntop", |_, _| (json!(["AF_INET", "fwAAAQ=="]), Vec::new())),
    ("socket.inet_pton", |_, _| (json!(["AF_INET", "127.0.0.1"]), Vec::new())),
    ("socket.ioctl", |dice, fixture| match dice.below(3) {
        0 => with(dice, fixture, &[json!("FIONREAD")], |held| about("ioctl", held)),
        1 => with(dice, fixture, &[json!("SIOCGIFINDEX"), json!("lo")], |_| plain("interfaces")),
        _ => with(dice, fixture, &[json!("SIO_RCVALL"), json!("RCVALL_ON")], |held| about("capture", held)),
    }),
    ("socket.listen", |dice, fixture| {
        let held = internet(dice, fixture);
        (json!([held.handle]), vec![local("listen", held)])
    }),
    ("socket.ntohl", |_, _| (json!([1]), Vec::new())),
    ("socket.ntohs", |_, _| (json!([1]), Vec::new())),
    ("socket.poll", |dice, fixture| {
        let held = dice.one(&fixture.sockets);
        (json!([[[held.handle, 1]], 0]), about("inspect", held))
    }),
    ("socket.position", |dice, fixture| with(dice, fixture, &[], |held| about("inspect", held))),
    ("socket.resume", |dice, fixture| with(dice, fixture, &[json!(0)], receive)),
    ("socket.recv", |dice, fixture| with(dice, fixture, &[json!(9)], receive)),
    ("socket.recv_into", |dice, fixture| with(dice, fixture, &[json!(9)], receive)),
    ("socket.recvfrom", |dice, fixture| with(dice, fixture, &[json!(9)], receive)),
    ("socket.recvfrom_into", |dice, fixture| with(dice, fixture, &[json!(9)], receive)),
    ("socket.recvmmsg", |dice, fixture| with(dice, fixture, &[json!(2), json!(9)], receive)),
    ("socket.recvmsg", |dice, fixture| with(dice, fixture, &[json!(9)], receive)),
    ("socket.recvmsg_into", |dice, fixture| with(dice, fixture, &[json!([9])], receive)),
    ("socket.send", |dice, fixture| sent(dice, fixture, |held, data| json!([held, data]))),
    ("socket.sendall", |dice, fixture| sent(dice, fixture, |held, data| json!([held, data]))),
    ("socket.sendfile", |dice, fixture| {
        let held = dice.one(&fixture.sockets);
        (json!([held.handle, 0]), vec![send(held, "unknown")])
    }),
    ("socket.sendmmsg", |dice, fixture| sent(dice, fixture, |held, data| json!([held, [{ "buffers": [data] }]]))),
    ("socket.sendmsg", |dice, fixture| {
        if dice.percent(50) {
            return from_elsewhere(dice, fixture);
        }
        let (mut params, mut required) = sent(dice, fixture, |held, data| json!([held, [data]]));
        if dice.percent(50) {
            let held = fixture.sockets.iter().find(|held| params[0] == held.handle).unwrap();
            params.as_array_mut().unwrap().push(json!([["SOL_SOCKET", "SO_MARK", "AQAAAA=="]]));
            required.extend(option("mark", held));
        }
        (params, required)
    }),
    // Refused for another reason before the policy check: there is no such socket.
    ("socket.sendmsg_afalg", |dice, fixture| with(dice, fixture, &[json!(1)], |_| Vec::new())),
    ("socket.sendto", sendto),
    ("socket.set_inheritable", |dice, fixture| with(dice, fixture, &[json!(true)], |_| Vec::new())),
    ("socket.setblocking", |dice, fixture| with(dice, fixture, &[json!(false)], |held| about("inspect", held))),
    ("socket.setdefaulttimeout", |_, _| (json!([0]), Vec::new())),
    ("socket.sethostname", |_, fixture| (json!([fixture.hostname]), plain("sethostname"))),
    ("socket.setsockopt", setsockopt),
    ("socket.settimeout", |dice, fixture| with(dice, fixture, &[json!(0)], |held| about("inspect", held))),
    ("socket.shutdown", |dice, fixture| with(dice, fixture, &[json!("SHUT_RDWR")], |held| about("inspect", held))),
    ("socket.socket", socket),
    ("socket.socketpair", |_, _| (json!([]), vec![created("AF_UNIX", "SOCK_STREAM", NUMBER_0)])),
];

/// A name of protocol number 0, which is the protocol of sockets without one.
const NUMBER_0: &str = "NETLINK_ROUTE";

/// In a network namespace other than that of the broker.
fn within(netns: &'static str, grant: &RequiredGrant) -> RequiredGrant {
    RequiredGrant { netns: Some(netns), ..grant.clone() }
}

fn verb(verb: &'static str) -> RequiredGrant {
    RequiredGrant { verb, ..RequiredGrant::default() }
}

fn plain(word: &'static str) -> Vec<RequiredGrant> {
    vec![verb(word)]
}

fn created(family: &'static str, kind: &'static str, protocol: &'static str) -> RequiredGrant {
    let verb = "create";
    RequiredGrant {
        verb,
        family: Some(family),
        kind: Some(kind),
        protocol: Some(protocol),
        ..RequiredGrant::default()
    }
}

fn on(verb: &'static str, held: &HeldSocket) -> RequiredGrant {
    let protocol = if held.protocol.is_empty() { NUMBER_0 } else { held.protocol };
    RequiredGrant { verb, ..created(held.family, held.kind, protocol) }
}

fn about(verb: &'static str, held: &HeldSocket) -> Vec<RequiredGrant> {
    vec![on(verb, held)]
}

fn local(verb: &'static str, held: &HeldSocket) -> RequiredGrant {
    RequiredGrant { local: held.local, ..on(verb, held) }
}

fn option(class: &'static str, held: &HeldSocket) -> Vec<RequiredGrant> {
    vec![RequiredGrant { option: Some(class), ..on("option", held) }]
}

fn receive(held: &HeldSocket) -> Vec<RequiredGrant> {
    vec![RequiredGrant { remote: held.peer, ..on("receive", held) }]
}

fn send(held: &HeldSocket, netlink: &'static str) -> RequiredGrant {
    let netlink = (held.family == "AF_NETLINK").then_some(netlink);
    RequiredGrant { remote: held.peer, netlink, ..local("send", held) }
}

#[expect(clippy::unnecessary_wraps, reason = "an operand may be absent")]
fn ip(text: &str, port: u16) -> Option<(IpAddr, u16)> {
    Some((text.parse().expect("an address"), port))
}

/// Builds a call on any socket, with these further parameters.
fn with(
    dice: &mut Dice,
    fixture: &Fixture,
    further: &[Value],
    required: impl Fn(&HeldSocket) -> Vec<RequiredGrant>,
) -> (Value, Vec<RequiredGrant>) {
    let held = dice.one(&fixture.sockets);
    let params: Vec<_> =
        std::iter::once(json!(held.handle)).chain(further.iter().cloned()).collect();
    (Value::Array(params), required(held))
}

fn internet<'a>(dice: &mut Dice, fixture: &'a Fixture) -> &'a HeldSocket {
    let sockets = fixture.sockets.iter().filter(|held| held.family.starts_with("AF_INET"));
    let sockets: Vec<&HeldSocket> = sockets.collect();
    sockets[dice.below(sockets.len())]
}

fn bind(dice: &mut Dice, fixture: &Fixture) -> (Value, Vec<RequiredGrant>) {
    let held = internet(dice, fixture);
    let (written, seen) = match held.family {
        "AF_INET" => *dice.one(&[
            ("127.0.0.1", "127.0.0.1"),
            ("0.0.0.0", "0.0.0.0"),
            ("10.1.2.3", "10.1.2.3"),
        ]),
        _ => *dice.one(&[("::1", "::1"), ("::", "::"), ("::ffff:10.1.2.3", "10.1.2.3")]),
    };
    let port = *dice.one(&[0, 80, 8080]);
    let grant = RequiredGrant { local: ip(seen, port), ..on("bind", held) };
    (json!([held.handle, [written, port]]), vec![grant])
}

/// Returns a local destination, as the request writes it and as the kernel sees it.
fn destination(dice: &mut Dice, held: &HeldSocket) -> (&'static str, &'static str) {
    match held.family {
        "AF_INET" => *dice.one(&[
            ("127.0.0.1", "127.0.0.1"),
            ("127.9.9.9", "127.9.9.9"),
            ("0.0.0.0", "127.0.0.1"),
        ]),
        _ => *dice.one(&[("::1", "::1"), ("::", "::1"), ("::ffff:127.0.0.1", "127.0.0.1")]),
    }
}

fn connect(dice: &mut Dice, fixture: &Fixture) -> (Value, Vec<RequiredGrant>) {
    let held = internet(dice, fixture);
    let (written, seen) = destination(dice, held);
    let port = *dice.one(&[9, 2000]);
    let grant = RequiredGrant { remote: ip(seen, port), ..local("connect", held) };
    (json!([held.handle, [written, port]]), vec![grant])
}

fn sendto(dice: &mut Dice, fixture: &Fixture) -> (Value, Vec<RequiredGrant>) {
    let held = internet(dice, fixture);
    let (written, seen) = destination(dice, held);
    let port = *dice.one(&[9, 2000]);
    let sends = RequiredGrant { remote: ip(seen, port), ..local("send", held) };
    // A connected stream sends to its peer and ignores the address.
    let peer = held.peer.filter(|_| held.kind == "SOCK_STREAM");
    let to_peer = peer.map(|peer| RequiredGrant { remote: Some(peer), ..sends.clone() });
    let ways: Vec<_> = std::iter::once(sends).chain(to_peer).collect();
    let mut required = ways.clone();
    let mut flags = 0;
    if dice.percent(30) {
        flags = libc::MSG_FASTOPEN;
        required.extend(ways.into_iter().map(|way| RequiredGrant { verb: "connect", ..way }));
    }
    (json!([held.handle, "", flags, [written, port]]), required)
}

/// Builds a datagram whose ancillary data has zero or more sources and interfaces.
fn from_elsewhere(dice: &mut Dice, fixture: &Fixture) -> (Value, Vec<RequiredGrant>) {
    let is_udp = |held: &&HeldSocket| (held.family, held.kind) == ("AF_INET", "SOCK_DGRAM");
    let held = fixture.sockets.iter().find(is_udp).expect("a UDP socket");
    let items: Vec<(Option<[u8; 4]>, u32)> = (0..dice.below(3))
        .map(|_| {
            let source = *dice.one(&[None, Some([127, 0, 0, 1]), Some([127, 9, 9, 9])]);
            (source, *dice.one(&[0, LOOPBACK]))
        })
        .collect();
    let sources: Vec<_> = items.iter().filter_map(|(source, _)| *source).collect();
    // The port of a chosen source is that of the socket, whose local address is checked too.
    let port = held.local.map_or(0, |(_, port)| port);
    let chosen = sources.iter().map(|source| Some((IpAddr::from(*source), port)));
    let locals: Vec<_> = chosen.chain([held.local]).collect();
    let named = items.iter().any(|(_, index)| *index == LOOPBACK);
    let interface = named.then_some("lo");
    // The kernel replaces the destination 0.0.0.0 by the source.
    let (written, seen) = *dice.one(&["127.0.0.1", "0.0.0.0"].map(|host| match host {
        "0.0.0.0" => (host, IpAddr::from(*sources.last().unwrap_or(&[127, 0, 0, 1]))),
        _ => (host, IpAddr::from([127, 0, 0, 1])),
    }));
    let sends = RequiredGrant { remote: Some((seen, 9)), interface, ..on("send", held) };
    let mut required: Vec<_> =
        locals.into_iter().map(|local| RequiredGrant { local, ..sends.clone() }).collect();
    let ordinary = RequiredGrant { option: Some("ordinary"), interface, ..on("option", held) };
    required.extend(items.iter().map(|_| ordinary.clone()));
    let ancillary: Vec<_> = items
        .iter()
        .map(|(source, index)| {
            let info = [&index.to_ne_bytes()[..], &source.unwrap_or_default(), &[0; 4]].concat();
            json!(["IPPROTO_IP", "IP_PKTINFO", base64(info)])
        })
        .collect();
    (json!([held.handle, ["aGk="], ancillary, 0, [written, 9]]), required)
}

/// The index of the loopback interface in every network namespace.
const LOOPBACK: u32 = 1;

/// Builds a send to the peer of a socket; on netlink, a valid or an invalid message.
fn sent(
    dice: &mut Dice,
    fixture: &Fixture,
    params: impl Fn(u64, &str) -> Value,
) -> (Value, Vec<RequiredGrant>) {
    let held = dice.one(&fixture.sockets);
    let mut message = [&32_u32.to_ne_bytes()[..], &libc::RTM_GETLINK.to_ne_bytes()].concat();
    message.resize(32, 0);
    let (data, class) =
        if dice.percent(50) { (base64(message), "get") } else { (base64("hi"), "unknown") };
    (params(held.handle, &data), vec![send(held, class)])
}

fn setsockopt(dice: &mut Dice, fixture: &Fixture) -> (Value, Vec<RequiredGrant>) {
    let held = internet(dice, fixture);
    let four = held.family == "AF_INET";
    let (level, name, value, grant) = match dice.below(if four { 6 } else { 3 }) {
        0 => ("SOL_SOCKET", 2, json!(1), option("ordinary", held)),
        1 => ("SOL_SOCKET", libc::SO_MARK, json!(1), option("mark", held)),
        2 => ("SOL_SOCKET", 9999, json!(1), option("unknown", held)),
        3 => ("IPPROTO_IP", libc::IP_TRANSPARENT, json!(1), about("transparent", held)),
        4 => ("IPPROTO_IP", libc::IP_HDRINCL, json!(1), about("spoof", held)),
        _ => {
            let group = RequiredGrant {
                option: Some("multicast"),
                remote: ip("239.1.1.1", 0),
                interface: Some("lo"),
                ..on("option", held)
            };
            let request = base64([239, 1, 1, 1, 127, 0, 0, 1]);
            ("IPPROTO_IP", libc::IP_ADD_MEMBERSHIP, json!(request), vec![group])
        }
    };
    (json!([held.handle, level, name, value]), grant)
}

fn socket(dice: &mut Dice, _fixture: &Fixture) -> (Value, Vec<RequiredGrant>) {
    /// An experimental `EtherType` that no host sends (`ETH_P_802_EX1` in network byte order).
    const UNUSED_ETHERTYPE: i32 = 0xb588;
    let capture = |made: &RequiredGrant| RequiredGrant { verb: "capture", ..made.clone() };
    match dice.below(7) {
        0 => (json!([]), vec![created("AF_INET", "SOCK_STREAM", "IPPROTO_TCP")]),
        1 => (
            json!(["AF_INET6", "SOCK_DGRAM"]),
            vec![created("AF_INET6", "SOCK_DGRAM", "IPPROTO_UDP")],
        ),
        2 => (
            json!(["AF_INET", "SOCK_RAW", "IPPROTO_ICMP"]),
            vec![created("AF_INET", "SOCK_RAW", "IPPROTO_ICMP")],
        ),
        3 => {
            (json!(["AF_PACKET", "SOCK_RAW", 0]), vec![created("AF_PACKET", "SOCK_RAW", NUMBER_0)])
        }
        4 => {
            let made = created("AF_PACKET", "SOCK_DGRAM", "unused");
            (
                json!(["AF_PACKET", "SOCK_DGRAM", UNUSED_ETHERTYPE]),
                vec![made.clone(), capture(&made)],
            )
        }
        5 => {
            // SOCK_PACKET: a packet socket under the name of another family.
            let made = created("AF_PACKET", "SOCK_PACKET", "unused");
            (json!(["AF_INET", 10, UNUSED_ETHERTYPE]), vec![made.clone(), capture(&made)])
        }
        _ => (
            json!(["AF_NETLINK", "SOCK_RAW", 0]),
            vec![created("AF_NETLINK", "SOCK_RAW", NUMBER_0)],
        ),
    }
}
