//! Invalid handles, sizes, addresses, options and ancillary data: each gets one clear error.

use serde_json::{Value, json};
use sockbroker_test_support::{Fault, LspClient, base64, bounded};

use crate::broker::broker;

/// Every method whose first parameter is a handle, with otherwise valid parameters.
fn methods_of_handles(handle: &Value) -> Vec<(&'static str, Value)> {
    let params = |rest: Value| {
        let mut params = vec![handle.clone()];
        params.extend(rest.as_array().unwrap().iter().cloned());
        Value::from(params)
    };
    [
        ("socket.accept", json!([])),
        ("socket.attach_filter", json!(["BgAAAP////8="])),
        ("socket.attributes", json!([])),
        ("socket.bind", json!([["127.0.0.1", 0]])),
        ("socket.close", json!([])),
        ("socket.connect", json!([["127.0.0.1", 9]])),
        ("socket.connect_ex", json!([["127.0.0.1", 9]])),
        ("socket.detach", json!([])),
        ("socket.detach_filter", json!([])),
        ("socket.dup", json!([])),
        ("socket.fileno", json!([])),
        ("socket.get_inheritable", json!([])),
        ("socket.getblocking", json!([])),
        ("socket.getpeername", json!([])),
        ("socket.getsockname", json!([])),
        ("socket.getsockopt", json!([1, 3])),
        ("socket.gettimeout", json!([])),
        ("socket.ioctl", json!(["FIONREAD"])),
        ("socket.listen", json!([])),
        ("socket.recv", json!([1])),
        ("socket.recv_into", json!([1])),
        ("socket.recvfrom", json!([1])),
        ("socket.recvfrom_into", json!([1])),
        ("socket.recvmmsg", json!([1, 1])),
        ("socket.recvmsg", json!([1])),
        ("socket.recvmsg_into", json!([[1]])),
        ("socket.send", json!(["aGk="])),
        ("socket.sendall", json!(["aGk="])),
        ("socket.sendfile", json!([0])),
        ("socket.sendmmsg", json!([[{ "buffers": [] }]])),
        ("socket.sendmsg", json!([["aGk="]])),
        ("socket.sendmsg_afalg", json!([null, 1])),
        ("socket.sendto", json!(["aGk=", 0, ["127.0.0.1", 9]])),
        ("socket.set_inheritable", json!([true])),
        ("socket.setblocking", json!([true])),
        ("socket.setsockopt", json!([1, 2, 1])),
        ("socket.settimeout", json!([1])),
        ("socket.shutdown", json!([2])),
    ]
    .map(|(method, rest)| (method, params(rest)))
    .into()
}

#[test]
fn unknown_handle_returns_handle_error_for_every_method() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let mut other = broker.lsp();
        for _ in 0..3 {
            other.call("socket.socket", Value::Null).handle();
        }
        let foreign = other.call("socket.socket", Value::Null).handle();
        let closed = client.call("socket.socket", Value::Null).handle();
        client.call("socket.close", json!([closed])).result();
        // The slot is in use again; the old handle is still unknown.
        let fresh = client.call("socket.socket", Value::Null).handle();
        assert_ne!(closed, fresh);
        for handle in [closed, foreign, 0, 1, 5, fresh + 1, (1 << 53) - 1] {
            for (method, params) in methods_of_handles(&json!(handle)) {
                let fault = client.call(method, params).fault();
                assert_eq!(fault.kind(), (4000, "handle"), "{method} {handle}: {fault:?}");
                let data = (fault.data.errno, fault.data.name.as_deref());
                assert_eq!(data, (Some(libc::EBADF), Some("EBADF")), "{method}");
                assert_eq!(fault.data.call.as_deref(), method.rsplit('.').next());
            }
        }
        client.call("socket.gettimeout", json!([fresh])).result();
        other.call("socket.gettimeout", json!([foreign])).result();
    });
}

