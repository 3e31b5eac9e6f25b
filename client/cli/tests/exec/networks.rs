//! Network namespaces: `--netns`, a launcher in another one than the broker's, and sandboxes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use sockbroker_sys::namespace::{self, NetworkNamespace};
use sockbroker_test_support::daemon::kill_process;
use sockbroker_test_support::namespace::inside_with_users;
use sockbroker_test_support::skip::{program_or_skip, skip};

use crate::ends::{AFTER_GO, file, processes};
use crate::stage::{ALL, Outcome, PYTHON, Stage};

/// Grants everything of IPv4 in the namespaces `lab1` and `gone`.
const LABORATORY: &str = r#"
version = 1
[[rule]]
name = "laboratory"
subject = { uids = [65534] }
allow = ["create", "handover", "bind", "option", "spoof", "session"]
family = ["AF_INET"]
handover = "unrevocable"
netns = ["lab1", "gone"]
[[rule]]
name = "sessions"
subject = { uids = [65534] }
allow = ["session"]
"#;

/// The function `cookie`: the network namespace of a socket (`SO_NETNS_COOKIE` in `socket(7)`).
const COOKIE: &str = "
import os, socket, struct, sys
def cookie(sock):
    return struct.unpack('Q', sock.getsockopt(socket.SOL_SOCKET, 71, 8))[0]
";

/// A broker that finds `lab1`, and the cookie of that namespace.
fn laboratory() -> (Stage, u64) {
    let start = Stage::prepare(LABORATORY);
    let folder = start.folder().join("netns");
    fs::create_dir(&folder).unwrap();
    let lab1 = folder.join("lab1");
    fs::write(&lab1, "").unwrap();
    let mut command = Command::new("unshare");
    command.arg(format!("--net={}", lab1.display())).args(["ip", "link", "set", "lo", "up"]);
    assert!(command.status().unwrap().success());
    let inside = move || {
        NetworkNamespace::of_file(&lab1).unwrap().enter().unwrap();
        namespace::own_cookie().unwrap()
    };
    let cookie = thread::spawn(inside).join().unwrap();
    let section = format!("[namespaces]\nfolders = [\"{}\"]\n", folder.display());
    (Stage::of(start.section(&section)), cookie)
}

/// Mounts a copy over `/etc`, with a file of the namespace `lab1`.
fn replace_etc(stage: &Stage) {
    let etc: PathBuf = stage.folder.join("etc");
    let run = |words: &[&str]| {
        assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success(), "{words:?}");
    };
    run(&["cp", "-a", "/etc", etc.to_str().unwrap()]);
    let files = etc.join("netns/lab1");
    fs::create_dir_all(&files).unwrap();
    fs::write(files.join("resolv.conf"), "nameserver 192.0.2.53\n").unwrap();
    // A link would lead out of the copy.
    fs::remove_file(etc.join("resolv.conf")).ok();
    fs::write(etc.join("resolv.conf"), "nameserver 192.0.2.1\n").unwrap();
    run(&["mount", "--bind", etc.to_str().unwrap(), "/etc"]);
}

#[test]
fn every_socket_of_the_program_is_in_the_named_namespace() {
    const TEST: &str = "networks::every_socket_of_the_program_is_in_the_named_namespace";
    inside_with_users(TEST, || {
        let (stage, lab) = laboratory();
        replace_etc(&stage);
        let text = format!(
            "{COOKIE}
server = socket.socket()
server.bind(('127.0.0.1', 80))
server.listen()
client = socket.create_connection(('127.0.0.1', 80))
accepted = server.accept()[0]
accepted.send(b'x')
assert client.recv(9) == b'x'
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
marked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
marked.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 7)
print(*(cookie(sock) == {lab} for sock in (server, client, accepted, raw, marked)))
one, other = socket.socketpair()
one.send(b'y')
assert other.recv(9) == b'y'
try:
    socket.socket(socket.AF_INET6)
except OSError as error:
    print(error.errno)
print(os.getuid(), open('/etc/resolv.conf').read(), end='')
"
        );
        let outcome = stage.python(&["--netns", "lab1"], &text);
        assert!(outcome.err.contains("socket(AF_INET6, SOCK_STREAM) refused"), "{outcome:?}");
        let server = if outcome.err.contains("refuses namespaces") {
            skip("no user namespaces for users: the files of the namespace are not shown", TEST);
            1
        } else {
            53
        };
        let expected = format!("True True True True True\n13\n65534 nameserver 192.0.2.{server}\n");
        assert_eq!(outcome.success(), expected);
        let root = stage.python(&["--netns", "lab1", "--root"], "import os; print(os.getuid())");
        assert_eq!(root.success(), "0\n");
    });
}

