//! Inputs of earlier calls that affect later ones through the state of the socket. The earlier calls are allowed,
//! then the policy is reloaded.

use std::fs::{self, File};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use serde_json::{Value, json};
use sockbroker_proto::address::Address;
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::socket;
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::{base64, mount};

use super::{Answers, EVERYTHING, header6, ip, routing_header};
use crate::arena::Arena;

const RULES: &str = r#"
[[rule]]
name = "not the neighbour"
subject = { uids = [4200001] }
deny = ["connect", "send", "receive", "option", "spoof"]
remote = ["10.99.0.66", "fd99::66"]
[[rule]]
name = "not on the lan"
subject = { uids = [4200001] }
deny = ["capture"]
interface = ["lan0"]
[[rule]]
name = "nothing by the agent"
subject = { uids = [4200001] }
deny = ["send"]
path = ["/run/alias"]
[[rule]]
name = "no datagrams by files"
subject = { uids = [4200001] }
deny = ["connect", "send"]
type = ["SOCK_DGRAM"]
path = ["/run/real"]
[[rule]]
name = "no links"
subject = { uids = [4200001] }
deny = ["send"]
family = ["AF_NETLINK"]
netlink = ["link"]
[[rule]]
name = "questions"
subject = { uids = [4200001] }
allow = ["send"]
family = ["AF_NETLINK"]
netlink = ["get", "peer"]
"#;

/// Runs `body` under a policy that allows everything.
fn before(arena: &mut Arena, body: impl FnOnce(&mut Arena)) {
    let policy = arena.broker.folder().join("policy.toml");
    let strict = fs::read_to_string(&policy).unwrap();
    super::load(arena, EVERYTHING);
    body(arena);
    super::load(arena, &strict);
}

fn nonblocking(arena: &mut Arena) -> u64 {
    let tcp = arena.tcp();
    arena.does("settimeout", json!([tcp, 0]));
    tcp
}

/// Adds a network whose other end drops all packets, so that nothing answers.
fn silent_neighbour() {
    ip("neighbour add 10.99.0.66 lladdr 02:00:00:00:00:66 dev lan0");
    ip("neighbour add 10.99.0.67 lladdr 02:00:00:00:00:67 dev lan0");
}

const NEIGHBOUR: [(&str, u16); 2] = [("10.99.0.66", 9), ("10.99.0.67", 9)];

