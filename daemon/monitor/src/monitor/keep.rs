//! The lots of each principal, which outlive its worker, and where the service manager keeps them, the broker.
//!
//! An outer lot has the lots of one principal and a lot with an index: who owns them, and which sessions may be recovered
//! from them. No worker has an end of an outer lot, or of that with the index.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use sockbroker_sys::credentials::Credentials;
use sockbroker_sys::lot::{Lot, Parked};
use sockbroker_sys::{clock, sealed};

use super::worker_ids::WorkerId;
use crate::claim::Claim;
use crate::message::{Index, KeptSession, LOTS, LotHeader, Waiting};

/// The version of the index that is written, and the newest that is read.
pub(super) const FORMAT: u8 = 1;
/// Workers that may end while they recover the same sessions.
pub(super) const CRASHES: u32 = 3;
/// The bytes of the largest index.
const INDEX: usize = 64 << 20;
/// How long a principal whose sessions have to be judged waits for a worker. Then they are discarded.
pub(super) const JUDGE: Duration = Duration::from_secs(10);
/// How long an answer waits for the service manager.
pub(super) const STORE: Duration = Duration::from_secs(5);

/// A message of an outer lot, or of that with the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    /// The index, with the number of its writing. Descriptor: sealed memory.
    Index(u64),
    /// A lot, with its number. Descriptors: its ends.
    Lot(u64),
    /// The lot with the index. Descriptors: its ends.
    OfIndex,
    /// The lot for captures, which no worker gets. Descriptors: its ends.
    OfCaptures,
}

