//! The policy of the opener's fuzz target, and what it grants, written a second time without the code of the opener.

use std::net::{IpAddr, Ipv4Addr};

use sockbroker_monitor::capture::Order;
use sockbroker_monitor::request::{Control, SelectedNamespace, Value};
use sockbroker_policy::option::{OptionClass, class_of};
use sockbroker_proto::address::Address;
use sockbroker_proto::socket_spec::SocketSpec;
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::option::carries_pointer_or_descriptor;

use crate::fake_kernel::{
    Call, NETWORKS, OWN_NETWORK, SOCK_PACKET, SOCK_TYPE_MASK, Scene, Sent, Socket,
};

/// Users of the policy. Root has the built-in rule, and others have no rule.
pub const ROOT: u32 = 0;
pub const MEMBER: u32 = 1000;
pub const NAMER: u32 = 1001;

pub(crate) const RULES: &str = r#"
version = 1

[[rule]]
name = "packet sockets"
subject = { uids = [1000] }
allow = ["create"]
family = ["AF_PACKET"]

[[rule]]
name = "ping"
subject = { uids = [1000] }
allow = ["create"]
family = ["AF_INET"]
type = ["SOCK_RAW"]
protocol = ["IPPROTO_ICMP"]

[[rule]]
name = "routes"
subject = { uids = [1000] }
allow = ["create", "bind", "connect", "send"]
family = ["AF_NETLINK"]
protocol = ["NETLINK_ROUTE"]
netlink = ["get"]

[[rule]]
name = "port 80"
subject = { uids = [1000] }
allow = ["bind"]
family = ["AF_INET"]
local = ["127.0.0.0/8"]
local_ports = ["80"]

[[rule]]
name = "marks"
subject = { uids = [1000] }
allow = ["option"]
family = ["AF_INET", "AF_INET6"]
option = ["mark", "scheduling"]

[[rule]]
name = "one interface"
subject = { uids = [1000] }
allow = ["option"]
family = ["AF_INET", "AF_INET6"]
option = ["bind-to-device"]
interface = ["eth0"]

[[rule]]
name = "marked datagrams"
subject = { uids = [1000] }
allow = ["send"]
family = ["AF_INET"]
remote = ["10.0.0.0/8"]

[[rule]]
name = "the caller's"
subject = { uids = [1000] }
allow = ["create"]
family = ["AF_INET"]
netns = ["caller"]

[[rule]]
name = "the caller's port 80"
subject = { uids = [1000] }
allow = ["bind"]
family = ["AF_INET"]
local_ports = ["80"]
netns = ["caller"]

[[rule]]
name = "a laboratory"
subject = { uids = [1000] }
allow = ["create", "option"]
option = ["mark"]
netns = ["lab1"]

[[rule]]
name = "an own one"
subject = { uids = [1000] }
allow = ["create", "option"]
family = ["AF_INET"]
option = ["scheduling"]
netns = ["owned"]

[[rule]]
name = "interfaces"
subject = { uids = [1000] }
allow = ["interfaces"]
netns = ["owned", "lab1"]

[[rule]]
name = "packets of the laboratory"
subject = { uids = [1000] }
allow = ["capture"]
protocol = ["IPPROTO_UDP"]
netns = ["lab1"]

[[rule]]
name = "not the second"
subject = { everyone = true }
deny = ["create", "bind", "connect", "send", "spoof", "option", "interfaces", "capture"]
netns = ["lab2"]

[[rule]]
name = "not the vault"
subject = { everyone = true }
deny = ["send", "spoof"]
remote = ["10.0.0.66"]

[[rule]]
name = "no second protocol"
subject = { everyone = true }
deny = ["create"]
family = ["AF_INET6"]

[[rule]]
name = "captures"
subject = { uids = [1000] }
allow = ["capture"]
interface = ["eth0"]
snaplen = 100

[[rule]]
name = "a name"
subject = { uids = [1001] }
allow = ["sethostname"]

[[rule]]
name = "another name"
subject = { uids = [0] }
deny = ["sethostname"]
"#;

const VAULT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 66);
const ETH0: u32 = 2;
const NETLINK: u16 = 16;

