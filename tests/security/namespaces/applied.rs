//! Calls on sockets that a client keeps itself: `socket.apply` is judged in the network namespace of the passed socket,
//! and `socket.delegate` in the selected one.

use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use serde_json::{Value, json};
use sockbroker_sys::namespace::NetworkNamespace;
use sockbroker_sys::{interface, namespace, option, socket};
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::{Answer, Daemon, LspClient, Start, User};

use super::fixture::{cookie, make, run, with_one_process};
use crate::arena::{PROGRAM, assert_denied, attacker, neighbour};

/// The user 1 has a rule for the broker's own namespace, and the user 2 one for its own.
const POLICY: &str = r#"
version = 1

[[rule]]
name = "here"
subject = { uids = [4200001] }
allow = ["create", "handover", "bind", "option"]
option = ["ordinary", "mark"]
handover = "unrevocable"

[[rule]]
name = "own namespace"
subject = { uids = [4200002] }
allow = ["create", "handover", "bind", "option"]
option = ["ordinary", "mark"]
handover = "unrevocable"
netns = ["caller"]

[[rule]]
name = "laboratory"
subject = { uids = [4200002] }
allow = ["create", "handover"]
family = ["AF_INET"]
netns = ["lab1"]

[[rule]]
name = "port of the laboratory"
subject = { uids = [4200002] }
allow = ["bind"]
local_ports = ["80"]
netns = ["lab1"]
"#;

fn broker(options: fn(Start) -> Start) -> Daemon {
    options(Start::new(PROGRAM)).policy(POLICY).start().open_to_all()
}

fn tcp() -> OwnedFd {
    socket::create(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap()
}

/// Runs in a network namespace of its own.
fn elsewhere<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    let inside = || {
        namespace::enter_network().unwrap();
        interface::bring_up("lo").unwrap();
        body()
    };
    thread::scope(|scope| scope.spawn(inside).join()).unwrap()
}

fn apply(client: &mut LspClient, passed: &impl AsFd, call: Value) -> Answer {
    let descriptors = [passed.as_fd()];
    client.call_with_parts("socket.apply", call, RequestParts::descriptors(&descriptors))
}

fn bind(client: &mut LspClient, passed: &impl AsFd, port: u16) -> Answer {
    apply(client, passed, json!({ "bind": ["127.0.0.1", port] }))
}

fn mark(client: &mut LspClient, passed: &impl AsFd) -> Answer {
    let option = json!({ "level": "SOL_SOCKET", "optname": "SO_MARK", "value": 7 });
    apply(client, passed, json!({ "option": option }))
}

fn port_of(passed: &OwnedFd) -> u16 {
    let bound = TcpListener::from(passed.try_clone().unwrap());
    bound.local_addr().unwrap().port()
}

fn mark_of(passed: &OwnedFd) -> i32 {
    option::get_int(passed.as_fd(), libc::SOL_SOCKET, libc::SO_MARK).unwrap()
}

/// The broker makes neither call on a socket.
fn assert_refused(client: &mut LspClient, passed: &OwnedFd, what: &str) {
    for port in [80, 8080] {
        let answer = bind(client, passed, port);
        assert_denied(&answer, "no rule", "allow = [\"bind\"]", what);
    }
    assert_denied(&mark(client, passed), "no rule", "allow = [\"option\"]", what);
    assert_eq!((port_of(passed), mark_of(passed)), (0, 0), "{what}");
}

fn assert_granted(client: &mut LspClient, passed: &OwnedFd) {
    mark(client, passed).result();
    bind(client, passed, 80).result();
    assert_eq!((port_of(passed), mark_of(passed)), (80, 7));
}

fn rules_without_netns(options: fn(Start) -> Start) {
    let broker = broker(options);
    let mut client = attacker().lsp(&broker);
    assert_refused(&mut client, &elsewhere(tcp), "a socket of a namespace that the client made");
    assert_granted(&mut client, &tcp());
    // The same from a connection that was made there.
    let user = attacker();
    let (stream, own) = elsewhere(|| (user.connect(&broker), tcp()));
    assert_eq!(cookie(&stream), cookie(&own));
    let mut inside = LspClient::over(stream);
    assert_refused(&mut inside, &own, "a socket of the client's namespace");
    // A new socket there needs a rule with netns as well.
    let delegated = inside.call("socket.delegate", json!({ "netns": "caller" }));
    assert_denied(&delegated, "no rule", "netns = [\"caller\"]", "the client's namespace");
    assert!(delegated.descriptors.is_empty());
}

