//! Netlink sockets in the network namespace of a caller: what they reach of other namespaces.

use serde_json::json;
use sockbroker_sys::interface;
use sockbroker_test_support::skip::skip;
use sockbroker_test_support::{LspClient, Start, base64};

use super::fixture::{Pod, connection, create, run};
use crate::arena::{PROGRAM, assert_denied, attacker};

const POLICY: &str = r#"
version = 1

[[rule]]
name = "own interfaces"
subject = { uids = [4200001] }
allow = ["create", "bind", "send", "receive", "option"]
family = ["AF_NETLINK"]
netlink = ["get", "link"]
netns = ["caller"]
"#;

const NETLINK: (&str, &str, i32) = ("AF_NETLINK", "SOCK_RAW", 0);
const SOL_NETLINK: i32 = 270;
const NETLINK_LISTEN_ALL_NSID: i32 = 8;

/// `struct nlattr` with its value.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap();
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// `struct nlmsghdr` and `struct ifinfomsg`, with attributes.
fn message(kind: u16, flags: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(32 + attributes.len()).unwrap();
    let header = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes()].concat();
    [&header, &[0; 24][..], attributes].concat()
}

#[test]
fn netlink_in_the_namespace_of_the_caller_does_not_reach_others() {
    let test =
        concat!(module_path!(), "::netlink_in_the_namespace_of_the_caller_does_not_reach_others");
    run(test, move || {
        let broker = Start::new(PROGRAM).policy(POLICY).start().open_to_all();
        // The parent of the shell is this process. The kernel gives this namespace the id 0 in that of the client.
        let veth = "ip link add far type veth peer name near netns $PPID && ip link >&2 && ";
        let Some(stream) = connection(&broker, &attacker(), Pod::Plain, veth) else {
            return skip("no veth interfaces here", test);
        };
        let mut client = LspClient::over(stream);
        let socket = create(&mut client, NETLINK, "caller").handle();
        client.call("socket.bind", json!([socket, [0, 0]])).result();
        let mut send = |bytes: &[u8]| client.call("socket.send", json!([socket, base64(bytes)]));
        let (new, get) = (libc::RTM_NEWLINK, libc::RTM_GETLINK);
        let (create_flags, dump) = (0x605, 0x301);
        let name = attribute(3, b"stray\0");
        let pid = attribute(19, &std::process::id().to_ne_bytes());
        let peer = attribute(1, &[&[0; 16][..], &name, &pid].concat());
        let pair = [attribute(1, b"veth\0"), attribute(2, &peer)].concat();
        let here = attribute(46, &0_u32.to_ne_bytes());
        for (what, bytes) in [
            ("a pair", message(new, create_flags, &attribute(18, &pair))),
            ("a list", message(get, dump, &here)),
            ("a new one", message(new, create_flags, &[here.clone(), pid, name].concat())),
        ] {
            assert_denied(&send(&bytes), "no rule", "netlink = [\"unknown\"]", what);
        }
        assert!(interface::index_of("stray").is_err());
        send(&message(get, dump, &[])).result();
        // Messages of this namespace.
        let option = json!([socket, SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, 1]);
        let denied = client.call("socket.setsockopt", option);
        assert_denied(&denied, "no rule", "option = [\"unknown\"]", "all namespaces");
    });
}
