//! Attacks through the path of the socket, before the broker starts.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use sockbroker_test_support::daemon::Process;
use sockbroker_test_support::namespace::inside_with_users;
use sockbroker_test_support::{Folder, Start};

use crate::arena::{PROGRAM, attacker};

/// A folder that all users can write to, as a careless operator might choose.
fn careless() -> Folder {
    let folder = Folder::new();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    folder
}

/// Starts a broker at a path where it must not start, and returns its error.
fn refuses(path: &std::path::Path) -> String {
    let (mut command, folder) = Start::new(PROGRAM).command();
    command.arg("--socket").arg(path).stdin(Stdio::null()).stdout(Stdio::null());
    let mut process = Process::spawn(command);
    let status = process.ends();
    assert_eq!(status.code(), Some(69));
    fs::read_to_string(folder.join("log")).unwrap()
}

#[test]
fn link_to_a_file_of_root_is_not_followed() {
    inside_with_users("startup::link_to_a_file_of_root_is_not_followed", || {
        let (open, closed) = (careless(), Folder::new());
        let victim = closed.write("shadow", "secret");
        let before = fs::metadata(&victim).unwrap();
        let path = open.join("socket");
        let (to, link) = (victim.clone(), path.clone());
        attacker().run(move || symlink(to, link)).unwrap();
        assert!(refuses(&path).contains("not a socket"));
        let after = fs::metadata(&victim).unwrap();
        assert_eq!((before.mode(), before.ino()), (after.mode(), after.ino()));
        assert_eq!(fs::read_to_string(&victim).unwrap(), "secret");
    });
}

#[test]
fn dangling_link_creates_no_socket() {
    inside_with_users("startup::dangling_link_creates_no_socket", || {
        let (open, other) = (careless(), careless());
        let (to, link) = (other.join("elsewhere"), open.join("socket"));
        let path = link.clone();
        attacker().run(move || symlink(to, link)).unwrap();
        assert!(refuses(&path).contains("not a socket"));
        assert!(!other.join("elsewhere").exists());
    });
}

#[test]
fn socket_of_another_user_is_not_replaced() {
    inside_with_users("startup::socket_of_another_user_is_not_replaced", || {
        let open = careless();
        let path = open.join("socket");
        let at = path.clone();
        let trap = attacker().run(move || UnixListener::bind(at)).unwrap();
        assert!(refuses(&path).contains("another user"));
        let owner = fs::metadata(&path).unwrap().uid();
        assert_eq!(owner, attacker().uid());
        drop(trap);
        assert!(refuses(&path).contains("another user"));
    });
}
