//! Sockets in the network namespaces of callers, and in named ones.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};
use sockbroker_sys::{interface, namespace};
use sockbroker_test_support::counts::CREATIONS;
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::skip::skip;
use sockbroker_test_support::{LspClient, Start, base64, until};

use super::fixture::*;
use crate::arena::{PROGRAM, assert_denied, attacker, neighbour};

/// A broker that starts without `CAP_SYS_ADMIN`.
fn without_administration(start: Start) -> Start {
    start.shell(
        "exec setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin --ambient-caps=-all \"$0\" \"$@\"",
    )
}

fn reports_the_missing_capability(options: fn(Start) -> Start) {
    let broker = start(|start| without_administration(options(start)));
    let mut client = LspClient::over(connection(&broker, &attacker(), Pod::Plain, "").unwrap());
    let fault = create(&mut client, UDP, "caller").fault();
    assert_eq!(fault.data.name.as_deref(), Some("EPERM"), "{fault:?}");
    assert!(fault.message.contains("lacks CAP_SYS_ADMIN or CAP_NET_ADMIN"), "{fault:?}");
    // The broker listens before it checks its capabilities, and serves later.
    let log = broker.log();
    let warnings: Vec<_> =
        log.lines().filter(|line| line.contains("rules with netns have")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("CAP_SYS_ADMIN"), "{log}");
    let broker = start(options);
    attacker().lsp(&broker).expect_service();
    let log = broker.log();
    assert!(!log.contains("rules with netns have"), "{log}");
}

#[test]
fn a_missing_capability_is_reported_at_the_start_and_by_calls() {
    let test =
        concat!(module_path!(), "::a_missing_capability_is_reported_at_the_start_and_by_calls");
    run(test, || {
        reports_the_missing_capability(|start| start);
        reports_the_missing_capability(with_one_process);
    });
}

#[test]
fn words_that_a_client_cannot_use_are_refused_with_those_that_it_can() {
    let test = concat!(
        module_path!(),
        "::words_that_a_client_cannot_use_are_refused_with_those_that_it_can"
    );
    run(test, || {
        let broker = start(|start| start);
        let mut client = attacker().lsp(&broker);
        for word in ["owned", "any", "lab*", "a/b"] {
            let fault = create(&mut client, UDP, word).fault();
            assert_eq!(fault.data.exception.as_deref(), Some("ValueError"), "{fault:?}");
            let part = "write \"caller\", a name of `ip netns list`, or {\"descriptor\": n}";
            assert!(fault.message.ends_with(part), "{fault:?}");
        }
    });
}

/// Pings, captures and serves port 80 in the caller's namespace, and tries what is outside.
fn use_own_namespace(stream: UnixStream) {
    let own = cookie(&stream);
    let mut client = LspClient::over(stream);
    let ping = create(&mut client, PING, "caller").handle();
    assert_eq!(cookie_of(&mut client, ping), own);
    let packet = create(&mut client, PACKET, "caller").handle();
    client.call("socket.bind", json!([packet, ["lo", 0x0800]])).result();
    // An echo request with number 1, and its checksum.
    let echo = base64([8, 0, 0xf7, 0xfe, 0, 0, 0, 1]);
    client.call("socket.sendto", json!([ping, echo, 0, ["127.0.0.1", 0]])).result();
    let answer = client.call("socket.recv", json!([packet, 128]));
    assert_eq!(answer.data()[14] >> 4, 4, "a packet of IPv4");
    let received = client.call("socket.recv", json!([ping, 128])).data();
    assert!(received[20] == 8 || received[20] == 0, "{received:?}");
    let listener = create(&mut client, TCP, "caller").handle();
    client.call("socket.bind", json!([listener, ["127.0.0.1", 80]])).result();
    client.call("socket.listen", json!([listener])).result();
    let marked = json!([listener, "SOL_SOCKET", "SO_MARK", 7]);
    client.call("socket.setsockopt", marked).result();
    let peer = create(&mut client, TCP, "caller").handle();
    client.call("socket.connect", json!([peer, ["127.0.0.1", 80]])).result();
    let accepted = client.call("socket.accept", json!([listener])).handle();
    assert_eq!(cookie_of(&mut client, accepted), own);
    client.call("socket.send", json!([accepted, base64("x")])).result();
    assert_eq!(client.call("socket.recv", json!([peer, 9])).data(), b"x");
    let copy = client.call("socket.dup", json!([peer])).handle();
    assert_eq!(client.call("socket.getpeername", json!([copy])).result()[1], 80);
    let params = json!({"address": ["127.0.0.1", 0], "netns": "caller"});
    let server = client.call("socket.create_server", params).handle();
    let port = client.call("socket.getsockname", json!([server])).result()[1].clone();
    let by_name = json!({"address": ["localhost", port], "netns": "caller"});
    let fault = client.call("socket.create_connection", by_name).fault();
    assert!(fault.message.contains("use an address"), "{fault:?}");
    let params = json!({"address": ["127.0.0.1", port], "netns": "caller", "timeout": 120});
    let connected = client.call("socket.create_connection", params).handle();
    assert_eq!(cookie_of(&mut client, connected), own);
    // Not by a name, and not outside.
    let named = client.call("socket.connect", json!([listener, ["localhost", 80]])).fault();
    assert!(named.message.contains("use an address"), "{named:?}");
    let lab = create(&mut client, TCP, "lab1");
    assert_denied(&lab, "no rule", "netns = [\"lab1\"]", "a named namespace");
    for (family, kind, proto) in [PING, PACKET] {
        let answer = client.call("socket.socket", json!([family, kind, proto]));
        assert_denied(&answer, "no rule", "SOCK_RAW", "the broker's namespace");
    }
    let here = client.call("socket.socket", json!(["AF_INET", "SOCK_STREAM"])).handle();
    let answer = client.call("socket.bind", json!([here, ["127.0.0.1", 80]]));
    assert_denied(&answer, "no rule", "allow = [\"bind\"]", "the broker's namespace");
    let unix = create(&mut client, ("AF_UNIX", "SOCK_STREAM", 0), "caller").fault();
    assert_eq!(unix.data.name.as_deref(), Some("EAFNOSUPPORT"), "{unix:?}");
}

