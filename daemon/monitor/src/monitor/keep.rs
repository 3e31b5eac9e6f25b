//! The lots of each principal, which outlive its worker, and where the service manager keeps them, the broker.
//!
//! An outer lot has the lots of one principal and an index: who owns them, and which sessions may be recovered from
//! them. No worker has an end of an outer lot.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use sockbroker_sys::credentials::Credentials;
use sockbroker_sys::lot::{Lot, Parked};
use sockbroker_sys::sealed;

use crate::message::{Index, KeptSession, LOTS};

/// The version of the index that is written, and the newest that is read.
pub(super) const FORMAT: u8 = 1;
/// Workers that may end while they recover the same sessions.
pub(super) const CRASHES: u32 = 3;
/// The bytes of the largest index.
const INDEX: usize = 64 << 20;
/// What stands for a time that no clock can represent.
const FOREVER: Duration = Duration::from_hours(10 * 365 * 24);
/// How long an answer waits for the service manager.
pub(super) const STORE: Duration = Duration::from_secs(5);

/// A message of an outer lot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    /// The index, with the number of its writing. Descriptor: sealed memory.
    Index(u64),
    /// A lot, with its number. Descriptors: its ends.
    Lot(u64),
}

impl Label {
    fn to_bytes(self) -> Vec<u8> {
        let (kind, number) = match self {
            Self::Index(number) => (b'i', number),
            Self::Lot(number) => (b'l', number),
        };
        [&[FORMAT, kind][..], &number.to_le_bytes()].concat()
    }

    fn read(bytes: &[u8]) -> Result<Self, String> {
        match bytes {
            [FORMAT, kind, number @ ..] => {
                let number: [u8; 8] = number.try_into().map_err(|_error| "its length is wrong")?;
                let number = u64::from_le_bytes(number);
                match kind {
                    b'i' => Ok(Self::Index(number)),
                    b'l' => Ok(Self::Lot(number)),
                    _ => Err("it is of an unknown kind".to_owned()),
                }
            }
            [version, ..] if *version > FORMAT => Err(format!(
                "it has version {version}, and this broker reads up to version {FORMAT}"
            )),
            _ => Err("it is not a message".to_owned()),
        }
    }
}

/// What a worker waits for, once the service manager has its lots.
pub(super) type Waiting = (u64, u64);

/// The lots of one principal.
#[derive(Debug)]
pub(super) struct Kept {
    /// The name in the store.
    pub(super) name: String,
    outer: Lot,
    pub(super) owner: Credentials,
    pub(super) sessions: BTreeMap<u64, KeptSession>,
    /// The handles that its worker may park.
    pub(super) handles: u64,
    pub(super) serial: u64,
    pub(super) crashes: u32,
    written: u64,
    /// Whether a worker is recovering the sessions.
    pub(super) recovering: bool,
    /// Whether the service manager has confirmed that it has the lots.
    pub(super) is_stored: bool,
    /// The barrier that the service manager closes, and when not to wait for it any longer.
    pub(super) barrier: Option<(OwnedFd, Instant)>,
    pub(super) waiting: Vec<Waiting>,
    /// When the sessions close, unless a worker has them.
    pub(super) expires: Option<Instant>,
}

impl Kept {
    /// New lots for a principal.
    pub(super) fn create(name: String, owner: Credentials, serial: u64) -> io::Result<Self> {
        let outer = Lot::create()?;
        for number in 0..LOTS {
            let lot = Lot::create()?;
            outer.park(&Label::Lot(number).to_bytes(), &lot.ends())?;
        }
        Ok(Self::over(name, outer, owner, serial))
    }

    fn over(name: String, outer: Lot, owner: Credentials, serial: u64) -> Self {
        Self {
            name,
            outer,
            owner,
            sessions: BTreeMap::new(),
            handles: 0,
            serial,
            crashes: 0,
            written: 0,
            recovering: false,
            is_stored: false,
            barrier: None,
            waiting: Vec::new(),
            expires: None,
        }
    }