impl Label {
    fn to_bytes(self) -> Vec<u8> {
        let (kind, number) = match self {
            Self::Index(number) => (b'i', number),
            Self::Lot(number) => (b'l', number),
            Self::OfIndex => (b'x', 0),
            Self::OfCaptures => (b'c', 0),
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
                    b'x' => Ok(Self::OfIndex),
                    b'c' => Ok(Self::OfCaptures),
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
pub(super) type Waiter = (u64, u64);

/// What is wanted of a worker that is started without a connection: the policy in force, or the end of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judgement {
    /// When to try again to start it.
    pub(super) at: Instant,
    /// When to discard the sessions instead; `None` if captures alone need a worker.
    pub(super) last: Option<Instant>,
}

/// The lots of one principal.
#[derive(Debug)]
pub(super) struct Kept {
    /// The name in the store.
    pub(super) name: String,
    outer: Lot,
    /// The lot with the index.
    index: Lot,
    /// The indexes in it.
    indexes: usize,
    /// The lot for captures.
    pub(super) captures: Lot,
    pub(super) owner: Credentials,
    /// The number that stands for a worker in the list of claims while there is none.
    pub(super) number: u64,
    pub(super) sessions: BTreeMap<u64, KeptSession>,
    /// What its sockets do not share with other principals.
    pub(super) claims: HashSet<Claim>,
    /// Those that a worker which recovers the sessions has not repeated.
    pub(super) unrepeated: HashSet<Claim>,
    /// The user id of its workers, to which the sockets belong.
    pub(super) id: Option<WorkerId>,
    /// The number of that id, while it is not known whether it can be used.
    pub(super) earlier_id: Option<u32>,
    /// The handles that its worker may park.
    pub(super) handles: u64,
    pub(super) serial: u64,
    pub(super) crashes: u32,
    written: u64,
    /// Whether a worker has the lots.
    pub(super) is_served: bool,
    /// Whether a worker is recovering the sessions.
    pub(super) recovering: bool,
    /// Whether the service manager has confirmed that it has the lots.
    pub(super) is_stored: bool,
    /// The barrier that the service manager closes, and when not to wait for it any longer.
    pub(super) barrier: Option<(OwnedFd, Instant)>,
    pub(super) waiting: Vec<Waiter>,
    pub(super) judgement: Option<Judgement>,
}

impl Kept {
    /// New lots for a principal, with the one for its captures.
    pub(super) fn create(
        name: String,
        owner: Credentials,
        serial: u64,
        captures: Lot,
    ) -> io::Result<Self> {
        let (outer, index) = (Lot::create()?, Lot::create()?);
        outer.park(&Label::OfIndex.to_bytes(), &index.ends())?;
        outer.park(&Label::OfCaptures.to_bytes(), &captures.ends())?;
        for number in 0..LOTS {
            let lot = Lot::create()?;
            outer.park(&Label::Lot(number).to_bytes(), &lot.ends())?;
        }
        Ok(Self::over(name, (outer, index, captures), owner, serial))
    }

    fn over(
        name: String,
        (outer, index, captures): (Lot, Lot, Lot),
        owner: Credentials,
        serial: u64,
    ) -> Self {
        Self {
            name,
            outer,
            index,
            indexes: 0,
            captures,
            owner,
            number: 0,
            sessions: BTreeMap::new(),
            claims: HashSet::new(),
            unrepeated: HashSet::new(),
            id: None,
            earlier_id: None,
            handles: 0,
            serial,
            crashes: 0,
            written: 0,
            is_served: false,
            recovering: false,
            is_stored: false,
            barrier: None,
            waiting: Vec::new(),
            judgement: None,
        }
    }

    /// The lots that an earlier broker stored, or why they cannot be used.
    pub(super) fn restore(name: String, first: OwnedFd, second: OwnedFd) -> Result<Self, String> {
        let text = |error: io::Error| error.to_string();
        let outer = Lot::of_ends(first, second).map_err(text)?;
        let (mut of_index, mut of_captures) = (None, None);
        for Parked { bytes, descriptors, .. } in outer.messages().map_err(text)? {
            match Label::read(&bytes)? {
                Label::OfIndex => of_index = <[OwnedFd; 2]>::try_from(descriptors).ok(),
                Label::OfCaptures => of_captures = <[OwnedFd; 2]>::try_from(descriptors).ok(),
                Label::Lot(_) | Label::Index(_) => {}
            }
        }
        let [first, second] = of_index.ok_or("they have no index")?;
        let captures = match of_captures {
            Some([one, other]) => Lot::of_ends(one, other).map_err(text)?,
            None => return Err("they have no lot for captures".to_owned()),
        };
        let of_index = Lot::of_ends(first, second).map_err(text)?;
        let mut newest: Option<(u64, OwnedFd)> = None;
        let messages = of_index.messages().map_err(text)?;
        let indexes = messages.len();
        for Parked { bytes, descriptors, .. } in messages {
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
        let Index { uid, gid, groups, network, serial, worker_id, crashes, sessions, claims } =
            index;
        let owner = Credentials { uid, gid, groups, network };
        let mut kept = Self::over(name, (outer, of_index, captures), owner, serial);
        (kept.crashes, kept.written, kept.is_stored) = (crashes, written, true);
        (kept.indexes, kept.earlier_id) = (indexes, worker_id);
        kept.sessions = sessions.into_iter().map(|session| (session.number, session)).collect();
        kept.claims = claims.into_iter().collect();
        Ok(kept)
    }

    /// Its ends, for the store.
    pub(super) fn copies(&self) -> io::Result<Vec<OwnedFd>> {
        self.outer.ends().iter().map(BorrowedFd::try_clone_to_owned).collect()
    }

    pub(super) fn into_ends(self) -> impl Iterator<Item = OwnedFd> {
        let ends = self.outer.into_ends().into_iter().chain(self.index.into_ends());
        ends.chain(self.captures.into_ends())
    }

    /// The index, for the worker that recovers the sessions.
    pub(super) fn index(&self) -> Index {
        let Credentials { uid, gid, groups, network } = self.owner.clone();
        let (serial, crashes) = (self.serial, self.crashes);
        let worker_id = self.id.as_ref().map(WorkerId::number).or(self.earlier_id);
        let sessions = self.sessions.values().cloned().collect();
        let claims = self.claims.iter().copied().collect();
        Index { uid, gid, groups, network, serial, worker_id, crashes, sessions, claims }
    }

    /// Sealed memory with the index.
    pub(super) fn index_memory(&self) -> io::Result<OwnedFd> {
        let index = postcard::to_stdvec(&self.index()).map_err(io::Error::other)?;
        sealed::create("sessions", &index)
    }

    /// Writes the index, in place of the earlier one. At no instant there is none.
    pub(super) fn write(&mut self) -> io::Result<()> {
        let memory = self.index_memory()?;
        self.index.park(&Label::Index(self.written + 1).to_bytes(), &[memory.as_fd()])?;
        self.written += 1;
        self.indexes += 1;
        while self.indexes > 1 {
            self.index.drop_head()?;
            self.indexes -= 1;
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

    /// The number of handles of each session, as the lots have them. There MUST be no worker, which reads them too.
    pub(super) fn parked(&self) -> io::Result<BTreeMap<u64, u64>> {
        let mut handles = HashSet::new();
        for [first, second] in self.lots()? {
            for beginning in Lot::of_ends(first, second)?.beginnings(LotHeader::LENGTH)? {
                if let Ok((LotHeader { session, handle, .. }, _)) = LotHeader::read(&beginning) {
                    handles.insert((session, handle));
                }
            }
        }
        let mut counts = BTreeMap::new();
        for (session, _) in handles.into_iter().filter(|(_, handle)| *handle > 0) {
            *counts.entry(session).or_default() += 1;
        }
        Ok(counts)
    }

    /// The bytes of the descriptions and restrictions of its sessions.
    pub(super) fn bytes(&self) -> u64 {
        let texts =
            |session: &KeptSession| session.restrictions.iter().map(Vec::len).sum::<usize>();
        self.sessions.values().map(|session| (session.facts.len() + texts(session)) as u64).sum()
    }

    /// Notes that its sessions have no connection from now on. Those that had none before keep their time.
    pub(super) fn begin_waiting(&mut self, times: WaitTimes) {
        let now = clock::since_boot();
        for session in self.sessions.values_mut().filter(|session| session.waiting.is_none()) {
            session.waiting = Some(times.from(now, session.linger));
        }
    }

    /// Lets sessions that an earlier broker left wait long enough that their clients can connect.
    pub(super) fn continue_waiting(&mut self, times: WaitTimes) {
        self.begin_waiting(times);
        let now = clock::since_boot();
        for waiting in self.sessions.values_mut().filter_map(|session| session.waiting.as_mut()) {
            let longest = now.saturating_add(times.reattach.max(times.longest));
            let least = now.saturating_add(times.reattach);
            waiting.until = waiting.until.max(least).min(longest);
            waiting.since = waiting.since.min(now);
        }
    }

    /// When the first of its sessions has waited long enough; `None` while a worker has them.
    pub(super) fn expires(&self) -> Option<Instant> {
        let times = self.sessions.values().filter_map(|session| session.waiting);
        let first = times.map(|waiting| waiting.until).min().filter(|_| !self.is_served)?;
        // What no clock can represent never comes.
        Instant::now().checked_add(first.saturating_sub(clock::since_boot()))
    }

    /// Whether one of its sessions has waited long enough.
    pub(super) fn has_expired(&self) -> bool {
        let now = clock::since_boot();
        let mut waiting = self.sessions.values().filter_map(|session| session.waiting);
        !self.is_served && waiting.any(|waiting| waiting.until <= now)
    }

    /// Forgets the sessions that have waited long enough. Returns their number.
    pub(super) fn expire(&mut self) -> usize {
        let now = clock::since_boot();
        let is_over = |session: &KeptSession| session.waiting.is_some_and(|w| w.until <= now);
        self.sessions.extract_if(.., |_, session| is_over(session)).count()
    }
}

/// How long sessions without a connection wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct WaitTimes {
    /// After the end of a worker, at least.
    pub(super) reattach: Duration,
    /// The longest linger. A worker can have asked for any.
    pub(super) longest: Duration,
}

impl WaitTimes {
    /// What a session waits after the end of its worker.
    pub(super) fn from(self, now: Duration, linger: Duration) -> Waiting {
        Waiting {
            since: now,
            until: now.saturating_add(self.reattach.max(linger.min(self.longest))),
        }
    }

    /// What a session waits after the end of its last connection.
    pub(super) fn lingering(self, linger: Duration) -> Waiting {
        let now = clock::since_boot();
        Waiting { since: now, until: now.saturating_add(linger.min(self.longest)) }
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
        let (linger, began) = (Duration::from_secs(5), Duration::ZERO);
        let restrictions = vec![b"less".to_vec()];
        KeptSession { number, linger, began, waiting: None, facts, restrictions }
    }

    /// What a later broker finds. The service manager passes the ends in any order.
    fn again(kept: &Kept) -> Result<Kept, String> {
        let text = |error: io::Error| error.to_string();
        let ends = <[OwnedFd; 2]>::try_from(kept.copies().map_err(text)?);
        let [first, second] = ends.map_err(|ends| format!("there are {} ends", ends.len()))?;
        Kept::restore("lots-1".to_owned(), second, first)
    }

    const TIMES: WaitTimes =
        WaitTimes { reattach: Duration::from_secs(30), longest: Duration::from_hours(1) };

    fn wait(kept: &Kept, number: u64) -> Waiting {
        kept.sessions[&number].waiting.unwrap()
    }

    #[test]
    fn each_session_waits_for_its_own_time_which_a_later_broker_continues() {
        let mut kept =
            Kept::create("lots-1".to_owned(), owner(), 41, Lot::create().unwrap()).unwrap();
        for (number, seconds) in [(1, 5), (2, 600), (3, u64::MAX)] {
            let linger = Duration::from_secs(seconds);
            kept.sessions.insert(number, KeptSession { linger, ..session(number) });
        }
        kept.begin_waiting(TIMES);
        let length = |waiting: Waiting| waiting.until.saturating_sub(waiting.since);
        let lengths = [1, 2, 3].map(|number| length(wait(&kept, number)));
        assert_eq!(lengths.map(|length| length.as_secs()), [30, 600, 3600]);
        let first = wait(&kept, 1).until.saturating_sub(clock::since_boot());
        assert!(kept.expires().unwrap() <= Instant::now() + first);
        kept.write().unwrap();
        let mut found = again(&kept).unwrap();
        found.continue_waiting(TIMES);
        assert_eq!((wait(&found, 2), wait(&found, 3)), (wait(&kept, 2), wait(&kept, 3)));
        // The end of one that is over, and of one that no clock of this kernel has reached.
        let set = |kept: &mut Kept, number, until| {
            let waiting = Some(Waiting { since: until, until });
            kept.sessions.get_mut(&number).unwrap().waiting = waiting;
        };
        set(&mut kept, 1, Duration::ZERO);
        set(&mut kept, 2, Duration::MAX);
        kept.write().unwrap();
        let mut later = again(&kept).unwrap();
        later.continue_waiting(TIMES);
        let left = |number| wait(&later, number).until.saturating_sub(clock::since_boot());
        assert!(left(1) > Duration::from_secs(20) && left(2) <= Duration::from_hours(1));
        assert!(kept.has_expired());
        assert_eq!((kept.expire(), kept.sessions.len()), (1, 2));
        assert!(!kept.has_expired());
        kept.is_served = true;
        assert_eq!(kept.expires(), None);
    }

    #[test]
    fn handles_are_counted_once_for_each_session() {
        let kept = Kept::create("lots-1".to_owned(), owner(), 41, Lot::create().unwrap()).unwrap();
        for (at, [read, write]) in kept.lots().unwrap().into_iter().take(2).enumerate() {
            let lot = Lot::of_ends(read, write).unwrap();
            for (session, handle) in [(7, 0), (7, 1), (7, 2 + at as u64), (8, 0)] {
                let header = LotHeader { sequence: 1, session, handle };
                lot.park(&[&header.to_bytes()[..], b"state"].concat(), &[]).unwrap();
            }
            lot.park(b"x", &[]).unwrap();
        }
        assert_eq!(kept.parked().unwrap(), BTreeMap::from([(7, 3)]));
    }

    #[test]
    fn later_broker_finds_owner_sessions_and_lots() {
        let mut kept =
            Kept::create("lots-1".to_owned(), owner(), 41, Lot::create().unwrap()).unwrap();
        assert_eq!(again(&kept).unwrap_err(), "they have no index");
        kept.claims.insert(Claim::Fanout { group: 4 });
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
        let mut kept =
            Kept::create("lots-1".to_owned(), owner(), 41, Lot::create().unwrap()).unwrap();
        kept.sessions.insert(1, session(1));
        kept.write().unwrap();
        kept.sessions.insert(2, session(2));
        let memory = kept.index_memory().unwrap();
        kept.index.park(&Label::Index(kept.written + 1).to_bytes(), &[memory.as_fd()]).unwrap();
        let mut found = again(&kept).unwrap();
        assert_eq!((found.sessions.len(), found.lots().unwrap().len() as u64), (2, LOTS));
        assert_eq!(found.indexes, 2);
        found.write().unwrap();
        assert_eq!(found.index.messages().unwrap().len(), 1);
        assert_eq!(again(&found).unwrap().index(), found.index());
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
