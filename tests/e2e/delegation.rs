//! Sockets without a handle: `socket.delegate` and `socket.apply`.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use sockbroker_sys::{option, socket};
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::skip::root_or_skip;
use sockbroker_test_support::user::{NOBODY, User};
use sockbroker_test_support::{Answer, Client as _, Folder, LspClient, bounded, namespace, until};

use crate::broker::{broker, limited, prepare};

fn apply(client: &mut LspClient, params: Value, descriptor: &OwnedFd) -> Answer {
    let descriptors = [descriptor.as_fd()];
    client.call_with_parts("socket.apply", params, RequestParts::descriptors(&descriptors))
}

fn handles(client: &mut LspClient) -> Value {
    client.call("session.info", Value::Null).result()["handles"].clone()
}

fn delegated(client: &mut LspClient, params: Value) -> OwnedFd {
    let mut answer = client.call("socket.delegate", params);
    assert_eq!(*answer.result(), json!(1));
    assert_eq!(answer.descriptors.len(), 1);
    answer.descriptors.remove(0)
}

#[test]
fn delegated_socket_is_what_was_asked_for_and_leaves_nothing_in_the_broker() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        handles(&mut client);
        let files = broker.idle_open_files();
        let default = delegated(&mut client, Value::Null);
        let spec = socket::spec_of(default.as_fd()).unwrap();
        assert_eq!((spec.domain, spec.ty), (libc::AF_INET, libc::SOCK_STREAM));
        assert!(!socket::is_nonblocking(default.as_fd()).unwrap());
        let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK;
        let other = delegated(&mut client, json!(["AF_INET6", kind, "IPPROTO_UDP"]));
        let spec = socket::spec_of(other.as_fd()).unwrap();
        assert_eq!((spec.domain, spec.ty, spec.protocol), (10, 2, 17));
        assert!(socket::is_nonblocking(other.as_fd()).unwrap());
        assert_eq!(handles(&mut client), 0);
        broker.wait_for_open_files(files);
        // The broker's emulation of SIO_RCVALL is a packet socket; the kernel refuses this spec.
        let fault = client.call("socket.delegate", json!(["AF_INET", "SOCK_RAW", 0])).fault();
        assert_eq!(fault.data.name.as_deref(), Some("EPROTONOSUPPORT"));
    });
}

#[test]
fn applied_calls_change_the_socket_and_the_broker_keeps_no_copy() {
    const TEST: &str = "delegation::applied_calls_change_the_socket_and_the_broker_keeps_no_copy";
    // In a process of its own: processes that other tests start have copies of its sockets until they execute.
    namespace::inside(TEST, || {
        let broker = broker();
        let mut client = broker.lsp();
        let bound: OwnedFd = UdpSocket::bind("127.0.0.1:0").unwrap().into();
        let port = UdpSocket::from(bound).local_addr().unwrap().port();
        // The port is free again as soon as the client has closed the socket of each round.
        for round in 0..50 {
            let made = socket::create(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
            let option = json!({ "level": "SOL_SOCKET", "optname": "SO_PRIORITY", "value": 5 });
            apply(&mut client, json!({ "option": option }), &made).result();
            apply(&mut client, json!({ "fd": 0, "bind": ["127.0.0.1", port] }), &made).result();
            let priority = option::get_int(made.as_fd(), libc::SOL_SOCKET, libc::SO_PRIORITY);
            assert_eq!(priority.unwrap(), 5);
            assert!(!socket::is_nonblocking(made.as_fd()).unwrap());
            let own = UdpSocket::from(made).local_addr().unwrap();
            assert_eq!(own.port(), port, "round {round}");
        }
        assert_eq!(handles(&mut client), 0);
    });
}

#[test]
fn failed_call_reports_the_kernels_error_and_closes_its_copy() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = json!(["127.0.0.1", taken.local_addr().unwrap().port()]);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let made = socket::create(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        let fault = apply(&mut client, json!({ "bind": address }), &made).fault();
        assert_eq!(fault.data.name.as_deref(), Some("EADDRINUSE"));
        assert_eq!(fault.data.call.as_deref(), Some("bind"));
        let theirs = OwnedFd::from(theirs);
        let option = json!({ "level": "SOL_SOCKET", "optname": 9999, "value": 1 });
        let fault = apply(&mut client, json!({ "option": option }), &theirs).fault();
        assert_eq!(fault.data.name.as_deref(), Some("ENOPROTOOPT"));
        drop(theirs);
        until("the broker closes its copy", || {
            ours.set_nonblocking(true).unwrap();
            std::io::Read::read(&mut &ours, &mut [0]).is_ok_and(|read| read == 0)
        });
        let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let fault = apply(&mut client, json!({ "bind": address }), &file).fault();
        assert_eq!(fault.data.name.as_deref(), Some("ENOTSOCK"));
    });
}