#[test]
fn invalid_handle_value_returns_argument_error() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        for handle in [
            json!(1_u64 << 53),
            json!(u64::MAX),
            json!(-1),
            json!(1.5),
            json!("1048576"),
            json!(null),
            json!([1]),
            json!({}),
            json!(true),
        ] {
            for (method, params) in methods_of_handles(&handle) {
                let fault = client.call(method, params).fault();
                assert_eq!(fault.exception(), "TypeError", "{method} {handle}");
            }
        }
    });
}

fn socket(client: &mut LspClient, family: &str, kind: &str) -> u64 {
    client.call("socket.socket", json!([family, kind])).handle()
}

#[test]
fn invalid_sizes_are_refused_like_python() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (left, _) = client.pair_of("SOCK_DGRAM");
        for (method, params) in [
            ("socket.recv", json!([left, -1])),
            ("socket.recvfrom", json!([left, -1])),
            ("socket.recvmsg", json!([left, -1])),
            ("socket.recvmsg", json!([left, 1, -1])),
            ("socket.recvmsg_into", json!([left, [1, -1]])),
            ("socket.recvmmsg", json!([left, 0, 1])),
            ("socket.recvmmsg", json!([left, -1, 1])),
            ("socket.recvmmsg", json!([left, 1, -1])),
            ("socket.sendmmsg", json!([left, []])),
            ("socket.settimeout", json!([left, -0.5])),
            ("socket.setdefaulttimeout", json!([-1])),
            ("socket.attach_filter", json!([left, ""])),
            ("socket.attach_filter", json!([left, "AAAA"])),
        ] {
            let fault = client.call(method, params.clone()).fault();
            assert_eq!(fault.exception(), "ValueError", "{method} {params}");
        }
        for (method, params) in [
            ("socket.recvmsg_into", json!([left, vec![1; 1025]])),
            ("socket.sendmsg", json!([left, vec![""; 1025]])),
        ] {
            assert_eq!(client.call(method, params).fault().errno(), "EMSGSIZE", "{method}");
        }
        for length in [-1, 1025] {
            let fault = client.call("socket.getsockopt", json!([left, 1, 3, length])).fault();
            assert_eq!((fault.code, fault.data.errno), (1000, None), "{length}");
        }
    });
}

#[test]
fn address_of_another_family_is_refused_before_the_system_call() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let inet = socket(&mut client, "AF_INET", "SOCK_DGRAM");
        let inet6 = socket(&mut client, "AF_INET6", "SOCK_DGRAM");
        let unix = socket(&mut client, "AF_UNIX", "SOCK_DGRAM");
        let netlink = client.call("socket.socket", json!(["AF_NETLINK", "SOCK_RAW", 0])).handle();
        let long = "x".repeat(200);
        for (handle, address) in [
            (inet, json!("127.0.0.1")),
            (inet, json!(["127.0.0.1"])),
            (inet, json!(["127.0.0.1", 80, 0])),
            (inet, json!(["127.0.0.1", 65536])),
            (inet, json!(["127.0.0.1", -1])),
            (inet, json!(["127.0.0.1", "80"])),
            (inet, json!([1, 80])),
            (inet, json!(null)),
            (inet, json!(5)),
            (inet, json!({})),
            (inet, json!({ "family": 2 })),
            (inet, json!({ "family": 2, "base64": "AAA" })),
            (inet, json!({ "family": 2, "base64": base64([0; 127]) })),
            (inet, json!({ "family": 2, "base64": "", "x": 1 })),
            (inet6, json!(["::1"])),
            (inet6, json!(["::1", 80, 1_048_576])),
            (inet6, json!(["::1", 80, 0, 0, 0])),
            (inet6, json!(["::1", 80, 0, "lo"])),
            (unix, json!(["path"])),
            (unix, json!(long)),
            (unix, json!(5)),
            (netlink, json!([0])),
            (netlink, json!("x")),
        ] {
            for method in ["socket.bind", "socket.connect", "socket.connect_ex"] {
                let answer = client.call(method, json!([handle, address]));
                assert!(answer.is_fault(), "{method} {address}: {}", answer.short());
                let fault = answer.fault();
                // Python raises an OSError without an errno if a path is too long.
                assert!(is_argument(&fault), "{method} {address}: {fault:?}");
            }
            let params = json!([handle, "", 0, address]);
            assert!(is_argument(&client.call("socket.sendto", params).fault()), "{address}");
        }
        for address in [json!(["", 70_000]), json!([]), json!("x"), json!(["a", 1, 2])] {
            for method in ["socket.create_connection", "socket.create_server"] {
                let fault = client.call(method, json!([address])).fault();
                assert!(
                    [-32602, 1000, 2000].contains(&fault.code),
                    "{method} {address}: {fault:?}"
                );
            }
        }
        client.expect_service();
    });
}