#[test]
fn rules_without_netns_do_not_reach_sockets_of_other_namespaces() {
    let test =
        concat!(module_path!(), "::rules_without_netns_do_not_reach_sockets_of_other_namespaces");
    run(test, || {
        rules_without_netns(|start| start);
        rules_without_netns(with_one_process);
    });
}

fn rules_for_the_caller(options: fn(Start) -> Start) {
    let broker = broker(options);
    let user = neighbour();
    let (stream, own) = elsewhere(|| (user.connect(&broker), tcp()));
    let home = cookie(&stream);
    let mut client = LspClient::over(stream);
    assert_granted(&mut client, &own);
    assert_refused(&mut client, &elsewhere(tcp), "a socket of a third namespace");
    assert_refused(&mut client, &tcp(), "a socket of the broker's namespace");
    let raw = json!({ "type": "SOCK_RAW", "proto": "IPPROTO_ICMP", "netns": "caller" });
    let made = client.call("socket.delegate", raw);
    made.result();
    assert_eq!(cookie(&made.descriptors[0]), home);
    let raw = json!({ "type": "SOCK_RAW", "proto": "IPPROTO_ICMP" });
    let here = client.call("socket.delegate", raw);
    assert_denied(&here, "no rule", "allow = [\"create\"]", "the broker's namespace");
}

#[test]
fn rules_with_netns_caller_reach_the_namespace_of_the_client_alone() {
    let test = concat!(
        module_path!(),
        "::rules_with_netns_caller_reach_the_namespace_of_the_client_alone"
    );
    run(test, || {
        rules_for_the_caller(|start| start);
        rules_for_the_caller(with_one_process);
    });
}

fn rules_for_a_name(options: fn(Start) -> Start) {
    let prepared = options(Start::new(PROGRAM));
    let folder = prepared.folder().join("netns");
    std::fs::create_dir(&folder).unwrap();
    let lab1 = folder.join("lab1");
    make(&lab1);
    let section = format!("[namespaces]\nfolders = [\"{}\"]\n", folder.display());
    let broker = prepared.section(&section).policy(POLICY).start().open_to_all();
    let user: User = neighbour();
    let mut client = user.lsp(&broker);
    let inside = || {
        NetworkNamespace::of_file(&lab1).unwrap().enter().unwrap();
        tcp()
    };
    // The session does not know yet that it is in this namespace.
    let own = thread::scope(|scope| scope.spawn(inside).join()).unwrap();
    let early = bind(&mut client, &own, 80);
    assert_denied(&early, "no rule", "allow = [\"bind\"]", "a namespace without a name");
    let made = client.call("socket.delegate", json!({ "netns": "lab1" }));
    made.result();
    let made = &made.descriptors[0];
    assert_eq!(cookie(made), cookie(&own));
    let other = bind(&mut client, made, 81);
    assert_denied(&other, "no rule", "netns = [\"lab1\"]", "another port");
    assert_denied(&mark(&mut client, made), "no rule", "netns = [\"lab1\"]", "an option");
    bind(&mut client, made, 80).result();
    assert_eq!(port_of(made), 80);
    assert_refused(&mut client, &elsewhere(tcp), "a socket of a third namespace");
    // Another session does not know it.
    let fresh = bind(&mut user.lsp(&broker), made, 80);
    assert_denied(&fresh, "no rule", "allow = [\"bind\"]", "another session");
}

#[test]
fn a_delegated_socket_is_judged_by_the_name_of_its_namespace() {
    let test =
        concat!(module_path!(), "::a_delegated_socket_is_judged_by_the_name_of_its_namespace");
    run(test, || {
        rules_for_a_name(|start| start);
        rules_for_a_name(with_one_process);
    });
}