fn every_pod(options: fn(Start) -> Start) {
    let broker = start(options);
    for pod in [Pod::Plain, Pod::Rootless, Pod::Nested] {
        match connection(&broker, &attacker(), pod, "") {
            Some(stream) => use_own_namespace(stream),
            None => skip(&format!("no such namespaces here: {pod:?}"), "namespaces::every_pod"),
        }
    }
}

#[test]
fn a_client_without_privileges_pings_captures_and_serves_port_80_in_its_own_namespace() {
    let test = concat!(
        module_path!(),
        "::a_client_without_privileges_pings_captures_and_serves_port_80_in_its_own_namespace"
    );
    run(test, || every_pod(|start| start));
}

#[test]
fn a_broker_of_one_process_makes_sockets_in_the_namespace_of_the_caller() {
    let test = concat!(
        module_path!(),
        "::a_broker_of_one_process_makes_sockets_in_the_namespace_of_the_caller"
    );
    run(test, || every_pod(with_one_process));
}

#[test]
fn the_namespace_is_that_in_which_the_client_connected() {
    let test = concat!(module_path!(), "::the_namespace_is_that_in_which_the_client_connected");
    run(test, || {
        let broker = start(|start| start);
        let thread = std::thread::spawn(move || {
            namespace::enter_network().unwrap();
            interface::bring_up("lo").unwrap();
            let stream = attacker().connect(&broker);
            let own = cookie(&stream);
            // The thread moves on, and the connection does not.
            namespace::enter_network().unwrap();
            assert_ne!(namespace::own_cookie().unwrap(), own);
            let mut client = LspClient::over(stream);
            let made = create(&mut client, UDP, "caller").handle();
            assert_eq!(cookie_of(&mut client, made), own);
            let address = json!([made, ["127.0.0.1", 9]]);
            client.call("socket.connect", address).result();
        });
        thread.join().unwrap();
    });
}

#[test]
fn in_the_namespace_of_the_broker_the_caller_has_the_rights_of_rules_without_netns() {
    let test = concat!(
        module_path!(),
        "::in_the_namespace_of_the_broker_the_caller_has_the_rights_of_rules_without_netns"
    );
    run(test, || {
        let broker = start(|start| start);
        let mut client = attacker().lsp(&broker);
        create(&mut client, TCP, "caller").handle();
        let answer = create(&mut client, PING, "caller");
        assert_denied(&answer, "no rule", "SOCK_RAW", "raw");
        assert!(!answer.fault().data.grant.unwrap().contains("netns"));
    });
}

