//! Each call that is served, refusals, and what is left to the kernel.

use sockbroker_test_support::namespace::inside_with_users;
use sockbroker_test_support::skip::program_or_skip;

use crate::stage::{ALL, PORTS, PYTHON, Stage};

#[test]
fn calls_that_the_kernel_refuses_are_made_on_the_programs_own_socket() {
    const TEST: &str = "calls::calls_that_the_kernel_refuses_are_made_on_the_programs_own_socket";
    inside_with_users(TEST, || {
        let stage = Stage::new(ALL);
        let text = "
import fcntl, os, socket
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 1)
print(raw.fileno(), raw.gettimeout(), os.get_inheritable(raw.fileno()))
print(bool(fcntl.fcntl(raw, fcntl.F_GETFL) & os.O_NONBLOCK))
packet = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
packet.bind(('lo', 3))
six = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58)
low = socket.socket()
low.bind(('127.0.0.1', 81))
low.listen()
print(low.getsockname(), low.getblocking())
low6 = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
low6.bind(('::1', 82))
low.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 7)
print(low.getsockopt(socket.SOL_SOCKET, socket.SO_MARK))
low.setsockopt(socket.SOL_SOCKET, 33, 1 << 20)
low.setsockopt(socket.IPPROTO_IP, 19, 1)
taken = socket.socket()
try:
    taken.bind(('127.0.0.1', 81))
except OSError as error:
    print(error.errno)
# The port is free as soon as the program closes the socket: nobody else has a copy.
for _ in range(50):
    low6.close()
    low6 = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    low6.bind(('::1', 82))
";
        let outcome = stage.python(&[], text);
        assert_eq!(outcome.err, "");
        assert_eq!(outcome.success(), "3 0.0 False\nTrue\n('127.0.0.1', 81) True\n7\n98\n");
    });
}

#[test]
fn refusal_is_one_line_with_rule_and_grant_and_the_program_gets_the_kernels_error() {
    const TEST: &str =
        "calls::refusal_is_one_line_with_rule_and_grant_and_the_program_gets_the_kernels_error";
    inside_with_users(TEST, || {
        let stage = Stage::new(PORTS);
        let text = "
import socket
for call in [lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
             lambda: socket.socket().bind(('127.0.0.1', 83)),
             lambda: socket.socket().bind(('127.0.0.1', 84)),
             lambda: socket.socket().setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 1)] * 3:
    try:
        call()
        print('done')
    except OSError as error:
        print(error.errno)
";
        let outcome = stage.python(&[], text);
        let lines: Vec<_> = outcome.err.lines().collect();
        assert_eq!(lines.len(), 3, "{outcome:?}");
        for (line, parts) in lines.iter().zip([
            ["socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) refused", "missing: allow = [\"create\"]"],
            ["bind to 127.0.0.1:83 refused", "local_ports = [\"83\"]"],
            ["setsockopt(SO_MARK) refused", "option = [\"mark\"]"],
        ]) {
            assert!(line.starts_with("sockbroker: python3 (pid "), "{line}");
            assert!(parts.iter().all(|part| line.contains(part)), "{line}");
        }
        assert_eq!(outcome.success(), "1\n13\ndone\n1\n".repeat(3));
        let quiet = stage.python(&["--quiet"], text);
        assert_eq!((quiet.err.as_str(), quiet.code), ("", 0));
        let log = stage.folder.join("log");
        let logged = stage.python(&["--log", log.to_str().unwrap()], text);
        assert_eq!((logged.err.as_str(), logged.code), ("", 0));
        assert_eq!(std::fs::read_to_string(log).unwrap().lines().count(), 3);
    });
}

