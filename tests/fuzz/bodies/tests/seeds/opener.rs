//! Requests to the opener.

use std::net::Ipv6Addr;

use sockbroker_fuzz_bodies::fake_kernel::{Named, OWN_NETWORK, Socket};
use sockbroker_fuzz_bodies::granted::{MEMBER, NAMER, ROOT};
use sockbroker_fuzz_bodies::opener::Scene;
use sockbroker_monitor::capture::{Direction, Format, Order};
use sockbroker_monitor::request::{Control, InterfaceQuery, Request, SelectedNamespace, Value};
use sockbroker_proto::address::Address;
use sockbroker_sys::address::RawAddress;

fn raw(address: &Address) -> Vec<u8> {
    RawAddress::encode(address).as_bytes().to_vec()
}

pub(crate) fn inet(port: u16) -> Vec<u8> {
    raw(&Address::Inet { host: [127, 0, 0, 1].into(), port })
}

fn socket(domain: i32, ty: i32, protocol: i32) -> Socket {
    Socket { spec: (domain, ty, protocol), network: Some(OWN_NETWORK), ..Socket::default() }
}

fn udp() -> Socket {
    socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDP)
}

fn route() -> Socket {
    socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)
}

fn option(level: i32, name: i32, value: &[u8]) -> Request {
    Request::SetOption { level, name, value: Value::Bytes(value.to_vec()) }
}

pub(crate) fn mark() -> Request {
    option(libc::SOL_SOCKET, libc::SO_MARK, &7_i32.to_ne_bytes())
}

/// A datagram with a mark to a host of 10.0.0.0/8, or to the peer.
pub(crate) fn marked(host: Option<u8>) -> Request {
    let to = |host| raw(&Address::Inet { host: [10, 0, 0, host].into(), port: 9 });
    let data = 7_i32.to_ne_bytes().to_vec();
    Request::Send {
        destination: host.map(to),
        flags: 0,
        control: vec![Control { level: libc::SOL_SOCKET, kind: libc::SO_MARK, data }],
        data: b"marked".to_vec(),
    }
}

/// A message of netlink with this type.
fn netlink(kind: u16) -> Request {
    let message = [&32_u32.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 26]].concat();
    Request::Send {
        destination: Some(raw(&Address::Netlink { pid: 0, groups: 0 })),
        flags: 0,
        control: Vec::new(),
        data: message,
    }
}

/// A request of a user, on a connection that the worker has.
fn scene(uid: u32, request: Request, socket: impl Into<Option<Socket>>) -> Scene {
    Scene {
        uid,
        accepted: vec![1, 300],
        closed: vec![2],
        connection: Named {
            cookie: Some(300),
            is_hung_up: false,
            uid: Some(uid),
            network: Some(OWN_NETWORK),
        },
        network: SelectedNamespace::Broker,
        request,
        socket: socket.into(),
        fails: None,
    }
}

