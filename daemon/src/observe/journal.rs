//! The journal's native protocol (systemd's "Native Journal Protocol"): an entry is one datagram.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// Where the journal listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// The prefix of the broker's own fields.
const PREFIX: &str = "SOCKBROKER_";

/// How urgent an entry is, as `syslog(3)` numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Priority {
    Error = 3,
    Warning = 4,
    Notice = 5,
    Info = 6,
    Debug = 7,
}

/// An entry that is being written.
#[derive(Debug)]
pub(super) struct Entry(Vec<u8>);

impl Entry {
    pub(super) fn new(message: &str, priority: Priority) -> Self {
        let mut entry = Self(Vec::with_capacity(1024));
        entry.put("MESSAGE", message);
        entry.put("PRIORITY", &(priority as u8).to_string());
        entry.put("SYSLOG_IDENTIFIER", "sockbrokerd");
        entry
    }

    /// Adds a field of the journal. The length precedes the value, so that nothing in a value can be taken
    /// for another field.
    pub(super) fn put(&mut self, name: &str, value: &str) {
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'\n');
        self.0.extend_from_slice(&(value.len() as u64).to_le_bytes());
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(b'\n');
    }

    /// Adds a field of the broker.
    pub(super) fn put_own(&mut self, name: &str, value: &str) {
        let upper = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
        let upper: String = upper.map(|c| c.to_ascii_uppercase()).collect();
        self.put(&format!("{PREFIX}{upper}"), value);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A socket that sends to the journal. Each entry goes to the process that listens at the path at that
/// time, so that a restarted journal is found.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    /// Opens the journal at this path. Fails if no process listens there now.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        UnixDatagram::unbound()?.connect(path)?;
        Ok(Self { socket: UnixDatagram::unbound()?, path: path.to_owned() })
    }

    /// Makes sending fail with `WouldBlock`, instead of waiting, while the journal does not read.
    pub(super) fn never_wait(&self) -> io::Result<()> {
        self.socket.set_nonblocking(true)
    }

    pub(super) fn send(&self, entry: &Entry) -> io::Result<()> {
        self.socket.send_to(entry.bytes(), &self.path).map(drop)
    }
}
