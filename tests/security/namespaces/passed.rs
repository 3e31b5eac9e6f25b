//! Network namespaces that clients pass, and interfaces in network namespaces.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use sockbroker_sys::namespace;
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::skip::skip;
use sockbroker_test_support::{Answer, LspClient, Start, User};

use super::fixture::{Pod, UDP, connection, cookie_of, create, make, run, start, with_one_process};
use crate::arena::{assert_denied, attacker, neighbour};

/// A process in a user and a network namespace that a user has made.
pub(super) struct Owned {
    process: Child,
    pub(super) network: File,
}

impl Owned {
    /// With the loopback interface up, and further steps; `None` if the system refuses such namespaces.
    pub(super) fn new(user: &User, steps: &str) -> Option<Self> {
        let script = format!("ip link set lo up && {steps} echo ready; read end");
        let mut command = Command::new("unshare");
        command.uid(user.uid()).gid(user.uid()).args(["--user", "--map-root-user", "--net"]);
        command.args(["sh", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().ok()?;
        let is_ready = process.stdout.as_mut()?.read_exact(&mut [0; 6]).is_ok();
        let network = File::open(format!("/proc/{}/ns/net", process.id()));
        let owned = network.map(|network| Self { process, network }).ok();
        owned.filter(|_| is_ready)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Calls a method for a network namespace that comes with the call.
fn call(client: &mut LspClient, method: &str, mut params: Value, network: &impl AsFd) -> Answer {
    params["netns"] = json!({"descriptor": 0});
    let descriptors = [network.as_fd()];
    client.call_with_parts(method, params, RequestParts::descriptors(&descriptors))
}

fn udp() -> Value {
    json!({"family": "AF_INET", "type": "SOCK_DGRAM"})
}

fn passed(options: fn(Start) -> Start, test: &str) {
    let broker = start(options);
    let Some(owned) = Owned::new(&attacker(), "") else {
        return skip("no user namespaces here", test);
    };
    let mut client = attacker().lsp(&broker);
    let made = call(&mut client, "socket.socket", udp(), &owned.network).handle();
    assert_ne!(cookie_of(&mut client, made), namespace::own_cookie().unwrap());
    // Port 81 takes a capability there, which the opener uses after it has judged the owner of the socket's namespace.
    client.call("socket.bind", json!([made, ["127.0.0.1", 81]])).result();
    let raw = json!({"family": "AF_INET", "type": "SOCK_RAW", "proto": 1});
    let denied = call(&mut client, "socket.socket", raw, &owned.network);
    assert_denied(&denied, "no rule", "netns = [\"owned\"]", "a raw socket");
    let server = json!({"address": ["127.0.0.1", 0]});
    let denied = call(&mut client, "socket.create_server", server, &owned.network);
    assert_denied(&denied, "no rule", "netns = [\"owned\"]", "a server");
    let listed = call(&mut client, "socket.if_nameindex", json!({}), &owned.network);
    assert_eq!(*listed.result(), json!([[1, "lo"]]));
    // Another user passes it, and gets nothing.
    let mut other = neighbour().lsp(&broker);
    for user in [&mut other, &mut broker.lsp()] {
        let fault = call(user, "socket.socket", udp(), &owned.network).fault();
        assert_eq!(fault.data.name.as_deref(), Some("EPERM"), "{fault:?}");
        assert!(fault.message.contains("does not belong to a user namespace"), "{fault:?}");
    }
    // Other files, and network namespaces of others.
    let elsewhere = std::thread::spawn(|| {
        namespace::enter_network().unwrap();
        File::open("/proc/thread-self/ns/net").unwrap()
    });
    let files = [
        ("/proc/self/ns/net", "EINVAL", "leave netns out"),
        ("/proc/self/ns/user", "EINVAL", "another file"),
        ("/proc/self/ns/mnt", "EINVAL", "another file"),
        ("/etc/passwd", "EINVAL", "another file"),
        ("/dev/null", "EINVAL", "another file"),
    ];
    for (path, errno, text) in files {
        let fault = call(&mut client, "socket.socket", udp(), &File::open(path).unwrap()).fault();
        assert_eq!(fault.data.name.as_deref(), Some(errno), "{path}: {fault:?}");
        assert!(fault.message.contains(text), "{path}: {fault:?}");
    }
    let fault = call(&mut client, "socket.socket", udp(), &elsewhere.join().unwrap()).fault();
    assert_eq!(fault.data.name.as_deref(), Some("EPERM"), "{fault:?}");
    let (end, _other) = UnixStream::pair().unwrap();
    let pidfd = sockbroker_sys::peer::process(end.as_fd()).unwrap();
    let fault = call(&mut client, "socket.socket", udp(), &pidfd).fault();
    assert!(fault.message.contains("another file"), "{fault:?}");
    let (pipe, _end) = std::io::pipe().unwrap();
    let fault = call(&mut client, "socket.socket", udp(), &pipe).fault();
    assert!(fault.message.contains("another file"), "{fault:?}");
    let none = json!({"family": "AF_INET", "netns": {"descriptor": 0}});
    assert_eq!(client.call("socket.socket", none).fault().data.kind, "descriptor");
    client.call("socket.close", json!([made])).result();
}

#[test]
fn a_passed_namespace_is_used_by_its_owner_alone() {
    let test = concat!(module_path!(), "::a_passed_namespace_is_used_by_its_owner_alone");
    run(test, move || passed(|start| start, test));
}

#[test]
fn a_broker_of_one_process_uses_a_passed_namespace_for_its_owner_alone() {
    let test = concat!(
        module_path!(),
        "::a_broker_of_one_process_uses_a_passed_namespace_for_its_owner_alone"
    );
    run(test, move || passed(with_one_process, test));
}

fn mounted(options: fn(Start) -> Start, test: &str) {
    let broker = start(options);
    let Some(owned) = Owned::new(&attacker(), "") else {
        return skip("no user namespaces here", test);
    };
    let mut client = attacker().lsp(&broker);
    let path = std::env::temp_dir().join(format!("sockbroker-mounted-{}", owned.process.id()));
    fs::write(&path, "").unwrap();
    let mount = |source: &str| {
        let status = Command::new("mount").args(["--bind", source]).arg(&path).status();
        assert!(status.unwrap().success(), "{source}");
        let file = File::open(&path).unwrap();
        let status = Command::new("umount").arg("--lazy").arg(&path).status();
        assert!(status.unwrap().success(), "{source}");
        file
    };
    let pid = owned.process.id();
    let network = mount(&format!("/proc/{pid}/ns/net"));
    let made = call(&mut client, "socket.socket", udp(), &network).handle();
    let own = namespace::own_cookie().unwrap();
    assert_ne!(cookie_of(&mut client, made), own);
    client.call("socket.close", json!([made])).result();
    for (name, errno, text) in [
        ("/proc/self/ns/net", "EINVAL", "leave netns out"),
        (&format!("/proc/{pid}/ns/user"), "EINVAL", "another file"),
        (&format!("/proc/{pid}/ns/uts"), "EINVAL", "another file"),
    ] {
        let fault = call(&mut client, "socket.socket", udp(), &mount(name)).fault();
        assert_eq!(fault.data.name.as_deref(), Some(errno), "{name}: {fault:?}");
        assert!(fault.message.contains(text), "{name}: {fault:?}");
    }
    // A file of `ip netns add` belongs to no user.
    make(&path);
    let systems = File::open(&path).unwrap();
    let fault = call(&mut client, "socket.socket", udp(), &systems).fault();
    assert_eq!(fault.data.name.as_deref(), Some("EPERM"), "{fault:?}");
    assert!(fault.message.contains("does not belong to a user namespace"), "{fault:?}");
    drop(systems);
    // The broker may still be closing its copy.
    assert!(Command::new("umount").arg("--lazy").arg(&path).status().unwrap().success());
    fs::remove_file(&path).unwrap();
}

#[test]
fn a_passed_namespace_is_recognised_where_its_file_is_mounted() {
    let test =
        concat!(module_path!(), "::a_passed_namespace_is_recognised_where_its_file_is_mounted");
    run(test, move || mounted(|start| start, test));
}

#[test]
fn a_broker_of_one_process_recognises_a_passed_namespace_where_its_file_is_mounted() {
    let test = concat!(
        module_path!(),
        "::a_broker_of_one_process_recognises_a_passed_namespace_where_its_file_is_mounted"
    );
    run(test, move || mounted(with_one_process, test));
}

fn interfaces(options: fn(Start) -> Start, test: &'static str) {
    let broker = start(options);
    let veth =
        "ip link add pod0 type veth peer name pod1 && ip address add 10.9.8.7/24 dev pod0 && ";
    let Some(stream) = connection(&broker, &attacker(), Pod::Plain, veth) else {
        return skip("no veth interfaces here", test);
    };
    let mut client = LspClient::over(stream);
    let own = json!({"netns": "caller"});
    let listed = client.call("socket.if_nameindex", own.clone()).result().clone();
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|entry| entry[1].clone()).collect();
    assert!(names.len() >= 3 && names[0] == "lo", "{names:?}");
    for entry in listed.as_array().unwrap() {
        let (index, name) = (&entry[0], &entry[1]);
        let by_name = json!({"if_name": name, "netns": "caller"});
        assert_eq!(client.call("socket.if_nametoindex", by_name).result(), index);
        let by_index = json!({"if_index": index, "netns": "caller"});
        assert_eq!(client.call("socket.if_indextoname", by_index).result(), name);
    }
    let missing = json!({"if_name": "pod9", "netns": "caller"});
    let fault = client.call("socket.if_nametoindex", missing).fault();
    assert_eq!(fault.message, "no interface with this name");
    let missing = json!({"if_index": 99_999, "netns": "caller"});
    let fault = client.call("socket.if_indextoname", missing).fault();
    assert_eq!(fault.data.name.as_deref(), Some("ENXIO"));
    // Requests about interfaces are those of the socket's namespace.
    let made = create(&mut client, UDP, "caller").handle();
    let index = json!([made, "SIOCGIFINDEX", "pod0"]);
    let found = client.call("socket.ioctl", index).result().clone();
    assert!(listed.as_array().unwrap().contains(&json!([found, "pod0"])), "{found} {listed}");
    // The broker's own are not granted.
    let denied = client.call("socket.if_nameindex", json!({}));
    assert_denied(&denied, "no rule", "allow = [\"interfaces\"]", "the broker's interfaces");
    let denied = client.call("socket.if_nameindex", json!({"netns": "lab1"}));
    assert_denied(&denied, "no rule", "netns = [\"lab1\"]", "interfaces of another");
}

#[test]
fn interfaces_are_those_of_the_namespace() {
    let test = concat!(module_path!(), "::interfaces_are_those_of_the_namespace");
    run(test, move || interfaces(|start| start, test));
}

#[test]
fn a_broker_of_one_process_lists_interfaces_of_the_namespace() {
    let test =
        concat!(module_path!(), "::a_broker_of_one_process_lists_interfaces_of_the_namespace");
    run(test, move || interfaces(with_one_process, test));
}

#[test]
fn pairs_are_only_made_in_the_namespace_of_the_broker() {
    let test = concat!(module_path!(), "::pairs_are_only_made_in_the_namespace_of_the_broker");
    run(test, || {
        let broker = start(|start| start);
        let stream = connection(&broker, &attacker(), Pod::Plain, "").unwrap();
        let mut client = LspClient::over(stream);
        let fault = client.call("socket.socketpair", json!({"netns": "caller"})).fault();
        assert_eq!(fault.data.name.as_deref(), Some("EAFNOSUPPORT"), "{fault:?}");
        assert!(fault.message.contains("leave netns out"), "{fault:?}");
        // A caller in the namespace of the broker means that one.
        let pair = client.call("socket.socketpair", json!({"netns": "lab1"}));
        assert_denied(&pair, "no rule", "netns = [\"lab1\"]", "a pair");
        let mut here = broker.lsp();
        let pair = here.call("socket.socketpair", json!({"netns": "caller"}));
        assert_eq!(pair.result().as_array().map(Vec::len), Some(2));
    });
}
