//! The policy of the opener's fuzz target, and what it grants, written a second time without the code of the opener.

use std::net::{IpAddr, Ipv4Addr};

use sockbroker_monitor::capture::Order;
use sockbroker_monitor::request::{Control, Value};
use sockbroker_policy::option::{OptionClass, class_of};
use sockbroker_proto::address::Address;
use sockbroker_proto::socket_spec::SocketSpec;
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::option::carries_pointer_or_descriptor;

use crate::fake_kernel::{Call, SOCK_PACKET, SOCK_TYPE_MASK, Sent, Socket};

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

/// Whether the rules grant a call to a user.
pub(crate) fn is_granted(uid: u32, socket: Option<&Socket>, call: &Call) -> bool {
    let spec = socket.map(Socket::spec_of);
    let is_member = uid == MEMBER;
    let has_rules = is_member || uid == ROOT;
    match call {
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
        Call::Capture(order) => has_rules && (!is_member || may_capture(order)),
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
