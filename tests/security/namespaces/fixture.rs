//! The broker, its policy, and clients in network namespaces of their own.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use sockbroker_sys::namespace;
use sockbroker_test_support::namespace::inside_with_users;
use sockbroker_test_support::wire::Wire;
use sockbroker_test_support::{Answer, Daemon, LspClient, Start, User};

use crate::arena::PROGRAM;

pub(super) const POLICY: &str = r#"
version = 1

[[rule]]
name = "own namespace"
subject = { uids = [0, 4200001, 4200002] }
allow = ["create", "bind", "listen", "accept", "connect", "send", "receive", "option", "capture", "inject",
         "interfaces", "ioctl", "resolve"]
option = ["ordinary", "mark"]
netns = ["caller"]

[[rule]]
name = "own namespaces"
subject = { uids = [4200001] }
allow = ["create", "bind", "option"]
option = ["ordinary"]
family = ["AF_INET"]
type = ["SOCK_DGRAM"]
netns = ["owned"]

[[rule]]
name = "interfaces of own namespaces"
subject = { uids = [4200001] }
allow = ["interfaces"]
netns = ["owned"]

[[rule]]
name = "laboratory"
subject = { uids = [4200002] }
allow = ["create", "bind", "send", "receive", "option"]
netns = ["lab1", "link", "file", "uts", "user", "pipe", "gone", "own"]

[[rule]]
name = "not here"
subject = { uids = [4200002] }
deny = ["create"]
netns = ["lab2"]

[[rule]]
name = "look up"
subject = { uids = [4200001] }
allow = ["resolve"]

[[rule]]
name = "tcp here"
subject = { uids = [4200001, 4200002] }
allow = ["create", "adopt"]
family = ["AF_INET"]
type = ["SOCK_STREAM"]
"#;

pub(super) const NETNS_COOKIE: i32 = 71;

/// Passes a connection to the broker, of a process that ends then, over standard input.
const CONNECT: &str = r#"
import os, socket, sys
path, uid = sys.argv[1], int(sys.argv[2])
if uid:
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
connection = socket.socket(socket.AF_UNIX)
connection.connect(path)
socket.send_fds(socket.socket(fileno=0), [b"x"], [connection.fileno()])
"#;

/// How a client gets its network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pod {
    /// With a user namespace of its own.
    Rootless,
    /// With a user namespace within another one of its own.
    Nested,
    /// Within the user namespace of the broker.
    Plain,
}

/// A connection of a process in a network namespace of its own, which has ended. The loopback interface there is up.
/// `None` if the system refuses such namespaces.
pub(super) fn connection(
    broker: &Daemon,
    user: &User,
    pod: Pod,
    shell: &str,
) -> Option<UnixStream> {
    let (own, other) = UnixStream::pair().unwrap();
    let mut command = Command::new("unshare");
    let uid = match pod {
        Pod::Rootless => {
            command.uid(user.uid()).gid(user.uid()).args(["--user", "--map-root-user"]);
            0
        }
        Pod::Nested => {
            command.uid(user.uid()).gid(user.uid()).args(["--user", "--map-root-user"]);
            command.args(["unshare", "--user", "--map-root-user"]);
            0
        }
        Pod::Plain => user.uid(),
    };
    let script = format!("ip link set lo up && {shell}exec python3 -c \"$0\" \"$@\"");
    command.args(["--net", "sh", "-c", &script, CONNECT]);
    command.arg(broker.socket()).arg(uid.to_string()).stdin(Stdio::from(OwnedFd::from(other)));
    let output = command.output().unwrap();
    if !output.status.success() {
        return None;
    }
    let mut wire = Wire::socket(own);
    assert_eq!(wire.take(1).as_deref(), Some(&b"x"[..]));
    wire.descriptors.pop_front().map(UnixStream::from)
}

pub(super) fn cookie(stream: &impl AsFd) -> u64 {
    namespace::cookie(stream.as_fd()).unwrap()
}

/// Asks the kernel in which namespace the socket of a handle is.
pub(super) fn cookie_of(client: &mut LspClient, handle: u64) -> u64 {
    let answer = client.call("socket.getsockopt", json!([handle, 1, NETNS_COOKIE, 8]));
    let bytes = answer.bytes_of(answer.result());
    u64::from_ne_bytes(bytes.try_into().unwrap())
}

pub(super) fn create(client: &mut LspClient, socket: (&str, &str, i32), netns: &str) -> Answer {
    let (family, kind, proto) = socket;
    let params =
        json!({"family": family, "type": kind, "proto": proto, "netns": netns, "timeout": 120});
    client.call("socket.socket", params)
}

pub(super) const PING: (&str, &str, i32) = ("AF_INET", "SOCK_RAW", 1);
pub(super) const TCP: (&str, &str, i32) = ("AF_INET", "SOCK_STREAM", 0);
pub(super) const UDP: (&str, &str, i32) = ("AF_INET", "SOCK_DGRAM", 0);
pub(super) const PACKET: (&str, &str, i32) = ("AF_PACKET", "SOCK_RAW", 0);

pub(super) fn start(options: impl FnOnce(Start) -> Start) -> Daemon {
    options(Start::new(PROGRAM)).policy(POLICY).start().open_to_all()
}

pub(super) fn run(test: &str, body: impl FnOnce() + Send + 'static) {
    let (_, test) = test.split_once("::").unwrap();
    inside_with_users(test, body);
}

pub(super) fn with_one_process(start: Start) -> Start {
    start.section("[processes]\nworkers = false\n")
}

/// Makes a network namespace with a name.
pub(super) fn make(path: &Path) {
    fs::write(path, "").unwrap();
    let mut command = Command::new("unshare");
    command.arg(format!("--net={}", path.display())).args(["ip", "link", "set", "lo", "up"]);
    assert!(command.status().unwrap().success());
}
