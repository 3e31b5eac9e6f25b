//! The OpenRPC document, the method table and the calls agree, with parameters by position and by name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Map, Value, json};
use sockbroker_proto::api;
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::{Folder, LspClient, bounded};

use crate::broker::broker;

fn calls_on_rights() -> [(&'static str, Value); 4] {
    [
        ("session.restrict", json!({ "rules": ["a"], "filters": [{ "allow": ["create"] }] })),
        ("policy.check", json!({ "action": "create AF_PACKET SOCK_RAW" })),
        ("policy.wait", json!({ "generation": 0 })),
        ("policy.whoami", json!({})),
    ]
}

fn calls_on_captures() -> [(&'static str, Value); 7] {
    [
        ("capture.close", json!({ "handle": 1 })),
        (
            "capture.open",
            json!({
                "interfaces": ["nonexistent0"],
                "filter": "BgAAAAAAAAA=",
                "options": { "snaplen": 64 },
                "want_fd": false,
            }),
        ),
        ("capture.read", json!({ "handle": 1, "bufsize": 64 })),
        ("capture.replay", json!({ "handle": 1, "bytes": "", "options": { "speed": 0 } })),
        ("capture.set_filter", json!({ "handle": 1, "filter": "BgAAAAAAAAA=" })),
        ("capture.stats", json!({ "handle": 1 })),
        ("capture.stop", json!({ "handle": 1, "linger": 0 })),
    ]
}

/// Every method, with parameters by name. [`Fixture`] replaces strings that begin with `$`.
#[expect(clippy::too_many_lines, reason = "one table")]
fn calls() -> Vec<(&'static str, Value)> {
    let mut calls = calls_on_handles();
    calls.extend(calls_on_rights());
    calls.extend(calls_on_captures());
    calls.extend([
        ("admin.handles", json!({ "session": "$session" })),
        ("admin.reload", json!({})),
        ("admin.sessions", json!({})),
        ("broker.info", json!({})),
        ("call.resolve", json!({ "connection": 1_000_000, "request": 1 })),
        ("rpc.discover", json!({})),
        ("session.attach", json!({ "token": "$token", "attachments": false })),
        ("session.clone", json!({})),
        ("session.close", json!({})),
        ("session.handles", json!({})),
        ("session.info", json!({})),
        ("session.limits", json!({})),
        ("session.open", json!({ "linger": 1, "attachments": false })),
        ("session.open", json!({ "rules": ["a"], "filters": [{ "allow": ["create"] }] })),
        ("socket.CMSG_LEN", json!({ "length": 4 })),
        ("socket.CMSG_SPACE", json!({ "length": 4 })),
        ("socket.constants", json!({})),
        (
            "socket.create_connection",
            json!({ "address": "$address", "timeout": 2, "all_errors": true }),
        ),
        (
            "socket.create_server",
            json!({ "address": ["127.0.0.1", 0], "family": "AF_INET", "backlog": 5 }),
        ),
        ("socket.delegate", json!({ "type": "SOCK_DGRAM", "program": { "name": "p", "pid": 1 } })),
        (
            "socket.apply",
            json!({ "fd": 0, "option": { "level": 1, "optname": "SO_KEEPALIVE", "value": 1 } }),
        ),
        ("socket.fromfd", json!({ "fd": 0, "timeout": 2 })),
        ("socket.getaddrinfo", json!({ "host": "127.0.0.1", "port": 80, "type": "SOCK_STREAM" })),
        ("socket.getdefaulttimeout", json!({})),
        ("socket.getfqdn", json!({ "name": "127.0.0.1" })),
        ("socket.gethostbyaddr", json!({ "ip_address": "127.0.0.1" })),
        ("socket.gethostbyname", json!({ "hostname": "127.0.0.1" })),
        ("socket.gethostbyname_ex", json!({ "hostname": "127.0.0.1" })),
        ("socket.gethostname", json!({})),
        ("socket.getnameinfo", json!({ "sockaddr": ["127.0.0.1", 80], "flags": 3 })),
        ("socket.getprotobyname", json!({ "protocolname": "icmp" })),
        ("socket.getservbyname", json!({ "servicename": "http", "protocolname": "tcp" })),
        ("socket.getservbyport", json!({ "port": 80, "protocolname": "tcp" })),
        ("socket.has_dualstack_ipv6", json!({})),
        ("socket.htonl", json!({ "x": 1 })),
        ("socket.htons", json!({ "x": 1 })),
        ("socket.if_indextoname", json!({ "if_index": 1 })),
        ("socket.if_nameindex", json!({})),
        ("socket.if_nametoindex", json!({ "if_name": "lo" })),
        ("socket.inet_aton", json!({ "ip_string": "1.2.3.4" })),
        ("socket.inet_ntoa", json!({ "packed_ip": "AQIDBA==" })),
        ("socket.inet_ntop", json!({ "address_family": "AF_INET", "packed_ip": "AQIDBA==" })),
        ("socket.inet_pton", json!({ "address_family": "AF_INET", "ip_string": "1.2.3.4" })),
        ("socket.ntohl", json!({ "x": 1 })),
        ("socket.ntohs", json!({ "x": 1 })),
        ("socket.position", json!({ "handle": "$inet" })),
        ("socket.resume", json!({ "handle": "$inet", "received": 0 })),
        ("socket.poll", json!({ "fds": [["$right", "POLLIN"]], "timeout": 2 })),
        ("socket.setdefaulttimeout", json!({ "timeout": 2 })),
        // The kernel refuses this to everyone, so nothing changes.
        ("socket.sethostname", json!({ "name": "x".repeat(100) })),
        ("socket.socket", json!({ "family": "AF_INET", "type": "SOCK_DGRAM", "timeout": 2 })),
        ("socket.socketpair", json!({ "family": "AF_UNIX", "type": "SOCK_STREAM", "proto": 0 })),
    ]);
    calls
}

fn calls_on_handles() -> Vec<(&'static str, Value)> {
    let message = json!({ "buffers": ["aGk="] });
    vec![
        ("channel.open", json!({ "handle": "$left", "direction": "both" })),
        ("socket.accept", json!({ "handle": "$listener", "want_fd": false })),
        ("socket.attach_filter", json!({ "handle": "$left", "program": "BgAAAP////8=" })),
        ("socket.attributes", json!({ "handle": "$left" })),
        ("socket.bind", json!({ "handle": "$inet", "address": ["127.0.0.1", 0] })),
        ("socket.close", json!({ "handle": "$left" })),
        ("socket.connect", json!({ "handle": "$inet", "address": "$address" })),
        ("socket.connect_ex", json!({ "handle": "$inet", "address": "$address" })),
        ("socket.detach", json!({ "handle": "$left" })),
        ("socket.detach_filter", json!({ "handle": "$left" })),
        ("socket.dup", json!({ "handle": "$left", "want_fd": true })),
        ("socket.fileno", json!({ "handle": "$left" })),
        ("socket.get_inheritable", json!({ "handle": "$left" })),
        ("socket.getblocking", json!({ "handle": "$left" })),
        ("socket.getpeername", json!({ "handle": "$left" })),
        ("socket.getsockname", json!({ "handle": "$left" })),
        (
            "socket.getsockopt",
            json!({ "handle": "$left", "level": 1, "optname": "SO_TYPE", "buflen": 4 }),
        ),
        ("socket.gettimeout", json!({ "handle": "$left" })),
        ("socket.ioctl", json!({ "handle": "$inet", "control": "SIOCGIFMTU", "option": "lo" })),
        ("socket.listen", json!({ "handle": "$inet", "backlog": 5 })),
        ("socket.recv", json!({ "handle": "$right", "bufsize": 2, "flags": "MSG_PEEK" })),
        ("socket.recv_into", json!({ "handle": "$right", "nbytes": 2, "flags": 0 })),
        ("socket.recvfrom", json!({ "handle": "$right", "bufsize": 2, "flags": 0 })),
        ("socket.recvfrom_into", json!({ "handle": "$right", "nbytes": 2, "flags": 0 })),
        (
            "socket.recvmmsg",
            json!({ "handle": "$right", "vlen": 1, "bufsize": 2, "ancbufsize": 8, "flags": 0 }),
        ),
        (
            "socket.recvmsg",
            json!({ "handle": "$right", "bufsize": 2, "ancbufsize": 8, "flags": 0 }),
        ),
        ("socket.recvmsg_into", json!({ "handle": "$right", "buffers": [1, 1], "ancbufsize": 8 })),
        ("socket.send", json!({ "handle": "$left", "bytes": "aGk=", "flags": 0 })),
        ("socket.sendall", json!({ "handle": "$left", "bytes": "aGk=", "flags": 0 })),
        ("socket.sendfile", json!({ "handle": "$left", "file": 1, "offset": 1, "count": 2 })),
        ("socket.sendmmsg", json!({ "handle": "$left", "messages": [message], "flags": 0 })),
        (
            "socket.sendmsg",
            json!({ "handle": "$left", "buffers": ["aGk="], "ancdata": [], "flags": 0 }),
        ),
        ("socket.sendmsg_afalg", json!({ "handle": "$left", "op": 1 })),
        ("socket.sendto", json!({ "handle": "$inet", "bytes": "aGk=", "address": "$address" })),
        ("socket.set_inheritable", json!({ "handle": "$left", "inheritable": true })),
        ("socket.setblocking", json!({ "handle": "$left", "flag": true })),
        (
            "socket.setsockopt",
            json!({ "handle": "$left", "level": 1, "optname": "SO_SNDBUF", "value": 9000 }),
        ),
        ("socket.settimeout", json!({ "handle": "$left", "value": 2 })),
        ("socket.shutdown", json!({ "handle": "$left", "how": "SHUT_WR" })),
    ]
}

/// A connection with sockets in known states.
struct Fixture {
    client: LspClient,
    words: BTreeMap<&'static str, Value>,
    _peer: TcpStream,
}

impl Fixture {
    fn new(mut client: LspClient, token: &Value) -> Self {
        let (left, right) = client.pair();
        client.call("socket.send", json!([left, "aGk="])).result();
        client.call("socket.attach_filter", json!([left, "BgAAAP////8="])).result();
        let listener = client.call("socket.create_server", json!([["127.0.0.1", 0]])).handle();
        let address = client.call("socket.getsockname", json!([listener])).result().clone();
        let port = u16::try_from(address[1].as_u64().unwrap()).unwrap();
        let peer = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let inet = client.call("socket.socket", Value::Null).handle();
        let session = client.call("session.info", Value::Null).result()["session"].clone();
        let words = [
            ("$session", session),
            ("$left", json!(left)),
            ("$right", json!(right)),
            ("$listener", json!(listener)),
            ("$inet", json!(inet)),
            ("$address", address),
            ("$token", token.clone()),
        ];
        Self { client, words: words.into(), _peer: peer }
    }

    fn fill(&self, value: &Value) -> Value {
        match value {
            Value::String(word) => self.words.get(word.as_str()).unwrap_or(value).clone(),
            Value::Array(items) => items.iter().map(|item| self.fill(item)).collect(),
            Value::Object(members) => members
                .iter()
                .map(|(name, value)| (name.clone(), self.fill(value)))
                .collect::<Map<_, _>>()
                .into(),
            other => other.clone(),
        }
    }
}

/// Reduces an answer to its structure: without numbers and strings, and with equal list members merged, because
/// these differ between runs.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null | Value::Bool(_) => value.clone(),
        Value::Number(_) => json!("number"),
        Value::String(_) => json!("text"),
        Value::Array(items) => {
            let mut shapes: Vec<_> = items.iter().map(shape).collect();
            shapes.dedup_by(|one, other| one.is_object() && one == other);
            shapes.into()
        }
        Value::Object(members) if members.contains_key("code") => value.clone(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), shape(value)))
            .collect::<Map<_, _>>()
            .into(),
    }
}