    /// The lots that an earlier broker stored, or why they cannot be used.
    pub(super) fn restore(name: String, first: OwnedFd, second: OwnedFd) -> Result<Self, String> {
        let text = |error: io::Error| error.to_string();
        let outer = Lot::of_ends(first, second).map_err(text)?;
        let mut newest: Option<(u64, OwnedFd)> = None;
        for Parked { bytes, descriptors, .. } in outer.messages().map_err(text)? {
            if let Label::Index(written) = Label::read(&bytes)?
                && newest.as_ref().is_none_or(|(newest, _)| *newest < written)
                && let Some(memory) = descriptors.into_iter().next()
            {
                newest = Some((written, memory));
            }
        }
        let (written, memory) = newest.ok_or("they have no index")?;
        let index = sealed::read(memory.as_fd(), INDEX).map_err(text)?;
        let index: Index = postcard::from_bytes(&index).map_err(|error| error.to_string())?;
        let Index { uid, gid, groups, network, serial, crashes, sessions } = index;
        let owner = Credentials { uid, gid, groups, network };
        let mut kept = Self::over(name, outer, owner, serial);
        (kept.crashes, kept.written, kept.is_stored) = (crashes, written, true);
        kept.sessions = sessions.into_iter().map(|session| (session.number, session)).collect();
        Ok(kept)
    }

    /// Its ends, for the store.
    pub(super) fn copies(&self) -> io::Result<Vec<OwnedFd>> {
        self.outer.ends().iter().map(BorrowedFd::try_clone_to_owned).collect()
    }

    pub(super) fn into_ends(self) -> [OwnedFd; 2] {
        self.outer.into_ends()
    }

    /// The index, for the worker that recovers the sessions.
    pub(super) fn index(&self) -> Index {
        let Credentials { uid, gid, groups, network } = self.owner.clone();
        let (serial, crashes) = (self.serial, self.crashes);
        let sessions = self.sessions.values().cloned().collect();
        Index { uid, gid, groups, network, serial, crashes, sessions }
    }

    /// Sealed memory with the index.
    pub(super) fn index_memory(&self) -> io::Result<OwnedFd> {
        let index = postcard::to_stdvec(&self.index()).map_err(io::Error::other)?;
        sealed::create("sessions", &index)
    }

    /// Writes the index, in place of the earlier one. At no instant there is none.
    pub(super) fn write(&mut self) -> io::Result<()> {
        let memory = self.index_memory()?;
        self.outer.park(&Label::Index(self.written + 1).to_bytes(), &[memory.as_fd()])?;
        self.written += 1;
        self.drop_old()
    }

    /// Drops earlier indexes, and second copies of lots that a crash left.
    fn drop_old(&self) -> io::Result<()> {
        let mut seen = Vec::new();
        for _ in 0..self.outer.messages()?.len() {
            let Some(Parked { bytes, descriptors, lost_descriptors }) = self.outer.head()? else {
                break;
            };
            if lost_descriptors {
                // Both indexes stay, and the newer one counts.
                return Err(io::Error::from_raw_os_error(libc::EMFILE));
            }
            let label = Label::read(&bytes).map_err(io::Error::other)?;
            let is_old = matches!(label, Label::Index(written) if written < self.written);
            if !is_old && !seen.contains(&label) {
                seen.push(label);
                let borrowed: Vec<_> = descriptors.iter().map(OwnedFd::as_fd).collect();
                self.outer.park(&bytes, &borrowed)?;
            }
            self.outer.drop_head()?;
        }
        Ok(())
    }

    /// Copies of the lots, for a worker.
    pub(super) fn lots(&self) -> io::Result<Vec<[OwnedFd; 2]>> {
        let mut lots = BTreeMap::new();
        for Parked { bytes, descriptors, lost_descriptors } in self.outer.messages()? {
            if lost_descriptors {
                return Err(io::Error::from_raw_os_error(libc::EMFILE));
            }
            if let Label::Lot(number) = Label::read(&bytes).map_err(io::Error::other)? {
                let ends = <[OwnedFd; 2]>::try_from(descriptors);
                lots.insert(number, ends.map_err(|_ends| io::Error::other("a lot has two ends"))?);
            }
        }
        Ok(lots.into_values().collect())
    }

    /// The bytes of the descriptions and restrictions of its sessions.
    pub(super) fn bytes(&self) -> usize {
        let texts =
            |session: &KeptSession| session.restrictions.iter().map(Vec::len).sum::<usize>();
        self.sessions.values().map(|session| session.facts.len() + texts(session)).sum()
    }