#[test]
fn sockets_of_two_namespaces_are_never_confused() {
    let test = concat!(module_path!(), "::sockets_of_two_namespaces_are_never_confused");
    run(test, || {
        let broker = start(|start| start);
        let mut clients = Vec::new();
        for user in [attacker(), attacker(), neighbour()] {
            let stream = connection(&broker, &user, Pod::Plain, "").unwrap();
            clients.push((cookie(&stream), LspClient::over(stream)));
        }
        let threads = clients.into_iter().map(|(own, mut client)| {
            std::thread::spawn(move || {
                for _ in 0..CREATIONS.get() {
                    let made = create(&mut client, UDP, "caller").handle();
                    assert_eq!(cookie_of(&mut client, made), own);
                    client.call("socket.close", json!([made])).result();
                }
            })
        });
        threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
    });
}

fn mount(what: &str, path: &Path) {
    fs::write(path, "").unwrap();
    let mounted = Command::new("mount").args(["--bind", what]).arg(path).status().unwrap();
    assert!(mounted.success());
}

fn names(options: fn(Start) -> Start) {
    let prepared = options(Start::new(PROGRAM));
    let folder = prepared.folder().join("netns");
    fs::create_dir(&folder).unwrap();
    for name in ["lab1", "lab2", "gone"] {
        make(&folder.join(name));
    }
    fs::write(folder.join("file"), "").unwrap();
    mount("/proc/self/ns/uts", &folder.join("uts"));
    mount("/proc/self/ns/user", &folder.join("user"));
    mount("/proc/self/ns/net", &folder.join("own"));
    assert!(Command::new("mkfifo").arg(folder.join("pipe")).status().unwrap().success());
    std::os::unix::fs::symlink("lab1", folder.join("link")).unwrap();
    let section = format!("[namespaces]\nfolders = [\"/nowhere\", \"{}\"]\n", folder.display());
    let broker = prepared.section(&section).policy(POLICY).start().open_to_all();
    let mut member = neighbour().lsp(&broker);
    let made = create(&mut member, UDP, "lab1").handle();
    assert_ne!(cookie_of(&mut member, made), namespace::own_cookie().unwrap());
    member.call("socket.bind", json!([made, ["127.0.0.1", 80]])).result();
    create(&mut member, PING, "lab1").handle();
    let faults: Value = [
        ("link", "EINVAL", "is not a network namespace"),
        ("file", "EINVAL", "is not a network namespace"),
        ("uts", "EINVAL", "is not a network namespace"),
        ("user", "EINVAL", "is not a network namespace"),
        ("pipe", "EINVAL", "is not a network namespace"),
        ("own", "EINVAL", "leave netns out"),
    ]
    .into_iter()
    .map(|(name, errno, part)| {
        let fault = create(&mut member, UDP, name).fault();
        assert_eq!(fault.data.name.as_deref(), Some(errno), "{name}: {fault:?}");
        assert!(fault.message.contains(part), "{name}: {fault:?}");
        assert!(fault.message.starts_with(&format!("socket: network namespace {name:?}: ")));
        json!(fault.message)
    })
    .collect();
    assert_eq!(faults.as_array().map(Vec::len), Some(6));
    let before = create(&mut member, UDP, "gone").handle();
    assert!(Command::new("umount").arg(folder.join("gone")).status().unwrap().success());
    fs::remove_file(folder.join("gone")).unwrap();
    let fault = create(&mut member, UDP, "gone").fault();
    assert_eq!(fault.data.name.as_deref(), Some("ENOENT"), "{fault:?}");
    assert!(fault.message.contains("ip netns list"), "{fault:?}");
    // A socket keeps its namespace, and its name is only that of the socket.
    member.call("socket.bind", json!([before, ["127.0.0.1", 1024]])).result();
    for name in ["", "..", ".", "a/b", "/etc/passwd", "lab1\0", "owned"] {
        let fault = create(&mut member, UDP, name).fault();
        assert_eq!(fault.data.exception.as_deref(), Some("ValueError"), "{name:?}: {fault:?}");
    }
    let denied = create(&mut member, UDP, "lab2");
    assert_denied(&denied, "not here", "netns = [\"lab2\"]", "lab2");
    let mut attacker = attacker().lsp(&broker);
    let denied = create(&mut attacker, UDP, "lab1");
    assert_denied(&denied, "no rule", "netns = [\"lab1\"]", "lab1");
    // Root has no rule for it.
    let denied = create(&mut broker.lsp(), UDP, "lab1");
    assert_denied(&denied, "no rule", "netns = [\"lab1\"]", "lab1");
}

