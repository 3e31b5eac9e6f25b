//! Calls on `AF_UNIX` sockets run with the caller's identity: the kernel checks paths against the caller, and
//! reports the caller to the peer.
//!
//! The callers in these tests are root with other groups than the broker: the built-in rule allows them
//! everything, and their identity differs from the broker's.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixDatagram, UnixListener};

use serde_json::{Value, json};
use sockbroker_sys::peer;
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::mount;
use sockbroker_test_support::skip::skip;
use sockbroker_test_support::user::{NOBODY, other_users_or_skip};
use sockbroker_test_support::{Daemon, Folder, LspClient, User, base64, bounded, unbase64};

use crate::broker::{broker, limited};

const GROUP: u32 = 4242;

fn other_root() -> User {
    User::new(0, 0, &[GROUP])
}

/// A folder that only a process with `CAP_DAC_OVERRIDE` can enter.
fn folder_of_nobody() -> Folder {
    let folder = Folder::new();
    chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    folder
}

fn client(broker: &Daemon) -> LspClient {
    other_root().lsp(broker)
}

#[test]
fn unix_path_without_caller_access_is_refused() {
    if !other_users_or_skip("identity::unix_path_without_caller_access_is_refused") {
        return;
    }
    bounded(20, || {
        let broker = broker().open_to_all();
        let folder = folder_of_nobody();
        let (inside, new) = (folder.join("s"), folder.join("new"));
        let _listener = UnixListener::bind(&inside).unwrap();
        let datagrams = folder.join("d");
        let receiver = UnixDatagram::bind(&datagrams).unwrap();
        receiver.set_nonblocking(true).unwrap();
        let mut client = client(&broker);
        let stream = client.call("socket.socket", json!(["AF_UNIX"])).handle();
        let datagram = client.call("socket.socket", json!(["AF_UNIX", "SOCK_DGRAM"])).handle();
        let message = json!({ "buffers": ["aGk="], "address": datagrams });
        for (method, params) in [
            ("socket.connect", json!([stream, inside])),
            ("socket.bind", json!([stream, new])),
            ("socket.connect", json!([datagram, datagrams])),
            ("socket.sendto", json!([datagram, "aGk=", 0, datagrams])),
            ("socket.sendmsg", json!([datagram, ["aGk="], [], 0, datagrams])),
            ("socket.sendmmsg", json!([datagram, [message]])),
        ] {
            assert_eq!(client.call(method, params).fault().errno(), "EACCES", "{method}");
        }
        assert_eq!(*client.call("socket.connect_ex", json!([stream, inside])).result(), 13);
        assert!(receiver.recv(&mut [0; 8]).is_err(), "something arrived");
        assert!(!new.exists());
        // The user of the broker can, as without a broker.
        let mut own = broker.lsp();
        let stream = own.call("socket.socket", json!(["AF_UNIX"])).handle();
        own.call("socket.connect", json!([stream, inside])).result();
    });
}

#[test]
fn peer_credentials_are_those_of_the_caller() {
    if !other_users_or_skip("identity::peer_credentials_are_those_of_the_caller") {
        return;
    }
    bounded(20, || {
        let broker = broker().open_to_all();
        let folder = Folder::new();
        let mut client = client(&broker);
        // To a server, to a client, and to the receiver of one end of a pair.
        let listener = UnixListener::bind(folder.join("s")).unwrap();
        let connecting = client.call("socket.socket", json!(["AF_UNIX"])).handle();
        client.call("socket.connect", json!([connecting, folder.join("s")])).result();
        let (accepted, _) = listener.accept().unwrap();
        let listening = client.call("socket.socket", json!(["AF_UNIX"])).handle();
        client.call("socket.bind", json!([listening, folder.join("l")])).result();
        client.call("socket.listen", json!([listening])).result();
        let connected = std::os::unix::net::UnixStream::connect(folder.join("l")).unwrap();
        let (end, _) = client.pair();
        let mut handed = client.call("socket.fileno", json!([end]));
        let handed = handed.descriptors.remove(0);
        for socket in [accepted.as_fd(), connected.as_fd(), handed.as_fd()] {
            assert_eq!(peer::groups(socket).unwrap(), [GROUP]);
        }
        let own = broker.lsp().call("socket.socketpair", json!({ "want_fd": true }));
        assert_ne!(peer::groups(own.descriptors[0].as_fd()).unwrap(), [GROUP]);
    });
}

/// Encodes a `struct ucred`.
fn credentials(pid: u32, uid: u32, gid: u32) -> Value {
    json!([1, 2, base64([pid, uid, gid].map(u32::to_ne_bytes).concat())])
}