/// A request with its name.
pub(crate) type Seed = (&'static str, Scene);

fn create(domain: i32, ty: i32, protocol: i32) -> Request {
    Request::Create { domain, ty, protocol }
}

fn packet() -> Request {
    create(libc::AF_PACKET, libc::SOCK_RAW, 0)
}

fn near() -> Vec<u8> {
    raw(&Address::Inet { host: [10, 0, 0, 9].into(), port: 9 })
}

pub(crate) fn creations() -> Vec<Seed> {
    let name = || Request::SetHostname { name: "mine".to_owned() };
    vec![
        ("create-packet", scene(MEMBER, packet(), None)),
        ("create-packet-that-captures", scene(MEMBER, create(libc::AF_PACKET, 3, 768), None)),
        ("create-ping", scene(MEMBER, create(libc::AF_INET, libc::SOCK_RAW, 1), None)),
        ("create-old-packet", scene(MEMBER, create(libc::AF_INET, 10, 0), None)),
        ("create-rcvall", scene(ROOT, create(libc::AF_INET, libc::SOCK_RAW, 0), None)),
        ("create-netlink", scene(MEMBER, create(libc::AF_NETLINK, libc::SOCK_RAW, 0), None)),
        ("create-denied-to-root", scene(ROOT, create(libc::AF_INET6, libc::SOCK_RAW, 58), None)),
        ("create-fails", Scene { fails: Some(libc::EMFILE), ..scene(ROOT, packet(), None) }),
        ("hostname", scene(NAMER, name(), None)),
        ("hostname-denied-to-root", scene(ROOT, name(), None)),
    ]
}

/// A capture of these interfaces.
pub(crate) fn order(interfaces: &[&str]) -> Order {
    Order {
        interfaces: interfaces.iter().map(|name| (*name).to_owned()).collect(),
        program: vec![6, 0, 0, 0, 64, 0, 0, 0],
        snaplen: 64,
        direction: Direction::Both,
        promiscuous: false,
        duplicates: false,
        bulk: false,
        buffer_bytes: 1 << 20,
        format: Format::Pcapng,
        text: Some("udp".to_owned()),
        packets: Some(3),
        bytes: None,
        milliseconds: None,
    }
}

pub(crate) fn captures() -> Vec<Seed> {
    let capture = |order| Request::Capture { capture: 1, order };
    let promiscuous = Order { promiscuous: true, ..order(&["eth0"]) };
    let names = ["eth0"; 17];
    let filter = Request::SetCaptureFilter { request: 2, capture: 1, program: Vec::new() };
    vec![
        ("capture", scene(MEMBER, capture(order(&["eth0"])), None)),
        ("capture-of-another", scene(MEMBER, capture(order(&["eth0", "eth1"])), None)),
        ("capture-of-all", scene(MEMBER, capture(order(&[])), None)),
        ("capture-promiscuous", scene(MEMBER, capture(promiscuous.clone()), None)),
        ("capture-of-root", scene(ROOT, capture(promiscuous), None)),
        ("capture-of-too-many", scene(ROOT, capture(order(&names)), None)),
        ("capture-filter", scene(ROOT, filter, None)),
    ]
}

pub(crate) fn calls() -> Vec<Seed> {
    let bind = |address| Request::Bind { address };
    let netlink_address = |groups| raw(&Address::Netlink { pid: 0, groups });
    let six = Address::Inet6 { host: Ipv6Addr::LOCALHOST, port: 80, flowinfo: 0, scope_id: 2 };
    let six = raw(&six);
    let tcp6 = socket(libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_TCP);
    let device = option(libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"eth0");
    // IPT_SO_SET_REPLACE
    let tables = option(libc::IPPROTO_IP, 64, &[0; 16]);
    vec![
        ("bind-port-80", scene(MEMBER, bind(inet(80)), udp())),
        ("bind-port-81", scene(MEMBER, bind(inet(81)), udp())),
        ("bind-other-family", scene(ROOT, bind(six.clone()), udp())),
        ("bind-with-interface", scene(ROOT, bind(six), tcp6.clone())),
        ("bind-netlink", scene(MEMBER, bind(netlink_address(0)), route())),
        ("bind-netlink-group", scene(MEMBER, bind(netlink_address(1)), route())),
        (
            "connect-netlink",
            scene(MEMBER, Request::Connect { address: netlink_address(0) }, route()),
        ),
        ("connect-inet", scene(ROOT, Request::Connect { address: inet(80) }, tcp6.clone())),
        ("option-mark", scene(MEMBER, mark(), udp())),
        ("option-device", scene(MEMBER, device, tcp6)),
        ("option-index", scene(MEMBER, option(libc::IPPROTO_IP, 50, &2_u32.to_be_bytes()), udp())),
        ("option-with-pointer", scene(ROOT, tables, udp())),
        (
            "option-null",
            scene(
                ROOT,
                Request::SetOption { level: libc::SOL_SOCKET, name: 36, value: Value::Null(4) },
                udp(),
            ),
        ),
    ]
}

pub(crate) fn messages() -> Vec<Seed> {
    let forged = Request::Send {
        destination: None,
        flags: libc::MSG_OOB,
        control: vec![Control {
            level: libc::SOL_SOCKET,
            kind: libc::SCM_CREDENTIALS,
            data: vec![0; 12],
        }],
        data: vec![0; 16],
    };
    let routed = Socket {
        peer: Some(near()),
        options: vec![(libc::IPPROTO_IP, libc::IP_OPTIONS, vec![131, 7, 4, 10, 0, 0, 66])],
        ..udp()
    };
    let connected = Socket { peer: Some(near()), ..udp() };
    vec![
        ("send-marked", scene(MEMBER, marked(Some(10)), udp())),
        ("send-to-the-vault", scene(ROOT, marked(Some(66)), udp())),
        ("send-to-the-peer", scene(MEMBER, marked(None), connected)),
        ("send-routed", scene(ROOT, marked(None), routed)),
        ("send-forged-ids", scene(ROOT, forged, route())),
        ("send-get-link", scene(MEMBER, netlink(18), route())),
        ("send-set-link", scene(MEMBER, netlink(16), route())),
    ]
}

pub(crate) fn connections() -> Vec<Seed> {
    let elsewhere = |named| Scene { connection: named, ..scene(MEMBER, packet(), None) };
    let named = scene(MEMBER, packet(), None).connection;
    vec![
        ("no-socket", scene(MEMBER, mark(), None)),
        ("no-rule", scene(2000, packet(), None)),
        ("unknown-connection", elsewhere(Named { cookie: Some(7), ..named.clone() })),
        ("closed-connection", Scene { closed: vec![300], ..scene(MEMBER, packet(), None) }),
        ("hung-up", elsewhere(Named { is_hung_up: true, ..named.clone() })),
        ("other-principal", elsewhere(Named { uid: Some(ROOT), ..named.clone() })),
        ("no-peer", elsewhere(Named { uid: None, ..named.clone() })),
        ("file-as-connection", elsewhere(Named { cookie: None, ..named })),
    ]
}

/// Requests about sockets of other network namespaces. That of the client has the cookie 20.
pub(crate) fn networks() -> Vec<Seed> {
    let within = |network, mut scene: Scene| {
        scene.connection.network = Some(20);
        Scene { network, ..scene }
    };
    let named = |name: &str| SelectedNamespace::Named(name.to_owned());
    let of = |cookie, socket| Socket { network: cookie, ..socket };
    let own = |cookie, owner| Socket { network: cookie, owner: Some(owner), ..udp() };
    let priority = || option(libc::SOL_SOCKET, libc::SO_PRIORITY, &7_i32.to_ne_bytes());
    let all = || Request::Interfaces { query: InterfaceQuery::All };
    let tcp = || create(libc::AF_INET, libc::SOCK_STREAM, 0);
    let bind = || Request::Bind { address: inet(80) };
    let capture = |names: &[&str]| Request::Capture { capture: 1, order: order(names) };
    let (caller, lab1) = (|| SelectedNamespace::Caller, || named("lab1"));
    let raw = create(libc::AF_INET, libc::SOCK_RAW, 1);
    vec![
        ("caller-create", within(caller(), scene(MEMBER, tcp(), None))),
        ("caller-raw", within(caller(), scene(MEMBER, raw, None))),
        ("caller-packet", within(caller(), scene(MEMBER, packet(), None))),
        ("caller-is-here", Scene { network: caller(), ..scene(MEMBER, packet(), None) }),
        ("caller-unix", within(caller(), scene(MEMBER, create(libc::AF_UNIX, 1, 0), None))),
        ("caller-bind", within(caller(), scene(MEMBER, bind(), of(Some(20), udp())))),
        ("caller-option", within(caller(), scene(MEMBER, mark(), of(Some(20), udp())))),
        ("named-capture", within(lab1(), scene(MEMBER, capture(&["v0"]), None))),
        ("named-capture-of-root", within(lab1(), scene(ROOT, capture(&["v0"]), None))),
        ("caller-capture", within(caller(), scene(MEMBER, capture(&["eth0"]), None))),
        (
            "caller-capture-here",
            Scene { network: caller(), ..scene(MEMBER, capture(&["eth0"]), None) },
        ),
        ("named-packet", within(lab1(), scene(MEMBER, packet(), None))),
        ("named-option", within(lab1(), scene(MEMBER, mark(), of(Some(11), udp())))),
        ("named-option-of-other", within(lab1(), scene(MEMBER, mark(), of(Some(12), udp())))),
        ("named-denied", within(named("lab2"), scene(ROOT, packet(), None))),
        ("named-here", within(named("own"), scene(MEMBER, packet(), None))),
        ("named-gone", within(named("gone"), scene(ROOT, packet(), None))),
        ("named-path", within(named("../lab1"), scene(ROOT, packet(), None))),
        (
            "owned-create",
            within(SelectedNamespace::Passed, scene(MEMBER, tcp(), own(Some(30), MEMBER))),
        ),
        (
            "owned-by-another",
            within(SelectedNamespace::Passed, scene(MEMBER, tcp(), own(Some(30), ROOT))),
        ),
        (
            "owned-by-root",
            within(SelectedNamespace::Passed, scene(ROOT, tcp(), own(Some(30), ROOT))),
        ),
        (
            "owned-is-here",
            within(SelectedNamespace::Passed, scene(MEMBER, tcp(), own(Some(1), MEMBER))),
        ),
        ("owned-is-nothing", within(SelectedNamespace::Passed, scene(MEMBER, tcp(), None))),
        (
            "owned-option",
            within(SelectedNamespace::Passed, scene(MEMBER, priority(), own(Some(30), MEMBER))),
        ),
        (
            "owned-option-by-caller",
            within(caller(), scene(MEMBER, priority(), own(Some(30), MEMBER))),
        ),
        (
            "owned-interfaces",
            within(SelectedNamespace::Passed, scene(MEMBER, all(), own(Some(30), MEMBER))),
        ),
        ("named-interfaces", within(lab1(), scene(MEMBER, all(), None))),
        ("named-interfaces-denied", within(named("lab2"), scene(ROOT, all(), None))),
        ("callers-interfaces", within(caller(), scene(MEMBER, all(), None))),
        ("interfaces-here", scene(ROOT, all(), None)),
        ("unknown-network", within(caller(), scene(ROOT, mark(), of(Some(30), udp())))),
        ("network-of-nobody", within(caller(), scene(ROOT, mark(), of(None, udp())))),
    ]
}
