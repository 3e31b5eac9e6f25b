//! Finding a broker, connecting to it, starting it.

use std::io;
use std::process::Command;
use std::time::Duration;

use sockbroker_client::blocking::Broker;
use sockbroker_client::{Domain, Endpoint, Error, Protocol, Type, asynchronous};
use sockbroker_test_support::{Folder, binary, skip, until};

use crate::setup::{bounded, connect, daemon, endpoint};

fn spawn() -> Broker {
    let mut command = Command::new(binary::broker());
    command.arg("--stdio");
    Broker::spawn_command(command).unwrap()
}

#[test]
fn connect_error_names_the_endpoint_and_has_errno() {
    let folder = Folder::new();
    let missing = Endpoint::Unix(folder.join("none"));
    let error = Broker::connect_to(&missing).unwrap_err();
    assert!(error.to_string().contains(&missing.to_string()), "{error}");
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::NotFound);
    folder.write("file", "");
    let error = Broker::connect_to(&Endpoint::Unix(folder.join("file"))).unwrap_err();
    assert_eq!(error.errno(), Some(111), "{error}");
}

#[test]
fn private_broker_passes_descriptors_and_ends_with_its_owner() {
    bounded(20, || {
        let broker = spawn();
        let info = broker.session().unwrap();
        assert!(info.descriptors);
        let framing = broker.call("session.info", ()).unwrap()["framing"].clone();
        assert_eq!(framing, "lsp");
        let before = children();
        assert_eq!(before.len(), 1, "{before:?}");
        drop(broker);
        assert_eq!(children(), [0; 0]);
    });
}

/// The child processes of this thread.
fn children() -> Vec<u32> {
    let task = std::fs::read_to_string("/proc/thread-self/children").unwrap();
    task.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

#[test]
fn command_that_is_not_a_broker_is_an_error() {
    bounded(20, || {
        for words in [&["true"][..], &["echo", "hello"], &["sockbrokerd-that-is-not-there"]] {
            let words = words.iter().map(Into::into).collect();
            let error = Broker::connect_to(&Endpoint::Stdio(words)).unwrap_err();
            let expected = matches!(
                error,
                Error::Disconnected { .. } | Error::Protocol { .. } | Error::Connect { .. }
            );
            assert!(expected, "{error:?}");
        }
    });
}

#[test]
fn stdio_endpoint_starts_its_command_in_both_faces() {
    bounded(20, || {
        let endpoint = Endpoint::Stdio(vec![binary::broker().into(), "--stdio".into()]);
        let broker = Broker::connect_to(&endpoint).unwrap();
        assert_eq!(broker.getservbyname("http", None).unwrap(), 80);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let broker = asynchronous::Broker::connect_to(&endpoint).await.unwrap();
            assert_eq!(broker.getservbyname("http", None).await.unwrap(), 80);
        });
    });
}

#[test]
fn socket_of_a_dead_broker_stays_disconnected_after_a_restart() {
    bounded(20, || {
        let mut first = daemon();
        let old = connect(&first);
        let socket = old.create_server(("127.0.0.1", 0)).unwrap();
        let path = first.socket().to_owned();
        first.process().child.kill().unwrap();
        first.process().child.wait().unwrap();
        assert!(matches!(socket.local_addr(), Err(Error::Disconnected { .. })));
        let mut again = Command::new(binary::broker());
        again.arg("--socket").arg(&path);
        let _second = sockbroker_test_support::daemon::Process::spawn(again);
        let mut new = None;
        until("the successor serves", || {
            new = Broker::connect_to(&Endpoint::Unix(path.clone())).ok();
            new.is_some()
        });
        assert!(matches!(socket.local_addr(), Err(Error::Disconnected { .. })));
        assert!(new.unwrap().create_server(("127.0.0.1", 0)).is_ok());
        drop(first);
    });
}

#[test]
fn call_by_name_returns_json_and_typed_errors() {
    bounded(20, || {
        let daemon = daemon();
        let broker = connect(&daemon);
        assert_eq!(endpoint(&daemon), *broker.endpoint());
        let packed = broker.call("socket.inet_aton", ("127.0.0.1",)).unwrap();
        assert_eq!(packed, "fwAAAQ==");
        let error = broker.call("socket.nosuch", ()).unwrap_err();
        assert!(matches!(error, Error::Method { .. }), "{error:?}");
        let error = broker.call("socket.inet_aton", (1, 2)).unwrap_err();
        assert!(matches!(error, Error::Argument { .. }), "{error:?}");
        assert_eq!(broker.constants().unwrap().get("AF_INET6"), Some(&10));
        assert!(broker.limits().unwrap().contains_key("frame_bytes"));
    });
}

