//! A socket that receives log entries in the native protocol of the systemd journal.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// The fields of an entry, by name.
pub type Entry = BTreeMap<String, String>;

/// The socket of the journal.
#[derive(Debug)]
pub struct Journal(UnixDatagram);

impl Journal {
    pub fn bind(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(crate::watch::HANG)).unwrap();
        Self(socket)
    }

    pub fn entry(&self) -> Entry {
        let mut datagram = vec![0; 1 << 16];
        let length = self.0.recv(&mut datagram).unwrap();
        fields(&datagram[..length])
    }

    /// Reads entries until one matches, and returns it.
    pub fn entry_with(&self, holds: impl Fn(&Entry) -> bool) -> Entry {
        loop {
            let entry = self.entry();
            if holds(&entry) {
                return entry;
            }
        }
    }
}

/// Parses the fields of a datagram. Fails if a field occurs twice.
pub fn fields(mut rest: &[u8]) -> Entry {
    let mut found = BTreeMap::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap();
        let name = String::from_utf8(rest[..end].to_vec()).unwrap();
        let known = |c: char| c == '_' || c.is_ascii_uppercase() || c.is_ascii_digit();
        assert!(name.chars().all(known) && name.len() <= 64, "the journal refuses {name:?}");
        let length = u64::from_le_bytes(rest[end + 1..end + 9].try_into().unwrap());
        let from = end + 9;
        let to = from + usize::try_from(length).unwrap();
        let value = String::from_utf8(rest[from..to].to_vec()).unwrap();
        assert_eq!(found.insert(name.clone(), value), None, "field {name} occurs twice");
        assert_eq!(rest[to], b'\n');
        rest = &rest[to + 1..];
    }
    found
}
