//! Sockets, names, interfaces and captures in network namespaces with a name and with a descriptor.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use sockbroker_client::asynchronous::Broker;
use sockbroker_client::{
    Address, AddressHints, CaptureRequest, Domain, Error, Netns, Protocol, Type,
};
use sockbroker_test_support::{Daemon, Start, binary, namespace};

use crate::setup::{connect, endpoint};

const POLICY: &str = r#"
version = 1

[[rule]]
name = "laboratory"
subject = { uids = [0] }
allow = ["create", "bind", "listen", "accept", "connect", "send", "receive", "option", "resolve", "interfaces",
         "capture", "handover"]
netns = ["lab1", "owned"]
"#;

/// A broker, and the namespace `lab1`, which has names in a file and the interfaces `lo` and `far0`.
fn laboratory() -> Daemon {
    let prepared = Start::new(binary::broker());
    let folder = prepared.folder().join("");
    let (networks, files) = (folder.join("netns"), folder.join("files"));
    fs::create_dir_all(files.join("lab1")).unwrap();
    fs::create_dir(&networks).unwrap();
    fs::write(files.join("lab1/hosts"), "127.0.0.1 gate.test gate\n").unwrap();
    for path in [&folder, &files, &files.join("lab1")] {
        fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let file = networks.join("lab1");
    fs::write(&file, "").unwrap();
    let steps = "ip link set lo up && ip link add far0 type veth peer name far1";
    let mut made = Command::new("unshare");
    made.arg(format!("--net={}", file.display())).args(["sh", "-c", steps]);
    assert!(made.status().unwrap().success());
    let section = format!(
        "[namespaces]\nfolders = [\"{}\"]\nfiles = \"{}\"\n",
        networks.display(),
        files.display()
    );
    prepared.section(&section).policy(POLICY).start()
}

/// A capture of datagrams to a port.
fn request() -> CaptureRequest {
    CaptureRequest::on("lo")
}

#[test]
fn namespace_with_a_name_has_sockets_names_and_interfaces() {
    binary::broker();
    namespace::inside("namespaces::namespace_with_a_name_has_sockets_names_and_interfaces", || {
        let daemon = laboratory();
        let broker = connect(&daemon);
        let lab = broker.namespace("lab1");
        assert_eq!(lab.netns().to_string(), "lab1");
        // Those of the broker are others.
        let here = broker.if_nameindex().unwrap();
        assert!(here.iter().all(|(_, name)| name != "far0"), "{here:?}");
        let names = lab.if_nameindex().unwrap();
        let index = lab.if_nametoindex("far0").unwrap();
        assert!(names.contains(&(index, "far0".to_owned())), "{names:?}");
        assert_eq!(lab.if_indextoname(index).unwrap(), "far0");
        let found = lab.getaddrinfo(Some("gate"), Some(80), AddressHints::default()).unwrap();
        assert_eq!(found[0].address, Address::host("127.0.0.1", 80));
        assert_eq!(lab.gethostbyname("gate").unwrap(), "127.0.0.1");
        assert_eq!(lab.gethostbyname_ex("gate").unwrap().name, "gate.test");
        assert_eq!(lab.gethostbyaddr("127.0.0.1").unwrap().name, "gate.test");
        assert_eq!(lab.getfqdn(Some("gate")).unwrap(), "gate.test");
        let service = lab.getnameinfo(Address::host("127.0.0.1", 80), 2).unwrap();
        assert_eq!(service, ("gate.test".to_owned(), "80".to_owned()));
        let listener = lab.create_server(("gate", 0)).unwrap();
        let port = listener.local_addr().unwrap().to_inet().unwrap().port();
        let client = lab.create_connection(("gate", port)).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.send_all(b"hello").unwrap();
        let mut buffer = [0; 5];
        assert_eq!(server.recv(&mut buffer).unwrap(), 5);
        // The same port is free where the test runs.
        std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        lab.socket(Domain::IPV4, Type::RAW, Protocol::ICMPV4).unwrap();
        lab.delegate(Domain::IPV4, Type::DGRAM, Protocol::DEFAULT, None).unwrap();
        let mut capture = lab.capture(request()).unwrap();
        let udp = lab.socket(Domain::IPV4, Type::DGRAM, Protocol::DEFAULT).unwrap();
        udp.send_to(b"captured", ("127.0.0.1", 9)).unwrap();
        let packet = capture.next().unwrap().unwrap();
        assert!(packet.data.ends_with(b"captured"), "{packet:?}");
        let missing = broker.namespace("lab2").if_nameindex().unwrap_err();
        assert!(missing.to_string().contains("netns = [\"lab2\"]"), "{missing}");
    });
}

#[test]
fn namespace_with_a_descriptor_is_used_by_every_call() {
    binary::broker();
    namespace::inside("namespaces::namespace_with_a_descriptor_is_used_by_every_call", || {
        let daemon = laboratory();
        let broker = connect(&daemon);
        // A user namespace of its own: the user of the test has made it.
        let steps = "ip link set lo up && ip link add far0 type veth peer name far1 && \
                     echo ready && read end";
        let mut made = Command::new("unshare");
        made.args(["--user", "--map-root-user", "--net", "sh", "-c", steps]);
        let mut made = made.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        made.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
        let file = File::open(format!("/proc/{}/ns/net", made.id())).unwrap();
        let lab = broker.namespace(OwnedFd::from(file));
        assert!(lab.if_nametoindex("far0").unwrap() > 1);
        let listener = lab.create_server(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        lab.create_connection(address).unwrap();
        let mut capture = lab.capture(request()).unwrap();
        let udp = lab.socket(Domain::IPV4, Type::DGRAM, Protocol::DEFAULT).unwrap();
        udp.send_to(b"captured", ("127.0.0.1", 9)).unwrap();
        assert!(capture.next().unwrap().unwrap().data.ends_with(b"captured"));
        let other = OwnedFd::from(File::open("/dev/null").unwrap());
        let error = broker.namespace(other).if_nameindex().unwrap_err();
        assert!(error.to_string().contains("another file"), "{error}");
        drop(made.stdin.take());
        made.wait().unwrap();
    });
}

#[test]
fn asynchronous_namespace_has_sockets_names_and_interfaces() {
    binary::broker();
    let test = "namespaces::asynchronous_namespace_has_sockets_names_and_interfaces";
    namespace::inside(test, || {
        let daemon = laboratory();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(use_asynchronously(&daemon));
    });
}

async fn use_asynchronously(daemon: &Daemon) {
    let broker = Broker::connect_to(&endpoint(daemon)).await.unwrap();
    let lab = broker.namespace("lab1");
    let index = lab.if_nametoindex("far0").await.unwrap();
    assert_eq!(lab.if_indextoname(index).await.unwrap(), "far0");
    let listener = lab.create_server(("gate", 0)).await.unwrap();
    let address = listener.local_addr().await.unwrap();
    let client = lab.create_connection(address).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    server.set_timeout(Some(Duration::from_mins(1))).await.unwrap();
    client.send_all(b"hello").await.unwrap();
    assert_eq!(server.recv(&mut [0; 5]).await.unwrap(), 5);
    // The namespace of the broker, in which this process has connected.
    let own = broker.namespace(Netns::caller());
    own.socket(Domain::IPV4, Type::STREAM, Protocol::DEFAULT).await.unwrap();
    let denied = broker.namespace("lab2").if_nameindex().await.unwrap_err();
    assert!(matches!(denied, Error::Denied { .. }), "{denied:?}");
}