#[test]
fn wrong_parameters_are_refused_before_any_effect() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let made = socket::create(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        let option = json!({ "level": 1, "optname": 2, "value": 1 });
        let both = json!({ "bind": ["127.0.0.1", 0], "option": option });
        for params in [json!({}), both] {
            assert_eq!(apply(&mut client, params, &made).fault().code, -32602);
        }
        let name = |length| json!({ "program": { "name": "x".repeat(length), "pid": 1 } });
        let fault = client.call("socket.delegate", name(65)).fault();
        assert!(fault.message.contains("64 bytes"), "{}", fault.message);
        assert_eq!(client.call("socket.delegate", name(64)).descriptors.len(), 1);
        let fault = client.call("socket.apply", json!({ "bind": ["127.0.0.1", 0] })).fault();
        assert_eq!(fault.kind(), (4003, "descriptor"));
        // A connection without descriptors fails before the socket is created.
        let mut line = broker.ndjson();
        line.call("session.open", json!({ "descriptors": false })).result();
        assert_eq!(line.call("socket.delegate", Value::Null).fault().kind(), (4003, "descriptor"));
    });
}

#[test]
fn delegated_socket_counts_as_a_handle_during_the_call() {
    bounded(20, || {
        let broker = limited(&[("handles", 1)]);
        let mut client = broker.lsp();
        let _first = client.call("socket.socket", Value::Null).handle();
        let fault = client.call("socket.delegate", Value::Null).fault();
        assert_eq!(fault.data.limit.as_deref(), Some("handles"));
        let made = socket::create(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        let fault = apply(&mut client, json!({ "bind": ["127.0.0.1", 0] }), &made).fault();
        assert_eq!(fault.data.limit.as_deref(), Some("handles"));
    });
}

/// Binds a low port for another user, refuses another one, and audits both with the program.
#[test]
fn policy_judges_both_calls_and_the_audit_names_the_program() {
    const TEST: &str = "delegation::policy_judges_both_calls_and_the_audit_names_the_program";
    if !root_or_skip(TEST) {
        return;
    }
    namespace::inside_with_users(TEST, || {
        let folder = Folder::new();
        let path = folder.join("audit");
        let rules = format!(
            r#"
            version = 1
            [[rule]]
            name = "ports"
            subject = {{ uids = [{NOBODY}] }}
            allow = ["bind"]
            family = ["AF_INET"]
            type = ["SOCK_STREAM"]
            local_ports = ["80"]
            [[rule]]
            name = "sockets"
            subject = {{ uids = [{NOBODY}] }}
            allow = ["create"]
            family = ["AF_INET"]
            "#
        );
        let broker = prepare()
            .section(&format!("[audit]\nto = \"{}\"\n", path.display()))
            .policy(&rules)
            .start()
            .open_to_all();
        let user = User::nobody();
        let mut client = user.lsp(&broker);
        let made = socket::create(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        let bind = |port: u16| json!({ "bind": ["127.0.0.1", port], "program": { "name": "httpd", "pid": 4711 } });
        let fault = apply(&mut client, bind(81), &made).fault();
        assert_eq!(fault.kind(), (3000, "denied"));
        assert!(fault.data.grant.is_some_and(|grant| grant.contains("81")));
        apply(&mut client, bind(80), &made).result();
        // Nothing grants the transfer of a new socket.
        let fault = client.call("socket.delegate", Value::Null).fault();
        assert_eq!(fault.kind(), (3000, "denied"));
        assert!(fault.data.grant.is_some_and(|grant| grant.contains("handover")));
        until("the audit has the records", || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let records: Vec<Value> =
                text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            let has = |verdict: &str, verb: &str| {
                records.iter().any(|record| {
                    record["verdict"] == verdict
                        && record["verb"] == verb
                        && record["method"] == "socket.apply"
                        && record["program"] == "httpd"
                        && record["program_pid"] == 4711
                        && record["pid"].is_number()
                })
            };
            has("allowed", "bind") && has("denied", "bind")
        });
    });
}