#[test]
fn static_program_i386_calls_vfork_and_closed_descriptors_are_served() {
    const TEST: &str = "calls::static_program_i386_calls_vfork_and_closed_descriptors_are_served";
    if cfg!(not(target_arch = "x86_64")) {
        return sockbroker_test_support::skip::skip("needs x86-64", TEST);
    }
    if !program_or_skip("cc", TEST) {
        return;
    }
    inside_with_users(TEST, || {
        let stage = Stage::new(ALL);
        let program = stage.compile("calls", include_str!("calls.c"), &["-static"]);
        let outcome = stage.run(&[], &[program.to_str().unwrap()]);
        let text = outcome.success();
        let expected =
            "raw 3\nclosed 0\nvfork 100\ni386 socket ok\ni386 bind ok\nsocketcall bind ok\n";
        // A kernel without calls of i386 ends the program at the first.
        assert!(text == expected || text == "raw 3\nclosed 0\nvfork 100\nno i386\n", "{text}");
    });
}

#[test]
fn program_in_its_own_network_namespace_is_not_served() {
    const TEST: &str = "calls::program_in_its_own_network_namespace_is_not_served";
    inside_with_users(TEST, || {
        let stage = Stage::new(ALL);
        let text =
            "import socket; print(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).fileno())";
        // Root of a namespace: the socket is native, and the broker has nothing to do with it.
        let unshared = ["unshare", "-Urn", PYTHON, "-c", text];
        assert_eq!(stage.run(&[], &unshared).success(), "3\n");
        // In a namespace without rights in it there is none.
        let text = format!(
            "
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x10000000 | 0x40000000) == 0
if os.fork() == 0:
    pass
try:
    {text}
except OSError as error:
    print(error.errno)
"
        );
        let outcome = stage.python(&[], &text);
        assert_eq!(outcome.code, 0, "{outcome:?}");
        let log = stage.broker.log();
        assert!(!log.contains("socket.delegate"), "{log}");
    });
}

#[test]
fn nested_exec_is_served_by_the_outer_one() {
    inside_with_users("calls::nested_exec_is_served_by_the_outer_one", || {
        let stage = Stage::new(ALL);
        let text =
            "import socket; print(socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).fileno())";
        let outcome = stage.run(&[], &[stage.program(), "exec", PYTHON, "-c", text]);
        assert!(outcome.err.contains("another sockbroker serves"), "{outcome:?}");
        assert_eq!(outcome.success(), "3\n");
    });
}

#[test]
fn traced_program_is_served() {
    const TEST: &str = "calls::traced_program_is_served";
    if !program_or_skip("strace", TEST) {
        return;
    }
    inside_with_users(TEST, || {
        let stage = Stage::new(ALL);
        let text =
            "import socket; print(socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).fileno())";
        let outcome = stage.run(&[], &["strace", "-f", "-o", "trace", PYTHON, "-c", text]);
        assert_eq!(outcome.success(), "3\n");
    });
}

#[test]
fn root_of_a_user_namespace_is_served() {
    inside_with_users("calls::root_of_a_user_namespace_is_served", || {
        let stage = Stage::new(ALL);
        let text = "
import os, socket
low = socket.socket()
low.bind(('127.0.0.1', 86))
print(os.getuid(), os.getgid(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).fileno())";
        assert_eq!(stage.python(&["--root"], text).success(), "0 0 4\n");
    });
}

#[test]
fn session_limits_what_the_program_gets() {
    inside_with_users("calls::session_limits_what_the_program_gets", || {
        let stage = Stage::new(ALL);
        let text = "
import socket
socket.socket().bind(('127.0.0.1', 87))
try:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
except OSError as error:
    print(error.errno)
";
        let user = sockbroker_test_support::user::User::nobody();
        let mut owner = user.lsp(&stage.broker);
        let opened = owner.call("session.open", serde_json::json!({})).result().clone();
        let filters = serde_json::json!({ "filters": [{ "allow": ["bind", "session"] }] });
        owner.call("session.restrict", filters).result();
        let token = opened["token"].as_str().unwrap();
        let outcome = stage.python(&["--session", token], text);
        assert!(outcome.err.contains("refused"), "{outcome:?}");
        assert_eq!(outcome.success(), "1\n");
        let unknown = stage.python(&["--session", "unknown"], text);
        assert_eq!((unknown.code, unknown.out.as_str()), (1, ""), "{unknown:?}");
    });
}
