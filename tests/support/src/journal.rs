//! A journal that is a test's own: its native protocol, read.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// The fields of an entry, by name.
pub type Entry = BTreeMap<String, String>;

/// A socket where entries arrive.
#[derive(Debug)]
pub struct Journal(UnixDatagram);

impl Journal {
    /// Listens at a path.
    pub fn bind(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(crate::watch::HANG)).unwrap();
        Self(socket)
    }

    /// The next entry.
    pub fn entry(&self) -> Entry {
        let mut datagram = vec![0; 1 << 16];
        let length = self.0.recv(&mut datagram).unwrap();
        fields(&datagram[..length])
    }

    /// The next entry of which this holds.
    pub fn entry_with(&self, holds: impl Fn(&Entry) -> bool) -> Entry {
        loop {
            let entry = self.entry();
            if holds(&entry) {
                return entry;
            }
        }
    }
}

/// The fields of a datagram, as the journal reads them: each is there once.
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
        assert_eq!(found.insert(name.clone(), value), None, "{name} is there twice");
        assert_eq!(rest[to], b'\n');
        rest = &rest[to + 1..];
    }
    found
}