#[test]
fn unknown_namespace_is_reported_before_the_program_starts() {
    inside_with_users("networks::unknown_namespace_is_reported_before_the_program_starts", || {
        let (stage, _) = laboratory();
        let outcome = stage.python(&["--netns", "gone"], "print('started')");
        assert_eq!((outcome.code, outcome.out.as_str()), (1, ""), "{outcome:?}");
        assert!(outcome.err.contains("ENOENT"), "{outcome:?}");
        // No rule names these, whether they exist or not.
        for name in ["a/b", "nope"] {
            let outcome = stage.python(&["--netns", name], "print('started')");
            assert_eq!((outcome.code, outcome.out.as_str()), (1, ""), "{outcome:?}");
            assert!(outcome.err.contains(&format!("netns = [\"{name}\"]")), "{outcome:?}");
        }
    });
}

#[test]
fn program_of_a_named_namespace_gets_no_socket_of_another_one() {
    const TEST: &str = "networks::program_of_a_named_namespace_gets_no_socket_of_another_one";
    inside_with_users(TEST, || {
        let (mut stage, _) = laboratory();
        let text = format!(
            "{COOKIE}
first = cookie(socket.socket())
{AFTER_GO}
for _ in range(2):
    try:
        print(cookie(socket.socket()) == first)
    except OSError as error:
        print(error.errno)
"
        );
        // Without the broker, and without the supervisor.
        let start = |stage: &Stage| {
            let mut command = stage.exec(&["--netns", "lab1"], &[PYTHON, "-c", &text]);
            let started = command.spawn().unwrap();
            file(stage, "ready");
            started
        };
        let started = start(&stage);
        kill_process(processes(&started).1);
        stage.folder.write("go", "");
        let outcome = Outcome::from(started.wait_with_output().unwrap());
        assert_eq!((outcome.code, outcome.out.as_str()), (71, "100\n100\n"), "{outcome:?}");
        fs::remove_file(stage.folder.join("go")).unwrap();
        fs::remove_file(stage.folder.join("ready")).unwrap();
        let started = start(&stage);
        stage.broker.process().terminate();
        stage.broker.process().ends();
        stage.folder.write("go", "");
        let outcome = Outcome::from(started.wait_with_output().unwrap());
        assert_eq!(outcome.success(), "100\n100\n");
    });
}

/// The same command in a network namespace of its own, as of a container.
fn in_a_container(command: &Command) -> Command {
    let mut inside = Command::new("unshare");
    inside.args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""]);
    inside.arg(command.get_program()).args(command.get_args());
    inside.current_dir(command.get_current_dir().unwrap());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => inside.env(name, value),
            None => inside.env_remove(name),
        };
    }
    inside
}

#[test]
fn sockets_are_in_the_namespace_of_the_launcher() {
    inside_with_users("networks::sockets_are_in_the_namespace_of_the_launcher", || {
        let text = format!(
            "{COOKIE}
plain = socket.socket()
plain.bind(('127.0.0.1', 80))
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
print(cookie(plain) == cookie(raw))
"
        );
        let within = ALL.replace("unchecked = true", "unchecked = true\nnetns = [\"caller\"]");
        let stage = Stage::new(&(within + SESSIONS));
        for options in [&[][..], &["--netns", "caller"]] {
            let command = stage.exec(options, &[PYTHON, "-c", &text]);
            let outcome = Outcome::from(in_a_container(&command).output().unwrap());
            assert_eq!(outcome.success(), "True\n");
        }
        // A rule without netns is about the network of the broker.
        let here = Stage::new(ALL);
        let command = here.exec(&[], &[PYTHON, "-c", &text]);
        let outcome = Outcome::from(in_a_container(&command).output().unwrap());
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(outcome.err.contains("bind to 127.0.0.1:80 refused"), "{outcome:?}");
        assert!(outcome.err.contains("netns = [\"caller\"]"), "{outcome:?}");
    });
}

const SESSIONS: &str = r#"
[[rule]]
name = "sessions"
subject = { uids = [65534] }
allow = ["session"]
"#;

#[test]
fn sandboxes_are_served_in_the_network_of_the_launcher_alone() {
    const TEST: &str = "networks::sandboxes_are_served_in_the_network_of_the_launcher_alone";
    if !program_or_skip("bwrap", TEST) {
        return;
    }
    inside_with_users(TEST, || {
        let stage = Stage::new(ALL);
        let text = "
import socket
try:
    print(socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).fileno())
except OSError as error:
    print('error', error.errno)
";
        let sandbox = ["bwrap", "--dev-bind", "/", "/"];
        let python = [PYTHON, "-c", text];
        let probe: Outcome =
            stage.natively(&[&sandbox[..], &["true"]].concat()).output().unwrap().into();
        if probe.code != 0 {
            return skip("this system refuses bwrap", TEST);
        }
        let shared = ["--unshare-all", "--share-net"];
        let words = [&sandbox[..], &shared, &python].concat();
        assert_eq!(stage.run(&[], &words).success(), "3\n");
        let words = [&sandbox[..], &["--unshare-net"], &python].concat();
        assert_eq!(stage.run(&[], &words).success(), "error 1\n");
        let launcher = ["--unshare-pid", "--proc", "/proc", stage.program(), "exec"];
        let words = [&sandbox[..], &launcher, &python].concat();
        assert_eq!(Outcome::from(stage.natively(&words).output().unwrap()).success(), "3\n");
    });
}
