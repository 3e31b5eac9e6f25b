//! Attempts to use the identity of the broker: paths, credentials and descriptors of `AF_UNIX` sockets.

use std::fs;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};

use serde_json::json;
use sockbroker_sys::{option, peer};
use sockbroker_test_support::{Folder, base64, unbase64};

use crate::arena::attacker;

/// Returns the user and group of the peer of a socket (`SO_PEERCRED`).
fn peer_ids(socket: &impl AsFd) -> (u32, u32) {
    const SO_PEERCRED: i32 = 17;
    let ucred = option::get_bytes(socket.as_fd(), 1, SO_PEERCRED, 12).unwrap();
    let word = |at: usize| u32::from_ne_bytes(ucred[at..at + 4].try_into().unwrap());
    (word(4), word(8))
}

fn ids() -> (u32, u32) {
    (attacker().uid(), attacker().uid())
}

/// A folder that all users can enter and write to.
fn open_folder() -> Folder {
    let folder = Folder::new();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    folder
}

attack!(connect_cannot_enter_a_folder_of_root, mut arena, {
    let folder = Folder::new();
    let path = folder.join("service");
    let service = UnixListener::bind(&path).unwrap();
    service.set_nonblocking(true).unwrap();
    let socket = arena.socket(json!(["AF_UNIX"]));
    let refused = arena.attacker.call("socket.connect", json!([socket, path])).fault();
    assert_eq!(refused.errno(), "EACCES");
    assert!(service.accept().is_err(), "the connection arrived");
});

attack!(bind_cannot_enter_a_folder_of_root, mut arena, {
    let folder = Folder::new();
    let path = folder.join("planted");
    let socket = arena.socket(json!(["AF_UNIX"]));
    let refused = arena.attacker.call("socket.bind", json!([socket, path])).fault();
    assert_eq!(refused.errno(), "EACCES");
    assert!(!path.exists());
});

attack!(messages_cannot_enter_a_folder_of_root, mut arena, {
    let folder = Folder::new();
    let path = folder.join("service");
    let service = UnixDatagram::bind(&path).unwrap();
    service.set_nonblocking(true).unwrap();
    let socket = arena.socket(json!(["AF_UNIX", "SOCK_DGRAM"]));
    let message = json!({ "buffers": ["aGk="], "address": path });
    for (method, params) in [
        ("socket.sendto", json!([socket, "aGk=", 0, path])),
        ("socket.sendmsg", json!([socket, ["aGk="], [], 0, path])),
        ("socket.sendmmsg", json!([socket, [message]])),
        ("socket.connect", json!([socket, path])),
    ] {
        assert_eq!(arena.attacker.call(method, params).fault().errno(), "EACCES", "{method}");
    }
    assert!(service.recv(&mut [0; 8]).is_err(), "a message arrived");
});

attack!(symbolic_link_into_a_closed_folder_is_not_followed, mut arena, {
    let (closed, open) = (Folder::new(), open_folder());
    let service = UnixListener::bind(closed.join("service")).unwrap();
    service.set_nonblocking(true).unwrap();
    let (to, link) = (closed.join("service"), open.join("link"));
    attacker().run(move || symlink(to, link)).unwrap();
    let socket = arena.socket(json!(["AF_UNIX"]));
    let refused = arena.attacker.call("socket.connect", json!([socket, open.join("link")]));
    assert_eq!(refused.fault().errno(), "EACCES");
    assert!(service.accept().is_err(), "the connection arrived");
});

attack!(connect_to_a_socket_writable_only_by_root_is_refused, mut arena, {
    let folder = open_folder();
    let path = folder.join("service");
    let _service = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let socket = arena.socket(json!(["AF_UNIX"]));
    let refused = arena.attacker.call("socket.connect", json!([socket, path])).fault();
    assert_eq!(refused.errno(), "EACCES");
});

attack!(peer_credentials_are_the_attackers_and_not_root, mut arena, {
    let folder = open_folder();
    let path = folder.join("service");
    let service = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let name = SocketAddr::from_abstract_name(b"sockbroker-attack").unwrap();
    let hidden = UnixListener::bind_addr(&name).unwrap();
    for (service, address) in [(service, json!(path)), (hidden, json!("\u{0}sockbroker-attack"))] {
        let socket = arena.socket(json!(["AF_UNIX"]));
        arena.attacker.call("socket.connect", json!([socket, address])).result();
        let (accepted, _) = service.accept().unwrap();
        assert_eq!(peer_ids(&accepted), ids());
        assert_eq!(peer::groups(accepted.as_fd()).unwrap(), [0_u32; 0]);
    }
});