#[test]
fn scm_credentials_are_those_of_the_caller_or_refused() {
    if !other_users_or_skip("identity::scm_credentials_are_those_of_the_caller_or_refused") {
        return;
    }
    bounded(20, || {
        let mut broker = broker().open_to_all();
        let mut client = client(&broker);
        let info = client.call("broker.info", Value::Null).result()["process"].clone();
        let brokers = u32::try_from(info["pid"].as_u64().unwrap()).unwrap();
        let (left, right) = client.pair();
        let passes = json!([right, "SOL_SOCKET", "SO_PASSCRED", 1]);
        client.call("socket.setsockopt", passes).result();
        let own = std::process::id();
        for wrong in [
            credentials(own, NOBODY, 0),
            credentials(own, 0, NOBODY),
            credentials(1, 0, 0),
            credentials(brokers, 0, 0),
        ] {
            let refused = client.call("socket.sendmsg", json!([left, ["aGk="], [wrong]])).fault();
            assert_eq!(refused.errno(), "EPERM");
        }
        let short = json!([1, 2, base64([0; 8])]);
        let refused = client.call("socket.sendmsg", json!([left, ["aGk="], [short]])).fault();
        assert_eq!(refused.errno(), "EINVAL");
        let file = fs::File::open("/etc/hostname").unwrap();
        let file = [file.as_fd()];
        // Explicit, and added by the kernel: the process ID is the broker's, which sends.
        client.call("socket.sendmsg", json!([left, ["aGk="], [credentials(own, 0, 0)]])).result();
        // A worker with another id does not send itself.
        let other = broker.process().caller_of(0).filter(|_| info["uid"] != 0);
        let brokers = other.unwrap_or(brokers);
        client.call("socket.send", json!([left, "aGk="])).result();
        client.call("socket.sendall", json!([left, "aGk="])).result();
        let message = json!({ "buffers": ["aGk="] });
        client.call("socket.sendmmsg", json!([left, [message]])).result();
        let sent = RequestParts::descriptors(&file);
        client.call_with_parts("socket.sendfile", json!([left, 0, 0, 2]), sent).result();
        for _ in 0..5 {
            let received = client.call("socket.recvmsg", json!([right, 2, 100]));
            let item = &received.result()["ancdata"][0];
            let expected = [brokers, 0, 0].map(u32::to_ne_bytes).concat();
            assert_eq!((&item[1], unbase64(&item[2])), (&json!(2), expected));
        }
    });
}

#[test]
fn bound_path_belongs_to_the_caller_and_connect_timeout_applies() {
    let test = "identity::bound_path_belongs_to_the_caller_and_connect_timeout_applies";
    if !other_users_or_skip(test) {
        return;
    }
    bounded(20, || {
        let broker = broker().open_to_all();
        let folder = Folder::new();
        let mut client = client(&broker);
        let listening = client.call("socket.socket", json!(["AF_UNIX"])).handle();
        client.call("socket.bind", json!([listening, folder.join("l")])).result();
        client.call("socket.listen", json!([listening, 0])).result();
        let connect = |client: &mut LspClient, timeout: Value| {
            let stream = client.call("socket.socket", json!(["AF_UNIX"])).handle();
            client.call("socket.settimeout", json!([stream, timeout])).result();
            client.call("socket.connect", json!([stream, folder.join("l")]))
        };
        while !connect(&mut client, json!(0)).is_fault() {}
        assert_eq!(connect(&mut client, json!(0)).fault().errno(), "EAGAIN");
        assert_eq!(connect(&mut client, json!(5)).fault().errno(), "EAGAIN", "as in CPython");
        let stream = client.call("socket.socket", json!(["AF_UNIX"])).handle();
        let waiting = client.send("socket.connect", json!([stream, folder.join("l")]));
        client.expect_silence_for(100);
        client.call("socket.accept", json!([listening])).result();
        client.answer(waiting).result();
    });
}

/// A file system that never answers (`fuse(4)`): every access to a path in it blocks.
struct Stuck {
    folder: Folder,
    _device: fs::File,
}

impl Stuck {
    fn mount(test: &str) -> Option<Self> {
        let folder = Folder::new();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let place = folder.join("stuck");
        fs::create_dir(&place).unwrap();
        let device = fs::File::options().read(true).write(true).open("/dev/fuse");
        let mounted =
            device.and_then(|device| mount::fuse(&place, device.as_fd()).map(|()| device));
        match mounted {
            Ok(device) => Some(Self { folder, _device: device }),
            Err(error) => {
                skip(&format!("no FUSE here: {error}"), test);
                None
            }
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.join("stuck/s")
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        mount::detach(&self.folder.join("stuck"));
    }
}

#[test]
fn hanging_path_blocks_only_its_caller() {
    let test = "identity::hanging_path_blocks_only_its_caller";
    if !other_users_or_skip(test) {
        return;
    }
    let Some(stuck) = Stuck::mount(test) else { return };
    bounded(30, move || {
        for limit in ["identity_jobs_per_user", "identity_jobs"] {
            let broker = limited(&[(limit, 2)]).open_to_all();
            let mut caller = client(&broker);
            let connect = |client: &mut LspClient, timeout: Value| {
                let stream = client.call("socket.socket", json!(["AF_UNIX"])).handle();
                client.call("socket.settimeout", json!([stream, timeout])).result();
                client.send("socket.connect", json!([stream, stuck.path()]))
            };
            let held = [connect(&mut caller, Value::Null), connect(&mut caller, Value::Null)];
            // All threads are in use: even socketpair waits, but no other kind of call.
            let waiting = caller.send("socket.socketpair", Value::Null);
            caller.expect_silence_for(200);
            caller.expect_service();
            let late = connect(&mut caller, json!(0.3));
            assert_eq!(caller.answer(late).fault().kind(), (1001, "timeout"));
            let mut own = broker.lsp();
            own.pair();
            for id in held.into_iter().chain([waiting]) {
                caller.cancel(id);
                assert_eq!(caller.answer(id).fault().code, -32800);
            }
        }
    });
}
