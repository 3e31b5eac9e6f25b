//! `sockbroker demo`: the whole story, and what it says where it cannot be told.

use std::process::{Command, Stdio};

use sockbroker_test_support::bounded;
use sockbroker_test_support::skip::{root_or_skip, skip};

use crate::program::{PROGRAM, Ran, run};

/// Whether the demonstration told all of it.
fn check(told: &str) {
    for part in [
        "no capability left",
        "socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)   EPERM",
        "socket(AF_PACKET, SOCK_RAW, 0)            EPERM",
        "\"Hello, world\" went there and came back",
        "64 bytes from 127.0.0.1 after ",
        "TCP [S] seq ",
        "UDP length 5",
        "the sniffer heard a TCP handshake and a datagram",
        "Everything went as told.",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    for call in ["socket.accept", "socket.recvfrom", "socket.ioctl"] {
        let shown = |line: &&str| line.contains("\u{b5}s  ") && line.contains(call);
        assert!(told.lines().any(|line| shown(&line)), "{call} in {told}");
    }
    assert!(!told.contains('\x1b'), "colours without a terminal: {told}");
}

#[test]
fn it_tells_the_whole_story_without_privileges_or_configuration() {
    const TEST: &str = "demo::it_tells_the_whole_story_without_privileges_or_configuration";
    bounded(40, || {
        let ran = run(&["demo"]);
        if ran.code == 77 {
            assert!(ran.err.contains("or run the demo as root"), "{ran:?}");
            return skip("no user namespaces here", TEST);
        }
        check(&ran.done());
    });
}

/// Runs a script in a user namespace where no further ones can be made.
fn where_they_are_forbidden(script: &str) -> Option<Ran> {
    let script = format!("echo 0 >/proc/sys/user/max_user_namespaces && {script}");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "timeout", "15", "sh", "-c", &script]);
    command.args([PROGRAM]).stdin(Stdio::null());
    let made = Command::new("unshare").args(["--user", "--map-root-user", "true"]).output();
    made.is_ok_and(|made| made.status.success()).then(|| command.output().unwrap().into())
}

#[test]
fn root_needs_no_user_namespace() {
    const TEST: &str = "demo::root_needs_no_user_namespace";
    bounded(40, || match where_they_are_forbidden("exec \"$0\" demo") {
        Some(ran) => {
            let told = ran.done();
            assert!(told.contains("a network namespace of its own (as root)"), "{told}");
            check(&told);
        }
        None => skip("no user namespaces here", TEST),
    });
}

#[test]
fn where_namespaces_are_forbidden_it_says_so_and_what_to_do() {
    const TEST: &str = "demo::where_namespaces_are_forbidden_it_says_so_and_what_to_do";
    bounded(40, || {
        let script = "exec setpriv --bounding-set=-all --inh-caps=-all -- \"$0\" demo";
        let Some(ran) = where_they_are_forbidden(script) else {
            return skip("no user namespaces here", TEST);
        };
        assert_eq!(ran.code, 77, "{ran:?}");
        let line = ran.err.trim_end();
        assert!(!line.contains('\n') && line.contains("EPERM"), "{line}");
        assert!(line.contains("`sysctl -w user.max_user_namespaces=10000`"), "{line}");
        assert!(line.ends_with("or run the demo as root"), "{line}");
    });
}

#[test]
fn an_ordinary_user_sees_the_same() {
    const TEST: &str = "demo::an_ordinary_user_sees_the_same";
    if !root_or_skip(TEST) {
        return;
    }
    bounded(40, || {
        // A copy that another user can reach.
        let folder = std::env::temp_dir().join(format!("sockbroker-demo-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let program = folder.join("sockbroker");
        std::fs::copy(PROGRAM, &program).unwrap();
        let mut command = Command::new("timeout");
        command.args(["15", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.args(["--inh-caps=-all", "--"]).arg(&program).arg("demo").current_dir("/");
        let ran = Ran::from(command.stdin(Stdio::null()).output().unwrap());
        std::fs::remove_dir_all(&folder).unwrap();
        if ran.code == 77 {
            return skip("no user namespaces for ordinary users here", TEST);
        }
        let told = ran.done();
        assert!(told.contains("started here by uid 65534"), "{told}");
        check(&told);
    });
}
