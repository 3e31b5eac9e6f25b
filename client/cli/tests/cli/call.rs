//! `sockbroker call` and `sockbroker discover`.

use std::process::{Command, Stdio};

use serde_json::json;
use sockbroker_test_support::skip::program_or_skip;
use sockbroker_test_support::{bounded, namespace};

use crate::program::{PROGRAM, ask, broker, run, run_with};

#[test]
fn the_port_of_a_service_is_printed() {
    bounded(30, || {
        let ran = ask(&broker(), &["call", "socket.getservbyname", "servicename=http"]);
        assert_eq!(ran.done(), "80\n");
    });
}

#[test]
fn a_private_broker_needs_no_other() {
    bounded(30, || {
        let ran = run(&["--private", "call", "socket.getservbyname", "servicename=http"]);
        assert_eq!((ran.err.as_str(), ran.out.as_str(), ran.code), ("", "80\n", 0));
    });
}

#[test]
fn a_private_broker_is_not_bound_by_the_hosts_policy() {
    namespace::inside("call::a_private_broker_is_not_bound_by_the_hosts_policy", || {
        // A host of our own, whose policy has no rule.
        let mounted = Command::new("mount").args(["-t", "tmpfs", "none", "/etc"]).status().unwrap();
        assert!(mounted.success());
        std::fs::create_dir("/etc/sockbroker").unwrap();
        let policy = "version = 1\n[[rule]]\nname = \"nothing\"\nsubject = { everyone = true }\ndeny = [\"create\"]\n";
        std::fs::write("/etc/sockbroker/policy.toml", policy).unwrap();
        run(&["--private", "call", "socket.socket"]).done();
        let bound = format!("stdio:{PROGRAM} broker --stdio");
        let ran = run(&["--broker", &bound, "call", "socket.socket"]);
        assert!(ran.code == 1 && ran.err.contains("nothing"), "{ran:?}");
    });
}

#[test]
fn values_are_read_by_name_with_their_types() {
    bounded(30, || {
        let broker = broker();
        let made = ["call", "socket.socket", "family=AF_INET", "type=SOCK_DGRAM", "timeout=2.5"];
        let made = ask(&broker, &made).json();
        assert_eq!((&made["family"], &made["type"]), (&json!(2), &json!(2)));
        assert_eq!(made["timeout"], 2.5);
        let call = ["call", "socket.getnameinfo", "sockaddr=[\"127.0.0.1\",80]", "flags=3"];
        assert_eq!(ask(&broker, &call).json(), json!(["127.0.0.1", "80"]));
        assert_eq!(ask(&broker, &["call", "socket.htons", "[80]"]).json(), 20480);
        assert_eq!(ask(&broker, &["call", "socket.htons", "{\"x\":80}"]).json(), 20480);
    });
}

#[test]
fn bytes_come_from_files_and_go_out_raw() {
    bounded(30, || {
        let call = ["--private", "call", "--raw", "socket.inet_ntoa", "packed_ip=@-"];
        assert_eq!(run_with(&call, &[1, 2, 3, 255]).done(), "1.2.3.255\n");
        let call = ["--private", "call", "socket.inet_ntoa", "packed_ip=@-"];
        assert_eq!(run_with(&call, &[1, 2, 3, 255]).done(), "\"1.2.3.255\"\n");
        let call = ["--private", "call", "--raw", "socket.if_nametoindex", "if_name=lo"];
        assert!(run(&call).done().trim().parse::<u32>().is_ok());
    });
}

#[test]
fn a_session_is_kept_from_one_call_to_the_next() {
    bounded(40, || {
        let broker = broker();
        let opened = ask(&broker, &["call", "session.open", "linger=20"]).json();
        let token = opened["token"].as_str().unwrap().to_owned();
        let within =
            |arguments: &[&str]| ask(&broker, &[&["--session", &token], arguments].concat());
        let pair = within(&["call", "socket.socketpair"]).json();
        let [left, right] = [0, 1].map(|at| format!("handle={}", pair[at]["handle"]));
        within(&["call", "socket.sendall", &left, "bytes=aGVsbG8="]).done();
        let received = within(&["call", "--raw", "socket.recv", &right, "bufsize=100"]);
        assert_eq!(received.done(), "hello");
        assert_eq!(within(&["handles"]).done().lines().count(), 3);
    });
}

#[test]
fn methods_are_listed_and_described() {
    bounded(30, || {
        let all = run(&["--private", "discover"]).done();
        let method = |line: &str| line.split_whitespace().next().unwrap().to_owned();
        let names: Vec<_> = all.lines().skip(1).map(method).collect();
        assert_eq!(names.len(), sockbroker_methods(), "{all}");
        assert!(all.lines().all(|line| line.split_whitespace().count() > 1), "{all}");
        let one = run(&["--private", "discover", "socket.getaddrinfo"]).done();
        assert!(one.contains("AddressItem") && one.contains("A number, a service name"), "{one}");
        let some = run(&["--private", "discover", "session."]).done();
        assert!(some.contains("session.open") && !some.contains("socket."), "{some}");
        let described = run(&["--private", "--json", "discover", "socket.recv"]).json();
        assert_eq!(described["params"][1]["name"], "bufsize");
        assert!(run(&["--private", "--json", "discover"]).json()["openrpc"].is_string());
    });
}

/// How many methods the contract has.
fn sockbroker_methods() -> usize {
    sockbroker_proto::api::parameters().count()
}

#[test]
fn colours_are_for_terminals_whose_user_did_not_object() {
    const TEST: &str = "call::colours_are_for_terminals_whose_user_did_not_object";
    if !program_or_skip("script", TEST) {
        return;
    }
    bounded(40, || {
        let on_a_terminal = |objection: Option<&str>| {
            let mut command = Command::new("script");
            command.args([
                "-qec",
                &format!("{PROGRAM} --private discover session.open"),
                "/dev/null",
            ]);
            command.env_remove("NO_COLOR").envs(objection.map(|value| ("NO_COLOR", value)));
            String::from_utf8(command.stdin(Stdio::null()).output().unwrap().stdout).unwrap()
        };
        assert!(on_a_terminal(None).contains("\x1b[1msession.open\x1b[0m"));
        // Set, but to nothing: no objection, says no-color.org.
        assert!(on_a_terminal(Some("")).contains("\x1b[1m"));
        let plain = on_a_terminal(Some("1"));
        assert!(plain.contains("session.open") && !plain.contains('\x1b'), "{plain}");
    });
}