/// A network namespace other than the broker's.
struct Elsewhere<'a> {
    is_callers: bool,
    is_owned: bool,
    name: Option<&'a str>,
}

impl<'a> Elsewhere<'a> {
    /// The one with this cookie, as the scene knows it.
    fn of(scene: &'a Scene, cookie: u64) -> Self {
        let name = match &scene.network {
            SelectedNamespace::Broker | SelectedNamespace::Caller | SelectedNamespace::Passed => {
                None
            }
            SelectedNamespace::Named(name) => Some(name.as_str()),
        };
        let name = name.filter(|name| NETWORKS.contains(&(name, cookie)));
        let owner = scene.socket.as_ref().and_then(|socket| socket.owner);
        let is_owned = scene.network == SelectedNamespace::Passed && owner == Some(scene.uid);
        Self { is_callers: scene.connection.network == Some(cookie), is_owned, name }
    }
}

/// Whether the rules grant a call of a scene.
pub(crate) fn is_granted(scene: &Scene, call: &Call) -> bool {
    let (uid, socket) = (scene.uid, scene.socket.as_ref());
    let own = Some(OWN_NETWORK);
    match call {
        Call::Create(_) => {
            let is_own = match scene.network {
                SelectedNamespace::Broker => true,
                SelectedNamespace::Caller => scene.connection.network == own,
                SelectedNamespace::Named(_) | SelectedNamespace::Passed => false,
            };
            is_own && is_granted_here(uid, socket, call)
        }
        Call::CreateIn(OWN_NETWORK, _) | Call::Interfaces(OWN_NETWORK, _) => false,
        Call::CreateIn(cookie, spec) => {
            may_create_elsewhere(uid, &Elsewhere::of(scene, *cookie), *spec)
        }
        Call::Interfaces(cookie, _) => {
            let namespace = Elsewhere::of(scene, *cookie);
            uid == MEMBER && (namespace.is_owned || namespace.name == Some("lab1"))
        }
        Call::SetHostname(_) => is_granted_here(uid, socket, call),
        Call::Capture(None, _) => {
            let is_own = match scene.network {
                SelectedNamespace::Broker => true,
                SelectedNamespace::Caller => scene.connection.network == own,
                SelectedNamespace::Named(_) | SelectedNamespace::Passed => false,
            };
            is_own && is_granted_here(uid, socket, call)
        }
        Call::Capture(Some(cookie), order) => {
            let namespace = Elsewhere::of(scene, *cookie);
            uid == MEMBER && namespace.name == Some("lab1") && !order.promiscuous
        }
        Call::Bind(_) | Call::Connect(_) | Call::SetOption(..) | Call::Send(_) => {
            match socket.and_then(|socket| socket.network) {
                Some(OWN_NETWORK) => is_granted_here(uid, socket, call),
                Some(cookie) => {
                    let elsewhere = Elsewhere::of(scene, cookie);
                    socket.is_some_and(|socket| may_call_elsewhere(uid, &elsewhere, socket, call))
                }
                None => false,
            }
        }
    }
}

fn may_create_elsewhere(uid: u32, namespace: &Elsewhere<'_>, spec: SocketSpec) -> bool {
    let is_packet = spec.domain == libc::AF_PACKET
        || spec.domain == libc::AF_INET && spec.ty & SOCK_TYPE_MASK == SOCK_PACKET;
    let by_caller = namespace.is_callers && spec.domain == libc::AF_INET && !is_packet;
    let by_owner = namespace.is_owned && spec.domain == libc::AF_INET && !is_packet;
    let by_name = namespace.name == Some("lab1") && (!is_packet || spec.protocol == 0);
    ![libc::AF_UNIX, libc::AF_PPPOX].contains(&spec.domain)
        && namespace.name != Some("lab2")
        && uid == MEMBER
        && (by_caller || by_owner || by_name)
}