rows! { RULES;
    connection_under_way: "`connect` while another one is under way: `EALREADY`, the first one counts (`__inet_stream_connect`)", "not the neighbour", |arena| {
        silent_neighbour();
        let tcp = nonblocking(arena);
        before(arena, |arena| {
            let [first, second] = NEIGHBOUR.map(|to| arena.does("connect_ex", json!([tcp, to])));
            assert_eq!((first, second), (json!(libc::EINPROGRESS), json!(libc::EALREADY)));
        });
        vec![arena.tries("send", json!([tcp, "aGk="])), arena.tries("recv", json!([tcp, 9]))]
    };
    connection_of_fast_open: "`MSG_FASTOPEN`: the connection that it began", "not the neighbour", |arena| {
        silent_neighbour();
        let tcp = nonblocking(arena);
        before(arena, |arena| {
            let sent = arena.tries("sendto", json!([tcp, "aGk=", "MSG_FASTOPEN", NEIGHBOUR[0]]));
            assert_eq!(sent.fault().errno(), "EINPROGRESS");
        });
        vec![arena.tries("send", json!([tcp, "aGk="])), arena.tries("recv", json!([tcp, 9]))]
    };
    route_of_later_messages: "`IP_OPTIONS`: a source route that was set before", "not the neighbour", |arena| {
        let udp = arena.udp();
        let route = base64([131, 7, 4, 10, 99, 0, 66, 0]);
        before(arena, |arena| {
            arena.does("setsockopt", json!([udp, "IPPROTO_IP", "IP_OPTIONS", route]));
        });
        arena.sends(udp, &json!(["10.99.0.67", 9]), &json!([]))
    };
    extension_header_of_a_packet: "`IPV6_HDRINCL`: a routing header behind the packet's own header", "not the neighbour", |arena| {
        let raw = arena.socket(json!(["AF_INET6", "SOCK_RAW", "IPPROTO_RAW"]));
        let packet = [header6("fd99::5", libc::IPPROTO_ROUTING), routing_header("fd99::66")].concat();
        let behind = [header6("fd99::5", libc::IPPROTO_DSTOPTS), vec![43, 0, 1, 4, 0, 0, 0, 0], routing_header("fd99::66")].concat();
        [packet, behind].iter().map(|packet| arena.tries("sendto", json!([raw, base64(packet), 0, ["fd99::5", 0]]))).collect()
    };
    extension_header_as_data: "a raw socket whose protocol is an extension header: a route in the data", "not the neighbour", |arena| {
        let raw = arena.socket(json!(["AF_INET6", "SOCK_RAW", 43]));
        let data = base64(routing_header("fd99::66"));
        vec![
            arena.tries("sendto", json!([raw, data, 0, ["fd99::5", 0]])),
            arena.tries("sendmsg", json!([raw, [data], [], 0, ["fd99::5", 0]])),
        ]
    };
    protocol_of_an_earlier_bind: "`bind` of a packet socket without a protocol: that of the `bind` before (`packet_do_bind`)", "not on the lan", |arena| {
        let packet = arena.socket(json!(["AF_PACKET", "SOCK_RAW", 0]));
        let everything = json!([packet, ["lo", 3]]);
        arena.does("bind", everything);
        vec![arena.tries("bind", json!([packet, ["lan0", 0]]))]
    };
    capture_from_everywhere: "a packet socket that is bound to no interface captures from all", "not on the lan", |arena| {
        let packet = arena.socket(json!(["AF_PACKET", "SOCK_RAW", 0]));
        // struct sockaddr_ll: ETH_P_ALL, no interface.
        let nowhere = [&[0, 3][..], &[0; 16]].concat();
        vec![
            arena.tries("recv", json!([packet, 99])),
            arena.tries("bind", json!([packet, { "family": 17, "base64": base64(nowhere) }])),
            arena.tries("socket", json!(["AF_PACKET", "SOCK_RAW", 0x300])),
        ]
    };
    groups_of_netlink: "groups of a netlink address: the kernel has the message as well (`netlink_sendmsg`)", "no links", |arena| {
        let netlink = arena.socket(json!(["AF_NETLINK", "SOCK_RAW", 0]));
        let change = [&32_u32.to_ne_bytes()[..], &16_u16.to_ne_bytes(), &5_u16.to_ne_bytes(), &[0; 24]];
        let change = base64(change.concat());
        vec![arena.tries("sendto", json!([netlink, change, 0, [0, 1 << 29]]))]
    };
    file_of_an_earlier_connect: "a rule about `send` alone: the file that `connect` led to", "nothing by the agent", |arena| {
        let receiver = files();
        let datagram = arena.socket(json!(["AF_UNIX", "SOCK_SEQPACKET"]));
        let file = json!([datagram, { "descriptor": 0 }]);
        arena.tries_with("connect", file, Path::new("/run/real/s")).result();
        drop(receiver);
        vec![arena.tries("send", json!([datagram, "aGk="]))]
    };
    other_name_of_a_type: "`SOCK_RAW` of `AF_UNIX` is `SOCK_DGRAM` (`unix_create`)", "no datagrams by files", |arena| {
        let _receiver = files();
        let raw = arena.socket(json!(["AF_UNIX", "SOCK_RAW"]));
        let file = json!([raw, { "descriptor": 0 }]);
        vec![arena.tries_with("connect", file, Path::new("/run/real/d"))]
    };
    file_without_a_name: "a file that was unlinked: it may have had any name", "no datagrams by files", |arena| {
        let _receiver = files();
        let datagram = arena.socket(json!(["AF_UNIX", "SOCK_DGRAM"]));
        let file = super::opened(Path::new("/run/real/d"));
        fs::remove_file("/run/real/d").unwrap();
        unlinked(arena, datagram, &file)
    };
}

fn unlinked(arena: &mut Arena, socket: u64, file: &File) -> Answers {
    let descriptors = [file.as_fd()];
    let parts = RequestParts::descriptors(&descriptors);
    let params: Value = json!([socket, { "descriptor": 0 }]);
    vec![arena.attacker.call_with_parts("socket.connect", params, parts)]
}

/// Creates two sockets in `/run/real`, to which `/run/alias` is a link.
fn files() -> (OwnedFd, UnixDatagram) {
    mount::empty(Path::new("/run")).unwrap();
    fs::create_dir("/run/real").unwrap();
    symlink("/run/real", "/run/alias").unwrap();
    let listener = socket::create(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0).unwrap();
    let at = RawAddress::encode(&Address::UnixPath(b"/run/real/s".to_vec()));
    socket::bind(listener.as_fd(), &at).unwrap();
    socket::listen(listener.as_fd(), 9).unwrap();
    let datagram = UnixDatagram::bind("/run/real/d").unwrap();
    for file in ["/run/real", "/run/real/s", "/run/real/d"] {
        fs::set_permissions(file, fs::Permissions::from_mode(0o777)).unwrap();
    }
    (listener, datagram)
}
