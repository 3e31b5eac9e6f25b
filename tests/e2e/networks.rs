//! Sockets of other network namespaces, which a client passes to the broker.

use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

use serde_json::json;
use sockbroker_sys::{interface, namespace as namespaces, socket};
use sockbroker_test_support::skip::skip;
use sockbroker_test_support::{base64, namespace};

use crate::broker::{broker, prepare};

/// Makes a pair of interfaces in the namespace of this thread; whether the kernel has them.
fn make_pair(name: &str, peer: &str) -> bool {
    let mut command = Command::new("ip");
    command.args(["link", "add", name, "type", "veth", "peer", "name", peer]);
    command.output().is_ok_and(|output| output.status.success())
}

/// A packet socket of a new namespace with the interfaces `far0` and `far1`; their indexes are those of
/// `near0` and `near1` in the broker's namespace.
fn packet_socket_from_elsewhere(test: &str) -> Option<OwnedFd> {
    let made = make_pair("near0", "near1");
    let there = std::thread::spawn(|| {
        namespaces::enter_network().unwrap();
        let made = make_pair("far0", "far1");
        (made, socket::create(libc::AF_PACKET, libc::SOCK_DGRAM, 0).unwrap())
    });
    let (made_there, socket) = there.join().unwrap();
    if !(made && made_there) {
        skip("no veth interfaces here", test);
        return None;
    }
    Some(socket)
}

#[test]
fn an_adopted_socket_names_the_interfaces_of_its_own_namespace() {
    let test = "networks::an_adopted_socket_names_the_interfaces_of_its_own_namespace";
    namespace::inside(test, || {
        let Some(socket) = packet_socket_from_elsewhere(test) else { return };
        let broker = broker();
        let mut client = broker.lsp();
        let handle = client.lend(&socket.as_fd());
        for name in ["far0", "far1"] {
            client.call("socket.bind", json!([handle, [name, 0]])).result();
            let address = client.call("socket.getsockname", json!([handle])).result().clone();
            assert_eq!(address[0], name, "{address}");
            let listed = client.call("session.handles", json!([])).result().clone();
            assert_eq!(listed[0]["local"][0], name, "{listed}");
        }
        let fault = client.call("socket.bind", json!([handle, ["near0", 0]])).fault();
        assert_eq!(fault.data.name.as_deref(), Some("ENODEV"));
        assert!(
            fault
                .message
                .contains("the interface \"near0\" does not exist here: socket.if_nameindex"),
            "{fault:?}"
        );
        let device = json!([handle, "SOL_SOCKET", "SO_BINDTODEVICE", base64("near0")]);
        let fault = client.call("socket.setsockopt", device).fault();
        assert!(
            fault
                .message
                .contains("the interface \"near0\" does not exist here: socket.if_nameindex"),
            "{fault:?}"
        );
        // Sockets of the broker's own namespace name the interfaces there.
        let own = client.call("socket.socket", json!(["AF_PACKET", "SOCK_DGRAM", 0]));
        let own = own.result()["handle"].clone();
        client.call("socket.bind", json!([own, ["near0", 0]])).result();
        let fault = client.call("socket.bind", json!([own, ["far0", 0]])).fault();
        assert_eq!(fault.data.name.as_deref(), Some("ENODEV"));
    });
}

#[test]
fn rules_judge_the_interfaces_of_the_namespace_that_the_socket_belongs_to() {
    const POLICY: &str = r#"
version = 1

[[rule]]
name = "not far"
subject = { everyone = true }
deny = ["bind", "option"]
interface = ["far0"]
"#;
    let test = "networks::rules_judge_the_interfaces_of_the_namespace_that_the_socket_belongs_to";
    namespace::inside(test, || {
        let Some(socket) = packet_socket_from_elsewhere(test) else { return };
        let broker = prepare().policy(POLICY).start();
        let mut client = broker.lsp();
        let handle = client.lend(&socket.as_fd());
        let fault = client.call("socket.bind", json!([handle, ["far0", 0]])).fault();
        assert_eq!((fault.kind().1, fault.data.rule.as_deref()), ("denied", Some("not far")));
        client.call("socket.bind", json!([handle, ["far1", 0]])).result();
        // PACKET_ADD_MEMBERSHIP with PACKET_MR_PROMISC: the index of `near0` is that of `far0` there.
        let mut watch = |name| {
            let index = interface::index_of(name).unwrap();
            let request = base64([index, 1, 0, 0].map(u32::to_ne_bytes).concat());
            client.call("socket.setsockopt", json!([handle, libc::SOL_PACKET, 1, request]))
        };
        let fault = watch("near0").fault();
        assert_eq!((fault.kind().1, fault.data.rule.as_deref()), ("denied", Some("not far")));
        watch("near1").result();
    });
}