fn may_call_elsewhere(uid: u32, namespace: &Elsewhere<'_>, socket: &Socket, call: &Call) -> bool {
    let spec = socket.spec_of();
    if uid != MEMBER || namespace.name == Some("lab2") {
        return false;
    }
    let is_packet = spec.ty & SOCK_TYPE_MASK == SOCK_PACKET;
    match call {
        Call::Bind(address) => {
            let is_port = matches!(decode(address), Some(Address::Inet { port: 80, .. }));
            let is_inet = spec.domain == libc::AF_INET && !is_packet;
            namespace.is_callers && is_inet && is_port
        }
        Call::SetOption((level, name), _) if carries_pointer_or_descriptor(*level, *name) => false,
        Call::SetOption((level, name), _) => {
            let is_mark = class_of(spec.domain, *level, *name) == OptionClass::Mark;
            let is_inet = spec.domain == libc::AF_INET && !is_packet;
            let is_scheduling = class_of(spec.domain, *level, *name) == OptionClass::Scheduling;
            namespace.name == Some("lab1") && is_mark
                || namespace.is_owned && is_inet && is_scheduling
        }
        Call::Create(_)
        | Call::CreateIn(..)
        | Call::Connect(_)
        | Call::Send(_)
        | Call::Interfaces(..)
        | Call::Capture(..)
        | Call::SetHostname(_) => false,
    }
}

/// Whether the rules grant a call in the broker's network namespace to a user.
fn is_granted_here(uid: u32, socket: Option<&Socket>, call: &Call) -> bool {
    let spec = socket.map(Socket::spec_of);
    let is_member = uid == MEMBER;
    let has_rules = is_member || uid == ROOT;
    match call {
        Call::CreateIn(..) | Call::Interfaces(..) => false,
        Call::Create(spec) => {
            spec.domain != libc::AF_INET6 && has_rules && (!is_member || may_create(*spec))
        }
        Call::Bind(address) => {
            has_rules && (!is_member || spec.is_some_and(|spec| may_bind(spec, address)))
        }
        Call::Connect(_) => {
            let is_netlink = spec.is_some_and(|spec| spec.domain == libc::AF_NETLINK);
            is_netlink && has_rules && (!is_member || spec.is_some_and(is_route))
        }
        Call::SetOption((level, name), _) if carries_pointer_or_descriptor(*level, *name) => false,
        Call::SetOption(option, value) => {
            let may_set = |spec| may_set(spec, *option, value);
            has_rules && (!is_member || spec.is_some_and(may_set))
        }
        Call::Send(sent) => {
            is_harmless(sent)
                && has_rules
                && socket.is_some_and(|socket| may_send(socket, sent, is_member))
        }
        Call::SetHostname(_) => uid == NAMER,
        Call::Capture(_, order) => has_rules && (!is_member || may_capture(order)),
    }
}

fn may_capture(order: &Order) -> bool {
    let on_eth0 = order.interfaces.iter().all(|name| name == "eth0");
    on_eth0 && !order.interfaces.is_empty() && order.snaplen <= 100 && !order.promiscuous
}

fn may_bind(spec: SocketSpec, address: &[u8]) -> bool {
    match decode(address) {
        Some(Address::Netlink { groups, .. }) => is_route(spec) && groups == 0,
        Some(Address::Inet { host, port }) => {
            spec.domain == libc::AF_INET && host.is_loopback() && port == 80
        }
        // Too short for its groups: the kernel refuses it (`netlink_bind`).
        Some(Address::Opaque { family: NETLINK, .. }) => is_route(spec) && address.len() < 12,
        _ => false,
    }
}

fn is_route(spec: SocketSpec) -> bool {
    (spec.domain, spec.protocol) == (libc::AF_NETLINK, libc::NETLINK_ROUTE)
}

fn decode(bytes: &[u8]) -> Option<Address> {
    RawAddress::from_bytes(bytes).and_then(|raw| raw.decode(0))
}

fn may_create(spec: SocketSpec) -> bool {
    match (spec.domain, spec.ty & SOCK_TYPE_MASK) {
        (libc::AF_PACKET, _) | (libc::AF_INET, SOCK_PACKET) => spec.protocol == 0,
        (libc::AF_INET, libc::SOCK_RAW) => spec.protocol == libc::IPPROTO_ICMP,
        (libc::AF_NETLINK, _) => spec.protocol == libc::NETLINK_ROUTE,
        _ => false,
    }
}