#[test]
fn a_name_leads_to_a_network_namespace_of_a_folder_and_to_nothing_else() {
    let test = concat!(
        module_path!(),
        "::a_name_leads_to_a_network_namespace_of_a_folder_and_to_nothing_else"
    );
    run(test, || names(|start| start));
}

#[test]
fn a_broker_of_one_process_finds_namespaces_by_their_names() {
    let test = concat!(module_path!(), "::a_broker_of_one_process_finds_namespaces_by_their_names");
    run(test, || names(with_one_process));
}

#[test]
fn passed_sockets_are_judged_by_their_namespace() {
    let test = concat!(module_path!(), "::passed_sockets_are_judged_by_their_namespace");
    run(test, || {
        let broker = start(|start| start);
        let here = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = attacker().lsp(&broker);
        client.lend(&here.as_fd());
        let elsewhere = std::thread::spawn(|| {
            namespace::enter_network().unwrap();
            interface::bring_up("lo").unwrap();
            std::net::TcpListener::bind("127.0.0.1:0").unwrap()
        });
        let elsewhere = elsewhere.join().unwrap();
        let descriptors = [elsewhere.as_fd()];
        let parts = RequestParts::descriptors(&descriptors);
        let answer = client.call_with_parts("socket.fromfd", json!([0]), parts);
        assert_denied(
            &answer,
            "no rule",
            "allow = [\"adopt\"]",
            "a socket of an unknown namespace",
        );
        assert!(answer.fault().message.contains("in an unknown network namespace"));
    });
}

/// Pings by the Python package.
const PYTHON: &str = r#"
import sockbroker
from sockbroker import socket
with sockbroker.namespace("caller").socket(socket.AF_INET, socket.SOCK_RAW, 1) as ping:
    ping.settimeout(60)
    ping.sendto(bytes([8, 0, 0xf7, 0xfe, 0, 0, 0, 1]), ("127.0.0.1", 0))
    assert ping.recv(128)[20] in (0, 8)
for wrong, kind in (("", ValueError), ("a/b", ValueError), (".x", ValueError), ("owned", ValueError), (None, TypeError)):
    try:
        sockbroker.namespace(wrong)
    except kind:
        pass
    else:
        raise AssertionError(wrong)
try:
    sockbroker.namespace("caller").socket(socket.AF_UNIX)
except OSError as error:
    assert error.errno == 97 and "leave netns out" in str(error), error
else:
    raise AssertionError("AF_UNIX")
try:
    sockbroker.namespace("nowhere").socket()
except OSError as error:
    assert "nowhere" in str(error), error
else:
    raise AssertionError("granted")
"#;

#[test]
fn a_python_program_pings_in_its_own_namespace() {
    let test = concat!(module_path!(), "::a_python_program_pings_in_its_own_namespace");
    run(test, || {
        let broker = start(|start| start);
        let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/python/src");
        for mode in ["direct", "mediated", "remote"] {
            let mut command = Command::new("unshare");
            // A raw socket takes a capability that the program does not have.
            let script = "ip link set lo up && exec setpriv --bounding-set=-all --inh-caps=-all python3 -B -c \"$0\"";
            command.args(["--net", "sh", "-c", script, PYTHON]).env("PYTHONPATH", &package);
            command.env("SOCKBROKER_MODE", mode).env("SOCKBROKER", broker.socket());
            let output = command.output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{mode}: {errors}");
        }
    });
}

#[test]
fn the_namespace_of_a_client_ends_with_its_last_connection() {
    let test = concat!(module_path!(), "::the_namespace_of_a_client_ends_with_its_last_connection");
    run(test, move || {
        let broker = start(|start| start);
        let veth = "ip link add far type veth peer name near netns $PPID && ";
        // The parent of the shell is this process.
        let Some(stream) = connection(&broker, &attacker(), Pod::Plain, veth) else {
            return skip("no veth interfaces here", test);
        };
        let exists = || interface::index_of("near").is_ok();
        let mut client = LspClient::over(stream);
        client.call("session.open", json!([3600])).result();
        for spec in [PING, PACKET, UDP, TCP] {
            create(&mut client, spec, "caller").handle();
        }
        let here = client.call("socket.socket", json!(["AF_INET", "SOCK_STREAM"])).handle();
        assert!(here > 0 && exists());
        let ended = Instant::now();
        drop(client);
        until("the interface is gone", || !exists());
        println!("the interface of an ended client was gone after {:?}", ended.elapsed());
    });
}