attack!(passed_socketpair_has_the_attackers_credentials, mut arena, {
    let (left, _right) = arena.attacker.pair();
    let handed = arena.attacker.call("socket.fileno", json!([left])).descriptors.remove(0);
    assert_eq!(peer_ids(&handed), ids());
    let made = arena.attacker.call("socket.socketpair", json!({ "want_fd": true }));
    for end in &made.descriptors {
        assert_eq!(peer_ids(end), ids());
    }
});

attack!(listener_of_the_attacker_has_the_attackers_credentials, mut arena, {
    let folder = open_folder();
    let socket = arena.socket(json!(["AF_UNIX"]));
    arena.attacker.call("socket.bind", json!([socket, folder.join("trap")])).result();
    arena.attacker.call("socket.listen", json!([socket])).result();
    let client = UnixStream::connect(folder.join("trap")).unwrap();
    assert_eq!(peer_ids(&client), ids());
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(folder.join("trap")).unwrap());
    assert_eq!(owner, attacker().uid());
});

/// Returns a connection of the attacker whose server receives credentials.
fn with_credentials(arena: &mut crate::arena::Arena) -> (u64, u64) {
    let (left, right) = arena.attacker.pair();
    let passes = json!([right, "SOL_SOCKET", "SO_PASSCRED", 1]);
    arena.attacker.call("socket.setsockopt", passes).result();
    (left, right)
}

attack!(message_credentials_are_the_attackers, mut arena, {
    let (left, right) = with_credentials(&mut arena);
    arena.attacker.call("socket.send", json!([left, "aGk="])).result();
    arena.attacker.call("socket.sendmsg", json!([left, ["aGk="]])).result();
    // A connection that the attacker has made and passed to the broker does not bypass this.
    let (ours, theirs) = UnixStream::pair().unwrap();
    option::set_int(ours.as_fd(), 1, 16, 1).unwrap();
    let adopted = arena.attacker.lend(&theirs);
    arena.attacker.call("socket.send", json!([adopted, "aGk="])).result();
    let seen = sockbroker_sys::message::receive_message(ours.as_fd(), 8, 64, 0).unwrap();
    let sockbroker_sys::control::ControlMessage::Data { data, .. } = &seen.control[0] else {
        panic!("no credentials: {seen:?}");
    };
    let mut all = vec![data.clone()];
    for _ in 0..2 {
        let got = arena.attacker.call("socket.recvmsg", json!([right, 2, 64])).result().clone();
        all.push(unbase64(&got["ancdata"][0][2]));
    }
    for ucred in all {
        assert_eq!(ucred[4..], [attacker().uid(); 2].map(u32::to_ne_bytes).concat());
    }
});

attack!(forged_credentials_are_refused, mut arena, {
    let (left, right) = with_credentials(&mut arena);
    let uid = attacker().uid();
    let own = std::process::id();
    for (pid, user, group) in [(own, 0, 0), (own, uid, 0), (own, 0, uid), (1, uid, uid), (1, 0, 0)]
    {
        let ucred = base64([pid, user, group].map(u32::to_ne_bytes).concat());
        let params = json!([left, ["aGk="], [["SOL_SOCKET", 2, ucred]]]);
        let refused = arena.attacker.call("socket.sendmsg", params).fault();
        assert_eq!(refused.errno(), "EPERM", "{pid} {user} {group}");
    }
    arena.attacker.call("socket.setblocking", json!([right, false])).result();
    let nothing = arena.attacker.call("socket.recv", json!([right, 8])).fault();
    assert_eq!(nothing.errno(), "EAGAIN");
});

attack!(descriptor_numbers_of_the_broker_cannot_be_used, mut arena, {
    let (left, right) = arena.attacker.pair();
    let numbers = base64([0_u32, 1, 2, 3, 4, 5].map(u32::to_ne_bytes).concat());
    for ancillary in [
        json!(["SOL_SOCKET", "SCM_RIGHTS", numbers]),
        json!(["SOL_SOCKET", "SCM_RIGHTS", { "descriptors": 1, "rest": numbers }]),
        json!(["SOL_SOCKET", "SCM_RIGHTS", { "descriptors": 1 }]),
    ] {
        let params = json!([left, ["aGk="], [ancillary]]);
        let refused = arena.attacker.call("socket.sendmsg", params).fault();
        assert!(
            [(-32602, "argument"), (4003, "descriptor")].contains(&refused.kind()),
            "{refused:?}"
        );
    }
    arena.attacker.call("socket.setblocking", json!([right, false])).result();
    assert_eq!(arena.attacker.call("socket.recv", json!([right, 8])).fault().errno(), "EAGAIN");
});