fn may_set(spec: SocketSpec, (level, name): (i32, i32), value: &Value) -> bool {
    let value = match value {
        Value::Bytes(bytes) => bytes.as_slice(),
        Value::Null(_) => &[],
    };
    if ![libc::AF_INET, libc::AF_INET6].contains(&spec.domain) {
        return false;
    }
    match class_of(spec.domain, level, name) {
        OptionClass::Mark | OptionClass::Scheduling => true,
        OptionClass::BindToDevice if name == libc::SO_BINDTODEVICE && level == libc::SOL_SOCKET => {
            value.split(|byte| *byte == 0).next() == Some(b"eth0")
        }
        OptionClass::BindToDevice => {
            let index = value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
            index.is_some_and(|index| [ETH0, ETH0.to_be()].contains(&index))
        }
        _ => false,
    }
}

/// Whether a message does not wait, and neither passes descriptors nor claims ids.
fn is_harmless(sent: &Sent) -> bool {
    let ids_or_descriptors = sent.control.iter().any(|item| {
        item.level == libc::SOL_SOCKET
            && [libc::SCM_RIGHTS, libc::SCM_CREDENTIALS].contains(&item.kind)
    });
    sent.flags & libc::MSG_DONTWAIT != 0 && !sent.passes_descriptors && !ids_or_descriptors
}

fn may_send(socket: &Socket, sent: &Sent, is_member: bool) -> bool {
    let spec = socket.spec_of();
    if spec.domain == libc::AF_NETLINK {
        return !is_member || (is_route(spec) && is_reading(&sent.data));
    }
    // A destination is used in place of the peer.
    let end = sent.destination.as_deref().or(socket.peer.as_deref());
    let end = end.and_then(decode).as_ref().and_then(host);
    let is_near = matches!(end, Some(IpAddr::V4(host)) if host.octets()[0] == 10);
    let is_mark = |item: &Control| {
        let names = [libc::SO_MARK, libc::SO_PRIORITY, libc::SCM_TXTIME];
        item.level == libc::SOL_SOCKET && names.contains(&item.kind)
    };
    let may_mark = spec.domain == libc::AF_INET && is_near && sent.control.iter().all(is_mark);
    end != Some(VAULT.into()) && !leads_to_the_vault(socket) && (!is_member || may_mark)
}

/// Whether options of the socket route everything over the vault: `LSRR` or `SSRR` (RFC 791) with it as first host. The
/// kernel refuses an option that is longer than its value.
fn leads_to_the_vault(socket: &Socket) -> bool {
    let is_inet = [libc::AF_INET, libc::AF_INET6].contains(&socket.spec_of().domain);
    let is_options = |level, name| (level, name) == (libc::IPPROTO_IP, libc::IP_OPTIONS);
    let options = socket.options.iter().find(|(level, name, _)| is_options(*level, *name));
    is_inet
        && options.is_some_and(|(_, _, value)| {
            value.first_chunk::<7>().is_some_and(|[kind, length, _, host @ ..]| {
                let is_whole = (7..=value.len()).contains(&usize::from(*length));
                [131, 137].contains(kind) && is_whole && *host == VAULT.octets()
            })
        })
}

fn host(address: &Address) -> Option<IpAddr> {
    match address {
        Address::Inet { host, .. } => Some((*host).into()),
        Address::Inet6 { host, .. } => Some(IpAddr::V6(*host).to_canonical()),
        _ => None,
    }
}

/// Whether every message of netlink only reads: the types of `rtnetlink(7)` are in groups of new, delete, get, set.
fn is_reading(mut data: &[u8]) -> bool {
    const GET: u16 = 2;
    while let Some((header, _)) = data.split_first_chunk::<16>() {
        let [a, b, c, d, low, high, ..] = *header;
        let length = usize::try_from(u32::from_ne_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let kind = u16::from_ne_bytes([low, high]);
        if length < header.len() || length > data.len() || kind < 16 || kind % 4 != GET {
            return false;
        }
        data = data.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    data.is_empty()
}