    /// When its sessions have waited long enough for a connection. A worker can have asked for any time; `longest` is that
    /// of the limit.
    pub(super) fn wait_until(&self, reattach: Duration, longest: Duration) -> Instant {
        let lingers = self.sessions.values().map(|session| session.linger_seconds);
        let linger = Duration::from_secs(lingers.max().unwrap_or_default()).min(longest);
        let now = Instant::now();
        now.checked_add(reattach.max(linger)).unwrap_or(now + FOREVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Credentials {
        Credentials { uid: 7, gid: 8, groups: vec![8, 9], network: Some(3) }
    }

    fn session(number: u64) -> KeptSession {
        let facts = b"facts".to_vec();
        KeptSession { number, linger_seconds: 5, facts, restrictions: vec![b"less".to_vec()] }
    }

    /// What a later broker finds. The service manager passes the ends in any order.
    fn again(kept: &Kept) -> Result<Kept, String> {
        let text = |error: io::Error| error.to_string();
        let ends = <[OwnedFd; 2]>::try_from(kept.copies().map_err(text)?);
        let [first, second] = ends.map_err(|ends| format!("there are {} ends", ends.len()))?;
        Kept::restore("lots-1".to_owned(), second, first)
    }

    #[test]
    fn sessions_wait_no_longer_than_the_limit_whatever_a_worker_asks_for() {
        let mut kept = Kept::create("lots-1".to_owned(), owner(), 41).unwrap();
        kept.sessions.insert(1, KeptSession { linger_seconds: u64::MAX, ..session(1) });
        let (short, long) = (Duration::from_secs(1), Duration::from_mins(1));
        let until = |longest| kept.wait_until(short, longest) - Instant::now();
        assert!(until(long) <= long && until(long) > short, "{:?}", until(long));
        assert!(until(Duration::from_secs(u64::MAX)) > long);
    }

    #[test]
    fn later_broker_finds_owner_sessions_and_lots() {
        let mut kept = Kept::create("lots-1".to_owned(), owner(), 41).unwrap();
        assert_eq!(again(&kept).unwrap_err(), "they have no index");
        for number in [1, 2] {
            kept.sessions.insert(number, session(number));
            kept.write().unwrap();
        }
        let lot = kept.lots().unwrap().remove(5);
        let [read, write] = lot;
        Lot::of_ends(read, write).unwrap().park(b"parked", &[]).unwrap();
        let found = again(&kept).unwrap();
        assert_eq!(found.index(), kept.index());
        assert_eq!((found.owner.clone(), found.serial, found.sessions.len()), (owner(), 41, 2));
        let lots = found.lots().unwrap();
        assert_eq!(lots.len() as u64, LOTS);
        let parked = lots.into_iter().map(|[read, write]| Lot::of_ends(read, write).unwrap());
        let parked = parked.filter(|lot| lot.head().unwrap().is_some());
        assert_eq!(parked.count(), 1);
    }

    #[test]
    fn writing_that_was_cut_off_leaves_the_newer_index_and_every_lot() {
        let mut kept = Kept::create("lots-1".to_owned(), owner(), 41).unwrap();
        kept.sessions.insert(1, session(1));
        kept.write().unwrap();
        kept.sessions.insert(2, session(2));
        let memory = kept.index_memory().unwrap();
        kept.outer.park(&Label::Index(kept.written + 1).to_bytes(), &[memory.as_fd()]).unwrap();
        let Parked { bytes, descriptors, .. } = kept.outer.head().unwrap().unwrap();
        let borrowed: Vec<_> = descriptors.iter().map(OwnedFd::as_fd).collect();
        kept.outer.park(&bytes, &borrowed).unwrap();
        let mut found = again(&kept).unwrap();
        assert_eq!((found.sessions.len(), found.lots().unwrap().len() as u64), (2, LOTS));
        found.write().unwrap();
        assert_eq!(found.outer.messages().unwrap().len() as u64, LOTS + 1);
    }

    #[test]
    fn newer_and_strange_lots_are_refused_by_name() {
        let restored = |bytes: &[u8]| {
            let lot = Lot::create().unwrap();
            lot.park(bytes, &[]).unwrap();
            let [read, write] = lot.into_ends();
            Kept::restore("lots-1".to_owned(), read, write).unwrap_err()
        };
        let newer = restored(&[FORMAT + 1, b'i', 0]);
        assert_eq!(newer, "it has version 2, and this broker reads up to version 1");
        for strange in
            [&[0][..], &[FORMAT], &[FORMAT, b'i', 1], &[FORMAT, b'z', 0, 0, 0, 0, 0, 0, 0, 0]]
        {
            assert!(!restored(strange).contains("version"), "{strange:?}");
        }
        assert_eq!(restored(&Label::Index(1).to_bytes()), "they have no index");
    }
}