fn is_argument(fault: &Fault) -> bool {
    fault.code == -32602 || (fault.code == 1000 && fault.data.errno.is_none())
}

#[test]
fn options_with_pointers_or_descriptors_are_refused_with_eacces() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let inet = socket(&mut client, "AF_INET", "SOCK_STREAM");
        for (level, name) in [
            (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER),
            (libc::SOL_SOCKET, libc::SO_ATTACH_BPF),
            (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF),
            (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_EBPF),
            (libc::SOL_SOCKET, libc::SO_PEERPIDFD),
            (libc::IPPROTO_TCP, 35),
            (libc::IPPROTO_IP, 64),
        ] {
            let pointer = base64([0x41; 16]);
            for value in [json!(1), json!(pointer)] {
                let fault =
                    client.call("socket.setsockopt", json!([inet, level, name, value])).fault();
                assert_eq!(fault.errno(), "EACCES", "{level} {name} {value}");
            }
            for length in [0, 16] {
                let fault =
                    client.call("socket.getsockopt", json!([inet, level, name, length])).fault();
                assert_eq!(fault.errno(), "EACCES", "{level} {name} {length}");
            }
        }
    });
}

#[test]
fn option_values_of_a_wrong_type_are_refused() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let inet = socket(&mut client, "AF_INET", "SOCK_STREAM");
        for (rest, exception) in [
            (json!([null]), "TypeError"),
            (json!([]), "TypeError"),
            (json!([1, 4]), "TypeError"),
            (json!(["aGk=", 4]), "TypeError"),
            (json!([null, -1]), "OverflowError"),
            (json!([1.5]), "TypeError"),
            (json!([[1]]), "TypeError"),
            (json!([{}]), "TypeError"),
        ] {
            let mut params = vec![json!(inet), json!("SOL_SOCKET"), json!("SO_REUSEADDR")];
            params.extend(rest.as_array().unwrap().iter().cloned());
            let fault = client.call("socket.setsockopt", params.into()).fault();
            assert_eq!(fault.exception(), exception, "{rest}");
        }
        for (method, params, errno) in [
            ("socket.setsockopt", json!([inet, 1, 2, ""]), "EINVAL"),
            ("socket.setsockopt", json!([inet, 1, 9999, 1]), "ENOPROTOOPT"),
            ("socket.getsockopt", json!([inet, 9999, 1]), "EOPNOTSUPP"),
            ("socket.ioctl", json!([inet, 0x5421, 1]), "ENOTTY"),
            ("socket.ioctl", json!([inet, "SIO_RCVALL", "RCVALL_ON"]), "ENOTTY"),
            ("socket.ioctl", json!([inet, "SIOCGIFMTU", "nosuchif"]), "ENODEV"),
        ] {
            assert_eq!(
                client.call(method, params.clone()).fault().errno(),
                errno,
                "{method} {params}"
            );
        }
        assert_eq!(
            client.call("socket.ioctl", json!([inet, "SIOCGIFMTU"])).fault().exception(),
            "TypeError"
        );
    });
}

