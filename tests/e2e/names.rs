//! Name lookups: outside of the event loop, bounded by `resolver_jobs`, and cancellable.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use sockbroker_test_support::skip::skip;
use sockbroker_test_support::{Folder, HANG, bounded, namespace};

use crate::broker::{broker, limited};

/// A DNS server whose answers the test controls.
struct NameServer(UdpSocket);

impl NameServer {
    /// Replaces the name server of this namespace; returns `None` if that is not possible.
    fn new(folder: &Folder) -> Option<Self> {
        let files = [
            ("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:30 attempts:1\n"),
            ("/etc/nsswitch.conf", "hosts: dns\n"),
        ];
        for (path, text) in files {
            let ours = folder.write(path.rsplit('/').next()?, text);
            let mut mount = Command::new("mount");
            let mounted = mount.arg("--bind").arg(ours).arg(path).output().ok()?;
            if !mounted.status.success() || fs::read_to_string(path).ok()? != text {
                return None;
            }
        }
        let socket = UdpSocket::bind("127.0.0.1:53").ok()?;
        Some(Self(socket))
    }

    /// Returns the next question within a time: its first label, the message and the sender.
    fn question(&self, within: Duration) -> Option<(String, Vec<u8>, SocketAddr)> {
        self.0.set_read_timeout(Some(within)).unwrap();
        let mut packet = [0; 512];
        let (length, from) = self.0.recv_from(&mut packet).ok()?;
        let label = &packet[13..13 + usize::from(packet[12])];
        Some((String::from_utf8(label.to_vec()).unwrap(), packet[..length].to_vec(), from))
    }

    /// Answers that the name does not exist (RFC 1035, section 4.1.1).
    fn deny(&self, mut question: Vec<u8>, to: SocketAddr) {
        question[2] |= 0x80;
        question[3] = 0x83;
        self.0.send_to(&question, to).unwrap();
    }
}

const NOT_YET: Duration = Duration::from_millis(250);

fn lookup_parameters(name: &str) -> Value {
    json!({ "host": format!("{name}.example."), "port": 80, "family": "AF_INET" })
}

#[test]
fn lookups_over_resolver_jobs_wait_in_order() {
    let test = "names::lookups_over_resolver_jobs_wait_in_order";
    namespace::inside(test, move || {
        let folder = Folder::new();
        let Some(server) = NameServer::new(&folder) else {
            return skip("the name service cannot be replaced", test);
        };
        for limit in ["resolver_jobs", "resolver_jobs_per_user"] {
            look_ups_wait_for(limit, &server);
        }
    });
}

fn look_ups_wait_for(limit: &str, server: &NameServer) {
    let broker = limited(&[(limit, 2)]);
    let (mut client, mut other) = (broker.lsp(), broker.lsp());
    let ids =
        ["a", "b", "c", "d"].map(|name| client.send("socket.getaddrinfo", lookup_parameters(name)));
    let (first, second) = (server.question(HANG).unwrap(), server.question(HANG).unwrap());
    let mut names = [first.0.as_str(), second.0.as_str()];
    names.sort_unstable();
    assert_eq!(names, ["a", "b"]);
    assert!(server.question(NOT_YET).is_none(), "{limit} are 2");
    client.expect_service();
    other.expect_service();
    server.deny(first.1, first.2);
    let third = server.question(HANG).unwrap();
    assert_eq!(third.0, "c");
    assert!(server.question(NOT_YET).is_none());
    server.deny(second.1, second.2);
    server.deny(third.1, third.2);
    let fourth = server.question(HANG).unwrap();
    assert_eq!(fourth.0, "d");
    server.deny(fourth.1, fourth.2);
    for id in ids {
        let fault = client.answer(id).fault();
        assert_eq!(
            (fault.kind(), fault.data.name.as_deref()),
            ((2000, "gaierror"), Some("EAI_NONAME"))
        );
    }
}

#[test]
fn lookup_can_be_cancelled_while_running_and_while_waiting() {
    let test = "names::lookup_can_be_cancelled_while_running_and_while_waiting";
    namespace::inside(test, move || {
        let folder = Folder::new();
        let Some(server) = NameServer::new(&folder) else {
            return skip("the name service cannot be replaced", test);
        };
        let broker = limited(&[("resolver_jobs", 1)]);
        let mut client = broker.lsp();
        let handle = client.call("socket.socket", Value::Null).handle();
        let running = client.send("socket.connect", json!([handle, ["a.example.", 80]]));
        let question = server.question(HANG).unwrap();
        let waiting = client.send("socket.getaddrinfo", lookup_parameters("b"));
        let last = client.send("socket.getaddrinfo", lookup_parameters("c"));
        for id in [running, waiting] {
            client.cancel(id);
            assert_eq!(client.answer(id).fault().code, -32800);
        }
        // The handle accepts the next call immediately.
        assert_eq!(client.call("socket.shutdown", json!([handle, 2])).fault().errno(), "ENOTCONN");
        server.deny(question.1, question.2);
        let next = server.question(HANG).unwrap();
        assert_eq!(next.0, "c", "the cancelled lookup sends no question");
        server.deny(next.1, next.2);
        assert_eq!(client.answer(last).fault().code, 2000);
    });
}

#[test]
fn shutdown_does_not_wait_for_lookups() {
    let test = "names::shutdown_does_not_wait_for_lookups";
    namespace::inside(test, move || {
        let folder = Folder::new();
        let Some(server) = NameServer::new(&folder) else {
            return skip("the name service cannot be replaced", test);
        };
        let mut broker = limited(&[("drain_seconds", 1)]);
        let mut client = broker.lsp();
        client.send("socket.getaddrinfo", lookup_parameters("a"));
        server.question(HANG).unwrap();
        broker.process().terminate();
        assert!(broker.process().ends().success());
    });
}

#[test]
fn resolver_errors_match_python() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        for (params, name) in [
            (json!([null, null]), "EAI_NONAME"),
            (json!(["127.0.0.1", "no such service"]), "EAI_SERVICE"),
            (json!(["127.0.0.1", 80, 9999]), "EAI_FAMILY"),
            (json!(["::1", 80, "AF_INET"]), "EAI_ADDRFAMILY"),
            (json!(["127.0.0.1", 80, 0, 9999]), "EAI_SOCKTYPE"),
            (json!(["127.0.0.1", 80, 0, 0, 0, 1 << 20]), "EAI_BADFLAGS"),
            (json!(["x", 80, 0, 0, 0, "AI_NUMERICHOST"]), "EAI_NONAME"),
        ] {
            let fault = client.call("socket.getaddrinfo", params.clone()).fault();
            assert_eq!(
                (fault.kind(), fault.data.name.as_deref()),
                ((2000, "gaierror"), Some(name)),
                "{params}"
            );
            assert!(fault.data.errno.is_some_and(|errno| errno < 0));
        }
        let fault = client.call("socket.getaddrinfo", json!(["a\u{0}b", 80])).fault();
        assert_eq!(fault.exception(), "ValueError");
        let found =
            client.call("socket.getaddrinfo", json!([null, 80, 0, "SOCK_STREAM", 0, "AI_PASSIVE"]));
        let hosts: Vec<_> =
            found.result().as_array().unwrap().iter().map(|info| info[4][0].clone()).collect();
        assert!(hosts.contains(&json!("0.0.0.0")), "{hosts:?}");
    });
}
