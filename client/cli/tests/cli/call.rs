//! `sockbroker call` and `sockbroker discover`: parameters, results and descriptions.

use std::process::{Command, Stdio};

use serde_json::json;
use sockbroker_test_support::skip::program_or_skip;
use sockbroker_test_support::{bounded, namespace};

use crate::program::{PROGRAM, broker, run, run_at, run_with_input};

#[test]
fn call_prints_the_result() {
    bounded(30, || {
        let outcome = run_at(&broker(), &["call", "socket.getservbyname", "servicename=http"]);
        assert_eq!(outcome.success(), "80\n");
    });
}

#[test]
fn private_broker_runs_without_another_broker() {
    bounded(30, || {
        let outcome = run(&["--private", "call", "socket.getservbyname", "servicename=http"]);
        assert_eq!((outcome.err.as_str(), outcome.out.as_str(), outcome.code), ("", "80\n", 0));
    });
}

#[test]
fn private_broker_ignores_the_policy_of_the_host() {
    namespace::inside("call::private_broker_ignores_the_policy_of_the_host", || {
        // A mount namespace whose policy allows nothing.
        let mounted = Command::new("mount").args(["-t", "tmpfs", "none", "/etc"]).status().unwrap();
        assert!(mounted.success());
        std::fs::create_dir("/etc/sockbroker").unwrap();
        let policy = "version = 1\n[[rule]]\nname = \"nothing\"\nsubject = { everyone = true }\ndeny = [\"create\"]\n";
        std::fs::write("/etc/sockbroker/policy.toml", policy).unwrap();
        run(&["--private", "call", "socket.socket"]).success();
        let bound = format!("stdio:{PROGRAM} broker --stdio");
        let outcome = run(&["--broker", &bound, "call", "socket.socket"]);
        assert!(outcome.code == 1 && outcome.err.contains("nothing"), "{outcome:?}");
    });
}

#[test]
fn named_parameters_keep_their_json_types() {
    bounded(30, || {
        let broker = broker();
        let made = ["call", "socket.socket", "family=AF_INET", "type=SOCK_DGRAM", "timeout=2.5"];
        let made = run_at(&broker, &made).json();
        assert_eq!((&made["family"], &made["type"]), (&json!(2), &json!(2)));
        assert_eq!(made["timeout"], 2.5);
        let call = ["call", "socket.getnameinfo", "sockaddr=[\"127.0.0.1\",80]", "flags=3"];
        assert_eq!(run_at(&broker, &call).json(), json!(["127.0.0.1", "80"]));
        assert_eq!(run_at(&broker, &["call", "socket.htons", "[80]"]).json(), 20480);
        assert_eq!(run_at(&broker, &["call", "socket.htons", "{\"x\":80}"]).json(), 20480);
    });
}

#[test]
fn bytes_are_read_from_files_and_printed_raw() {
    bounded(30, || {
        let call = ["--private", "call", "--raw", "socket.inet_ntoa", "packed_ip=@-"];
        assert_eq!(run_with_input(&call, &[1, 2, 3, 255]).success(), "1.2.3.255\n");
        let call = ["--private", "call", "socket.inet_ntoa", "packed_ip=@-"];
        assert_eq!(run_with_input(&call, &[1, 2, 3, 255]).success(), "\"1.2.3.255\"\n");
        let call = ["--private", "call", "--raw", "socket.if_nametoindex", "if_name=lo"];
        assert!(run(&call).success().trim().parse::<u32>().is_ok());
    });
}

#[test]
fn session_token_keeps_handles_between_commands() {
    bounded(40, || {
        let broker = broker();
        let opened = run_at(&broker, &["call", "session.open", "linger=20"]).json();
        let token = opened["token"].as_str().unwrap().to_owned();
        let in_session =
            |arguments: &[&str]| run_at(&broker, &[&["--session", &token], arguments].concat());
        let pair = in_session(&["call", "socket.socketpair"]).json();
        let [left, right] = [0, 1].map(|at| format!("handle={}", pair[at]["handle"]));
        in_session(&["call", "socket.sendall", &left, "bytes=aGVsbG8="]).success();
        let received = in_session(&["call", "--raw", "socket.recv", &right, "bufsize=100"]);
        assert_eq!(received.success(), "hello");
        assert_eq!(in_session(&["handles"]).success().lines().count(), 3);
    });
}

#[test]
fn discover_lists_and_describes_methods() {
    bounded(30, || {
        let all = run(&["--private", "discover"]).success();
        let method = |line: &str| line.split_whitespace().next().unwrap().to_owned();
        let names: Vec<_> = all.lines().skip(1).map(method).collect();
        assert_eq!(names.len(), contract_method_count(), "{all}");
        assert!(all.lines().all(|line| line.split_whitespace().count() > 1), "{all}");
        let one = run(&["--private", "discover", "socket.getaddrinfo"]).success();
        assert!(one.contains("AddressItem") && one.contains("A number, a service name"), "{one}");
        let some = run(&["--private", "discover", "session."]).success();
        assert!(some.contains("session.open") && !some.contains("socket."), "{some}");
        let described = run(&["--private", "--json", "discover", "socket.recv"]).json();
        assert_eq!(described["params"][1]["name"], "bufsize");
        assert!(run(&["--private", "--json", "discover"]).json()["openrpc"].is_string());
    });
}

/// Returns the number of methods in the contract.
fn contract_method_count() -> usize {
    sockbroker_proto::api::parameters().count()
}

#[test]
fn colours_are_used_on_terminals_unless_no_color_is_set() {
    const TEST: &str = "call::colours_are_used_on_terminals_unless_no_color_is_set";
    if !program_or_skip("script", TEST) {
        return;
    }
    bounded(40, || {
        let on_a_terminal = |no_color: Option<&str>| {
            let mut command = Command::new("script");
            command.args([
                "-qec",
                &format!("{PROGRAM} --private discover session.open"),
                "/dev/null",
            ]);
            command.env_remove("NO_COLOR").envs(no_color.map(|value| ("NO_COLOR", value)));
            String::from_utf8(command.stdin(Stdio::null()).output().unwrap().stdout).unwrap()
        };
        assert!(on_a_terminal(None).contains("\x1b[1msession.open\x1b[0m"));
        // By no-color.org an empty value does not disable colours.
        assert!(on_a_terminal(Some("")).contains("\x1b[1m"));
        let plain = on_a_terminal(Some("1"));
        assert!(plain.contains("session.open") && !plain.contains('\x1b'), "{plain}");
    });
}
