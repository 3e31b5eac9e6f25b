//! `sockbroker demo`: all of its steps, and its error if the system refuses namespaces.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use sockbroker_test_support::skip::{root_or_skip, skip};
use sockbroker_test_support::{Folder, bounded};

use crate::program::{Outcome, PROGRAM, run};

/// Checks that the demonstration has printed every step.
fn check_output(output: &str) {
    for part in [
        "no capabilities, and no_new_privs prevents new ones",
        "socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)   EPERM",
        "socket(AF_PACKET, SOCK_RAW, 0)            EPERM",
        "the server echoed \"Hello, world\"",
        "64 bytes from 127.0.0.1 after ",
        "TCP [S] seq ",
        "UDP length 5",
        "the sniffer captured a TCP handshake and a datagram",
        "All steps succeeded.",
    ] {
        assert!(output.contains(part), "{part} in {output}");
    }
    for call in ["socket.accept", "socket.recvfrom", "socket.ioctl"] {
        let shown = |line: &&str| line.contains("\u{b5}s  ") && line.contains(call);
        assert!(output.lines().any(|line| shown(&line)), "{call} in {output}");
    }
    assert!(!output.contains('\x1b'), "colours without a terminal: {output}");
}

#[test]
fn demo_runs_all_steps_without_privileges_or_configuration() {
    const TEST: &str = "demo::demo_runs_all_steps_without_privileges_or_configuration";
    bounded(90, || {
        let outcome = run(&["demo"]);
        if outcome.code == 77 {
            assert!(outcome.err.contains("or run the demo as root"), "{outcome:?}");
            return skip("no user namespaces here", TEST);
        }
        check_output(&outcome.success());
    });
}

/// Runs a script in a user namespace that refuses further user namespaces.
fn run_without_user_namespaces(script: &str) -> Option<Outcome> {
    let script = format!("echo 0 >/proc/sys/user/max_user_namespaces && {script}");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "timeout", "60", "sh", "-c", &script]);
    command.args([PROGRAM]).stdin(Stdio::null());
    let made = Command::new("unshare").args(["--user", "--map-root-user", "true"]).output();
    made.is_ok_and(|made| made.status.success()).then(|| command.output().unwrap().into())
}

#[test]
fn demo_as_root_needs_no_user_namespace() {
    const TEST: &str = "demo::demo_as_root_needs_no_user_namespace";
    bounded(90, || match run_without_user_namespaces("exec \"$0\" demo") {
        Some(outcome) => {
            let output = outcome.success();
            assert!(output.contains("a new network namespace (as root)"), "{output}");
            check_output(&output);
        }
        None => skip("no user namespaces here", TEST),
    });
}

#[test]
fn demo_without_namespaces_reports_what_to_do() {
    const TEST: &str = "demo::demo_without_namespaces_reports_what_to_do";
    bounded(90, || {
        let script = "exec setpriv --bounding-set=-all --inh-caps=-all -- \"$0\" demo";
        let Some(outcome) = run_without_user_namespaces(script) else {
            return skip("no user namespaces here", TEST);
        };
        assert_eq!(outcome.code, 77, "{outcome:?}");
        let line = outcome.err.trim_end();
        assert!(!line.contains('\n') && line.contains("EPERM"), "{line}");
        assert!(line.contains("`sysctl -w user.max_user_namespaces=10000`"), "{line}");
        assert!(line.ends_with("or run the demo as root"), "{line}");
    });
}

#[test]
fn demo_runs_for_an_unprivileged_user() {
    const TEST: &str = "demo::demo_runs_for_an_unprivileged_user";
    if !root_or_skip(TEST) {
        return;
    }
    bounded(90, || {
        // A copy that another user can reach.
        let folder = Folder::new();
        set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let program = folder.copy_program(Path::new(PROGRAM), "sockbroker");
        let mut command = Command::new("timeout");
        command.args(["60", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.args(["--inh-caps=-all", "--"]).arg(&program).arg("demo").current_dir("/");
        let outcome = Outcome::from(command.stdin(Stdio::null()).output().unwrap());
        if outcome.code == 77 {
            return skip("no user namespaces for ordinary users here", TEST);
        }
        let output = outcome.success();
        assert!(output.contains("started in them by uid 65534"), "{output}");
        check_output(&output);
    });
}
