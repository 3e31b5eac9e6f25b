//! Files that are reached through descriptors.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::thread;

use super::*;
use crate::socket::{accept, connect, create, listen, local_address};
use crate::testing::{TempDir, errno};

fn stream() -> OwnedFd {
    create(libc::AF_UNIX, libc::SOCK_STREAM, 0).unwrap()
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

/// Binds in a thread that ends, as the contract requires.
fn bind_in(
    folder: &OwnedFd,
    name: &[u8],
    written: Option<&[u8]>,
) -> (OwnedFd, io::Result<Vec<u8>>) {
    let socket = stream();
    let bound = thread::scope(|scope| {
        let run = || bind(socket.as_fd(), folder.as_fd(), name, written);
        scope.spawn(run).join().unwrap()
    });
    (socket, bound)
}

#[test]
fn socket_file_is_reached_through_its_descriptor() {
    let place = TempDir::new();
    let folder = open_directory(&bytes(&place.path(""))).unwrap();
    let path = bytes(&place.path("s"));
    let (server, name) = bind_in(&folder, b"s", Some(&path));
    assert_eq!(name.unwrap(), path);
    listen(server.as_fd(), 1).unwrap();
    symlink(place.path("s"), place.path("link")).unwrap();
    let file = open(&bytes(&place.path("link"))).unwrap();
    assert_eq!(identify(file.as_fd()).unwrap().1, FileKind::Socket);
    assert_eq!(path_of(file.as_fd()).unwrap(), path);
    // A later change of the link has no effect.
    fs::remove_file(place.path("link")).unwrap();
    let client = stream();
    connect(client.as_fd(), &address_of(file.as_fd())).unwrap();
    accept(server.as_fd()).unwrap();
}

#[test]
fn path_that_leads_elsewhere_is_bound_by_its_directory() {
    let (place, other) = (TempDir::new(), TempDir::new());
    let folder = open_directory(&bytes(&place.path(""))).unwrap();
    for written in [None, Some(bytes(&other.path("s"))), Some(b"s".to_vec())] {
        let (server, name) = bind_in(&folder, b"s", written.as_deref());
        assert_eq!(name.unwrap(), b"s");
        let shown = local_address(server.as_fd()).unwrap().decode(0);
        assert_eq!(shown, Some(Address::UnixPath(b"s".to_vec())));
        assert!(!other.path("s").exists());
        fs::remove_file(place.path("s")).unwrap();
    }
}

#[test]
fn bound_file_of_a_socket_is_reported() {
    let place = TempDir::new();
    let folder = open_directory(&bytes(&place.path(""))).unwrap();
    let (server, _) = bind_in(&folder, b"s", None);
    let found = fs::symlink_metadata(place.path("s")).unwrap();
    let expected = {
        use std::os::unix::fs::MetadataExt;
        BoundFile::of((found.dev(), found.ino()))
    };
    assert_eq!(bound_file(server.as_fd()).unwrap(), Some(expected));
    assert_eq!(bound_file(stream().as_fd()).unwrap(), None);
}

#[test]
fn links_to_this_process_are_not_followed() {
    for path in [&b"/proc/self/cwd"[..], b"/proc/self/root", b"/proc/thread-self/cwd/x"] {
        assert_eq!(errno(open(path)), libc::ELOOP, "{}", String::from_utf8_lossy(path));
    }
    assert_eq!(errno(open_directory(b"/proc/self/status")), libc::ENOTDIR);
}