#[test]
fn websocket_and_http_carry_data_but_no_descriptors() {
    bounded(30, || {
        let daemon = daemon();
        let path = daemon.socket().to_owned();
        for endpoint in [Endpoint::WebSocket(path.clone()), Endpoint::Http(path)] {
            let broker = Broker::connect_to(&endpoint).unwrap();
            let (left, right) =
                broker.socketpair(Domain::UNIX, Type::STREAM, Protocol::DEFAULT).unwrap();
            let data: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
            let mut received = vec![0; data.len()];
            std::thread::scope(|scope| {
                scope.spawn(|| left.send_all(&data).unwrap());
                io::Read::read_exact(&mut &right, &mut received).unwrap();
            });
            assert!(received == data, "{endpoint}");
            let error = left.try_clone_fd().unwrap_err();
            assert!(matches!(error, Error::Descriptor { .. }), "{endpoint}: {error:?}");
            broker.set_call_timeout(Some(Duration::from_millis(50)));
            let error = right.recv(&mut [0]).unwrap_err();
            assert!(matches!(error, Error::Timeout { .. }), "{endpoint}: {error:?}");
            broker.set_call_timeout(None);
            assert!(right.local_addr().is_ok(), "{endpoint}");
            drop((left, right));
            until("both handles are closed", || broker.session().unwrap().handles == 0);
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let broker = asynchronous::Broker::connect_to(&endpoint).await.unwrap();
                let (left, right) =
                    broker.socketpair(Domain::UNIX, Type::STREAM, Protocol::DEFAULT).await.unwrap();
                left.send_all(b"text").await.unwrap();
                assert_eq!(right.recv(&mut [0; 9]).await.unwrap(), 4);
            });
        }
    });
}

#[test]
fn without_a_broker_the_error_names_every_socket_tried() {
    const MARK: &str = "SOCKBROKER_TEST_WITHOUT";
    if std::env::var_os(MARK).is_some() {
        let text = match Endpoint::find() {
            Err(error @ Error::Connect { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        };
        for part in
            ["/sockbroker.socket (", "unix:/run/sockbroker/socket (", "sockbrokerd --socket"]
        {
            assert!(text.contains(part), "{text}");
        }
        return;
    }
    if std::path::Path::new("/run/sockbroker/socket").exists() {
        let test = "endpoints::without_a_broker_the_error_names_every_socket_tried";
        return skip::skip("this machine runs a broker", test);
    }
    let folder = Folder::new();
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "endpoints::without_a_broker_the_error_names_every_socket_tried"]);
    again.env(MARK, "1").env("XDG_RUNTIME_DIR", folder.path()).env_remove("SOCKBROKER");
    let output = again.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn endpoint_in_the_environment_comes_first() {
    const MARK: &str = "SOCKBROKER_TEST_NAMED";
    if let Some(path) = std::env::var_os(MARK) {
        assert_eq!(Endpoint::find().unwrap(), Endpoint::Unix(path.into()));
        assert!(Broker::connect().unwrap().session().is_ok());
        return;
    }
    let daemon = daemon();
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "endpoints::endpoint_in_the_environment_comes_first"]);
    again.env(MARK, daemon.socket()).env("SOCKBROKER", endpoint(&daemon).to_string());
    let output = again.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn blocking_broker_attaches_to_a_session() {
    bounded(20, || {
        let daemon = daemon();
        let owner = connect(&daemon);
        let opened = owner.call("session.open", ()).unwrap();
        let token = opened["token"].as_str().unwrap();
        let other = Broker::attach_to(&endpoint(&daemon), token).unwrap();
        let socket = other.create_server(("127.0.0.1", 0)).unwrap();
        let session = opened["session"].clone();
        drop(session);
        assert_eq!(other.session().unwrap().handles, 1);
        drop(socket);
        let unknown = Broker::attach_to(&endpoint(&daemon), "unknown");
        assert!(matches!(unknown, Err(Error::Session { .. })), "{unknown:?}");
    });
}
