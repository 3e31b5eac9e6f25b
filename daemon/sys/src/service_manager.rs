//! Messages to the service manager with descriptors (`sd_pid_notify_with_fds(3)`). Sending never waits.

use std::env;
use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::stream;

/// The socket of `$NOTIFY_SOCKET`.
#[derive(Debug)]
pub struct ServiceManager(UnixDatagram);

impl ServiceManager {
    /// Connects to the service manager; `None` if there is none.
    pub fn connect() -> io::Result<Option<Self>> {
        env::var_os("NOTIFY_SOCKET").map(|path| Self::at(&path)).transpose()
    }

    /// Connects to the service manager whose socket has this name.
    pub fn at(path: &OsStr) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        match path.as_bytes() {
            [b'@', name @ ..] => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
            _ => socket.connect(path)?,
        }
        Ok(Self(socket))
    }

    /// Sends a message, with copies of these descriptors. `WouldBlock` if the service manager has no room for it now.
    pub fn send(&self, text: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = IoSlice::new(text.as_bytes());
        stream::send_stream(self.0.as_fd(), &[text], descriptors).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use bytes::BytesMut;

    use super::*;

    #[test]
    fn message_and_descriptors_arrive_and_a_full_queue_is_reported() {
        let address =
            SocketAddr::from_abstract_name(format!("test-{}", std::process::id())).unwrap();
        let receiver = UnixDatagram::bind_addr(&address).unwrap();
        let name = format!("@test-{}", std::process::id());
        let manager = ServiceManager::at(name.as_ref()).unwrap();
        manager.send("FDSTORE=1\nFDNAME=x", &[receiver.as_fd()]).unwrap();
        let (mut bytes, mut descriptors) = (BytesMut::new(), VecDeque::new());
        stream::receive_stream(receiver.as_fd(), &mut bytes, 99, &mut descriptors).unwrap();
        assert_eq!((&bytes[..], descriptors.len()), (&b"FDSTORE=1\nFDNAME=x"[..], 1));
        let full = (0..100_000).find_map(|_| manager.send("x", &[]).err());
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
    }
}
