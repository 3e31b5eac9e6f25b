//! Sockets and directories for the tests of this crate. Every socket is non-blocking.

use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sockbroker_proto::address::Address;

use crate::address::RawAddress;
use crate::socket::{accept, bind, connect, create, listen, local_address, pair};

pub(crate) fn unix_pair(kind: i32) -> (OwnedFd, OwnedFd) {
    pair(libc::AF_UNIX, kind | libc::SOCK_NONBLOCK, 0).unwrap()
}

pub(crate) fn socket(family: i32, kind: i32) -> OwnedFd {
    create(family, kind | libc::SOCK_NONBLOCK, 0).unwrap()
}

/// 127.0.0.1 and a port, 0 for the kernel to choose.
pub(crate) fn loopback(port: u16) -> RawAddress {
    RawAddress::encode(&Address::Inet { host: Ipv4Addr::LOCALHOST, port })
}

/// A UDP socket bound to the loopback, and its address.
pub(crate) fn udp_socket() -> (OwnedFd, RawAddress) {
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM);
    bind(socket.as_fd(), &loopback(0)).unwrap();
    let address = local_address(socket.as_fd()).unwrap();
    (socket, address)
}

/// A listening TCP socket on the loopback, and its address.
pub(crate) fn listener() -> (OwnedFd, RawAddress) {
    let listener = socket(libc::AF_INET, libc::SOCK_STREAM);
    bind(listener.as_fd(), &loopback(0)).unwrap();
    listen(listener.as_fd(), 5).unwrap();
    let address = local_address(listener.as_fd()).unwrap();
    (listener, address)
}

/// Both ends of a TCP connection over the loopback.
pub(crate) fn tcp_pair() -> (OwnedFd, OwnedFd) {
    let (listener, address) = listener();
    let client = socket(libc::AF_INET, libc::SOCK_STREAM);
    match connect(client.as_fd(), &address) {
        Ok(()) => {}
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS)),
    }
    wait(listener.as_fd(), libc::POLLIN);
    let (server, _) = accept(listener.as_fd()).unwrap();
    wait(client.as_fd(), libc::POLLOUT);
    (client, server)
}

/// Waits up to two seconds for an event of `poll(2)`.
pub(crate) fn wait(fd: BorrowedFd<'_>, events: i16) {
    let mut entry = [PollFd::new(fd, PollFlags::from_bits_retain(events))];
    assert_eq!(poll(&mut entry, PollTimeout::from(2000u16)), Ok(1), "no event within two seconds");
}

/// The errno of a result that must have failed.
pub(crate) fn errno<T>(result: io::Result<T>) -> i32 {
    let error = result.err().expect("the call must fail");
    error.raw_os_error().expect("the error must have an errno")
}

/// Asserts that the crate refused the call before any system call.
pub(crate) fn assert_refused<T>(result: io::Result<T>) {
    let error = result.err().expect("the call must be refused");
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(error.raw_os_error(), None);
}

/// Reports that a test is skipped, on the standard error that the test runner does not capture, in the words that
/// `.ci/run` counts.
pub(crate) fn skip(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("sockbroker-sys");
    // One write, so that lines do not mix. The test runner can be in the middle of a line.
    let line = format!("\nSKIPPED ({reason}): {test}\n");
    io::stderr().write_all(line.as_bytes()).unwrap();
}

/// The result; `None`, and the test is reported as skipped, if a privilege or a family is missing.
pub(crate) fn unless_lacking<T>(what: &str, result: io::Result<T>) -> Option<T> {
    const LACKING: [i32; 3] = [libc::EPERM, libc::EACCES, libc::EAFNOSUPPORT];
    match result {
        Err(error) if error.raw_os_error().is_some_and(|errno| LACKING.contains(&errno)) => {
            skip(&format!("needs {what}"));
            None
        }
        result => Some(result.unwrap()),
    }
}

/// A directory that is removed on drop.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    /// A new directory below the system's temporary one.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sockbroker-sys-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

pub(crate) fn unix_address(path: &Path) -> RawAddress {
    RawAddress::encode(&Address::UnixPath(path.as_os_str().as_encoded_bytes().to_vec()))
}