#[test]
fn openrpc_document_method_table_and_committed_file_agree() {
    bounded(20, || {
        let reported = broker().lsp().call("rpc.discover", Value::Null).result().clone();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/openrpc.json");
        let committed: Value = serde_json::from_reader(File::open(path).unwrap()).unwrap();
        assert!(reported == committed, "rpc.discover differs from proto/openrpc.json");
        let methods = reported["methods"].as_array().unwrap();
        let named: BTreeSet<_> =
            methods.iter().map(|method| method["name"].as_str().unwrap()).collect();
        let table: BTreeSet<_> = sockbrokerd::handlers::methods().names().collect();
        assert_eq!(named, table);
        let tested: BTreeSet<_> = calls().into_iter().map(|(method, _)| method).collect();
        assert_eq!(named, tested);
    });
}

#[test]
fn methods_accept_parameters_by_position_and_by_name() {
    bounded(30, || {
        let broker = broker();
        let mut keeper = broker.lsp();
        let token = keeper.call("session.open", Value::Null).result()["token"].clone();
        let orders: BTreeMap<_, _> = api::parameters().collect();
        let folder = Folder::new();
        let file = File::open(folder.write("file", "0123456789")).unwrap();
        let (socket, _other) = UnixStream::pair().unwrap();
        let descriptors = [socket.as_fd(), file.as_fd()];
        for (method, named) in calls() {
            let given = named.as_object().unwrap();
            let order = orders[method];
            assert!(given.keys().all(|name| order.contains(&name.as_str())), "{method}");
            let last =
                order.iter().rposition(|name| given.contains_key(*name)).map_or(0, |at| at + 1);
            let value = |name: &&str| given.get(*name).cloned().unwrap_or_default();
            let placed: Value = order[..last].iter().map(value).collect();
            let outcomes = [&named, &placed].map(|params| {
                // session.attach is allowed only from a session without handles.
                let mut fixture = Fixture::new(broker.lsp(), &token);
                if method == "session.attach" {
                    fixture.client = broker.lsp();
                }
                let params = fixture.fill(params);
                let answer = fixture.client.call_with_parts(
                    method,
                    params,
                    RequestParts::descriptors(&descriptors),
                );
                shape(answer.json.get("result").or(answer.json.get("error")).unwrap())
            });
            assert_eq!(outcomes[0], outcomes[1], "{method} {placed}");
            let failed = outcomes[0].get("code").and_then(Value::as_i64);
            let refused = ["socket.sethostname", "socket.sendmsg_afalg", "socket.sendto"];
            // There is no such interface, and no such capture.
            let refused = refused.contains(&method) || method.starts_with("capture.");
            assert_eq!(failed.is_some(), refused, "{method}: {}", outcomes[0]);
            assert_ne!(failed, Some(-32602), "{method}: {}", outcomes[0]);
        }
    });
}

#[test]
fn parameters_documented_as_required_are_required() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let reported = client.call("rpc.discover", Value::Null).result().clone();
        for method in reported["methods"].as_array().unwrap() {
            let name = method["name"].as_str().unwrap();
            let required = |parameter: &&Value| parameter["required"] == true;
            let Some(first) = method["params"].as_array().unwrap().iter().find(required) else {
                continue;
            };
            let fault = client.call(name, json!({})).fault();
            assert_eq!(fault.kind(), (-32602, "argument"), "{name}");
            let missing = first["name"].as_str().unwrap();
            assert!(fault.message.contains(missing), "{name}: {} for {missing}", fault.message);
        }
    });
}