#[test]
fn ancillary_data_that_refers_to_the_broker_is_refused() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let (left, right) = client.pair();
        let raw = base64(3_i32.to_ne_bytes());
        for (item, expected) in [
            (json!(["SOL_SOCKET", "SCM_RIGHTS", raw]), (-32602, "argument")),
            (json!([1, 1, raw]), (-32602, "argument")),
            (json!([1, 1, ""]), (-32602, "argument")),
            (json!([1, 2, { "descriptors": 1 }]), (-32602, "argument")),
            (json!([0, 1, { "descriptors": 0 }]), (-32602, "argument")),
            (json!([1, 1, { "descriptors": 1 }]), (4003, "descriptor")),
            (json!([1, 1, { "descriptors": 4_000_000_000_u64 }]), (4003, "descriptor")),
            (json!([1, 1, { "descriptors": -1 }]), (-32602, "argument")),
            (json!([1, 1, { "descriptors": 0, "x": 1 }]), (-32602, "argument")),
            (json!([1, 1, { "descriptors": 0, "rest": "?" }]), (-32602, "argument")),
            (json!([1, 1, 5]), (-32602, "argument")),
            (json!([1, 1]), (-32602, "argument")),
            (json!([1]), (-32602, "argument")),
            (json!("x"), (-32602, "argument")),
            (json!([1_u64 << 40, 1, "AAAA"]), (-32602, "argument")),
        ] {
            for (method, params) in [
                ("socket.sendmsg", json!([left, ["aGk="], [item]])),
                ("socket.sendmmsg", json!([left, [{ "buffers": ["aGk="], "ancdata": [item] }]])),
            ] {
                let fault = client.call(method, params).fault();
                assert_eq!(fault.kind(), expected, "{method} {item}: {fault:?}");
            }
        }
        client.call("socket.setblocking", json!([right, false])).result();
        assert_eq!(client.call("socket.recv", json!([right, 9])).fault().errno(), "EAGAIN");
    });
}

#[test]
fn impossible_calls_return_errors_of_the_kernel() {
    bounded(20, || {
        let broker = broker();
        let mut client = broker.lsp();
        let stream = socket(&mut client, "AF_INET", "SOCK_STREAM");
        let datagram = socket(&mut client, "AF_INET", "SOCK_DGRAM");
        for (method, params, errno) in [
            ("socket.accept", json!([stream]), "EINVAL"),
            ("socket.accept", json!([datagram]), "EOPNOTSUPP"),
            ("socket.recv", json!([stream, 1]), "ENOTCONN"),
            ("socket.send", json!([stream, "aGk="]), "EPIPE"),
            ("socket.send", json!([datagram, "aGk="]), "EDESTADDRREQ"),
            ("socket.shutdown", json!([stream, 2]), "ENOTCONN"),
            ("socket.shutdown", json!([stream, 7]), "EINVAL"),
            ("socket.getpeername", json!([stream]), "ENOTCONN"),
            ("socket.listen", json!([datagram]), "EOPNOTSUPP"),
            ("socket.socket", json!(["AF_INET", "SOCK_STREAM", 999_999]), "EINVAL"),
            ("socket.socket", json!([9999]), "EAFNOSUPPORT"),
            ("socket.socketpair", json!(["AF_INET"]), "EOPNOTSUPP"),
            ("socket.bind", json!([stream, ["203.0.113.1", 0]]), "EADDRNOTAVAIL"),
            ("socket.detach_filter", json!([stream]), "ENOENT"),
        ] {
            let fault = client.call(method, params.clone()).fault();
            assert_eq!(fault.errno(), errno, "{method} {params}");
            assert!(fault.data.call.is_some() && fault.data.errno.is_some());
            assert_eq!(fault.message, fault.message.to_lowercase());
        }
    });
}
