//! The lots of a worker: where the sockets of persistent sessions lie, so that they outlive the process.
//!
//! The monitor holds the lots too and gives them to the next worker of the principal. A message is the state of one
//! handle and its socket. What a lot has is mirrored here, because a message at its head is copied to its end to reach
//! one behind it, and the copy needs the socket.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sockbroker_monitor::message::{LOT_FORMAT, LOTS, LotHeader};
use sockbroker_sys::lot::Lot;

use crate::config::limits::PARKED_MAX;

/// Messages of one lot. The kernel has room for more than this number of the largest.
const MESSAGES: usize = 120;
/// The fewest lots that an earlier broker has stored for a principal.
const FEWEST_LOTS: u64 = 64;
// What the configuration allows fits, also into those.
const _: () = assert!(LOTS >= FEWEST_LOTS && FEWEST_LOTS * MESSAGES as u64 == PARKED_MAX);

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub session: u64,
    /// Its number, or 0 for the state of the session.
    pub handle: u64,
}

/// What keeps a socket open.
pub type Held = Arc<dyn AsFd + Send + Sync>;

/// Why a message cannot be added.
#[derive(Debug)]
pub enum ParkError {
    /// The handles that the monitor allows are in use, or all lots are full.
    Full,
    /// The kernel refuses.
    System(io::Error),
}

/// The newest message about something, found by a new worker.
#[derive(Debug)]
pub struct Found {
    pub body: Vec<u8>,
    pub descriptor: Option<OwnedFd>,
}

/// What a new worker found.
#[derive(Debug, Default)]
pub struct Recovered {
    pub found: HashMap<Key, Found>,
    /// Sockets of messages that are older than another about the same, or that nobody can read. Closing them may wait.
    pub dropped: Vec<OwnedFd>,
}

/// The lots of this process.
#[derive(Debug, Default)]
pub struct Lots {
    state: Mutex<State>,
    /// The handles that the monitor allows.
    allowed: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    lots: Vec<MirroredLot>,
    /// The lot and the sequence number of the message about each.
    places: HashMap<Key, (usize, u64)>,
    sequence: u64,
}

#[derive(Debug)]
struct MirroredLot {
    lot: Lot,
    queue: VecDeque<Message>,
}

struct Message {
    key: Key,
    sequence: u64,
    bytes: Vec<u8>,
    descriptor: Option<Held>,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Message {
    fn new(key: Key, sequence: u64, body: &[u8], descriptor: Option<Held>) -> Self {
        let header = LotHeader { sequence, session: key.session, handle: key.handle };
        let bytes = [&header.to_bytes()[..], body].concat();
        Self { key, sequence, bytes, descriptor }
    }

    fn send(&self, lot: &Lot) -> io::Result<()> {
        let descriptors: Vec<_> = self.descriptor.iter().map(|held| held.as_fd()).collect();
        lot.park(&self.bytes, &descriptors)
    }
}

/// Key, sequence number and body of a message.
type Parts<'a> = (Key, u64, &'a [u8]);

/// Reads a message. The error is the version of one that is newer.
fn parse(bytes: &[u8]) -> Result<Parts<'_>, Option<u8>> {
    let (LotHeader { sequence, session, handle }, body) = LotHeader::read(bytes)?;
    Ok((Key { session, handle }, sequence, body))
}

impl MirroredLot {
    /// Drops a message, after copies of those before it to the end. Returns it, and the messages that could not be
    /// copied and are in no lot any more.
    fn unpark(&mut self, sequence: u64) -> (Option<Message>, Vec<Message>) {
        let mut lost = Vec::new();
        let wanted = |message: &Message| message.sequence == sequence;
        let Some(position) = self.queue.iter().position(wanted) else { return (None, lost) };
        for _ in 0..position {
            let Some(head) = self.queue.front() else { break };
            let copied = head.send(&self.lot);
            if let Err(error) = self.lot.drop_head() {
                tracing::error!(%error, "a lot of sockets is damaged");
                return (None, lost);
            }
            let Some(head) = self.queue.pop_front() else { break };
            // If too many descriptors were in flight, there is one less now.
            match copied.or_else(|_| head.send(&self.lot)) {
                Ok(()) => self.queue.push_back(head),
                Err(_) => lost.push(head),
            }
        }
        if let Err(error) = self.lot.drop_head() {
            tracing::error!(%error, "a lot of sockets is damaged");
            return (None, lost);
        }
        (self.queue.pop_front(), lost)
    }
}

impl State {
    fn unpark(&mut self, index: usize, sequence: u64) -> Option<Message> {
        let (message, lost) = self.lots.get_mut(index)?.unpark(sequence);
        for message in lost {
            let Key { session, handle } = message.key;
            tracing::error!(
                session,
                handle,
                "a handle no longer outlives this process: the kernel has no room for it"
            );
            self.places.remove(&message.key);
        }
        message
    }
}

impl Lots {
    fn state(&self) -> MutexGuard<'_, State> {
        // Mirror and lot change together, and nothing between panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a lot that the monitor passed.
    pub fn add(&self, lot: Lot) {
        self.state().lots.push(MirroredLot { lot, queue: VecDeque::new() });
    }

    /// Sets the number of messages that the monitor allows.
    pub fn allow(&self, handles: u64) {
        self.allowed.store(handles, Ordering::Relaxed);
    }

    /// The number of messages that the monitor allows.
    pub fn allowed(&self) -> u64 {
        self.allowed.load(Ordering::Relaxed)
    }

    /// Whether a further message fits, as far as this process knows.
    pub fn has_room(&self) -> bool {
        let state = self.state();
        let fits = state.lots.iter().any(|lot| lot.queue.len() < MESSAGES);
        fits && (state.places.len() as u64) < self.allowed()
    }

    /// The number of messages.
    pub fn messages(&self) -> usize {
        self.state().places.len()
    }

    /// Adds the message about something, in place of an earlier one. At no instant there is none.
    pub fn park(&self, key: Key, body: &[u8], descriptor: Option<Held>) -> Result<(), ParkError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let before = state.places.get(&key).copied();
        if before.is_none() && state.places.len() as u64 >= self.allowed.load(Ordering::Relaxed) {
            return Err(ParkError::Full);
        }
        let lots = state.lots.iter_mut().enumerate();
        let emptiest = lots.min_by_key(|(_, lot)| lot.queue.len());
        let (index, lot) =
            emptiest.filter(|(_, lot)| lot.queue.len() < MESSAGES).ok_or(ParkError::Full)?;
        state.sequence += 1;
        let message = Message::new(key, state.sequence, body, descriptor);
        message.send(&lot.lot).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => ParkError::Full,
            _ => ParkError::System(error),
        })?;
        state.places.insert(key, (index, message.sequence));
        lot.queue.push_back(message);
        if let Some((index, sequence)) = before {
            state.unpark(index, sequence);
        }
        Ok(())
    }

    /// Drops the message about something.
    pub fn unpark(&self, key: Key) {
        let mut state = self.state();
        let dropped = state.places.remove(&key);
        let dropped = dropped.and_then(|(index, sequence)| state.unpark(index, sequence));
        drop(state);
        drop(dropped);
    }

    /// Drops all messages about a session.
    pub fn unpark_session(&self, session: u64) {
        let mut keys: Vec<_> = self.state().places.keys().copied().collect();
        keys.retain(|key| key.session == session);
        // The state of the session is the last: without it, what is left would belong to nobody.
        keys.sort_unstable_by_key(|key| (key.handle == 0, key.handle));
        for key in keys {
            self.unpark(key);
        }
    }

    /// Reads what an earlier process left in the lots. [`Self::settle`] MUST follow.
    pub fn recover(&self) -> io::Result<Recovered> {
        let mut guard = self.state();
        let state = &mut *guard;
        let mut recovered = Recovered::default();
        let mut newest: HashMap<Key, u64> = HashMap::new();
        for (index, lot) in state.lots.iter_mut().enumerate() {
            for message in lot.lot.messages()? {
                if message.lost_descriptors {
                    return Err(io::Error::from_raw_os_error(libc::EMFILE));
                }
                let mut descriptors = message.descriptors.into_iter();
                let descriptor = descriptors.next();
                recovered.dropped.extend(descriptors);
                // The place of a message here. Its bytes keep the number that they were written with.
                state.sequence += 1;
                let (sequence, bytes) = (state.sequence, message.bytes);
                let read = parse(&bytes).map(|(key, written, body)| (key, written, body.to_vec()));
                let key = read.as_ref().map_or(Key { session: 0, handle: 0 }, |(key, ..)| *key);
                lot.queue.push_back(Message { key, sequence, bytes, descriptor: None });
                let (key, written, body) = match read {
                    Ok(read) => read,
                    Err(version) => {
                        tracing::warn!(
                            version,
                            newest = LOT_FORMAT,
                            "discarded the state of a socket that this broker cannot read"
                        );
                        recovered.dropped.extend(descriptor);
                        continue;
                    }
                };
                if newest.get(&key).is_some_and(|newest| *newest > written) {
                    recovered.dropped.extend(descriptor);
                    continue;
                }
                newest.insert(key, written);
                state.places.insert(key, (index, sequence));
                let earlier = recovered.found.insert(key, Found { body, descriptor });
                recovered.dropped.extend(earlier.and_then(|found| found.descriptor));
            }
        }
        state.sequence = state.sequence.max(newest.into_values().max().unwrap_or_default());
        Ok(recovered)
    }

    /// Keeps the messages about these, and drops all others. The sockets of those that are dropped MUST be open until
    /// then, because closing them may wait.
    pub fn settle(&self, mut kept: HashMap<Key, Option<Held>>) {
        let mut guard = self.state();
        let State { lots, places, .. } = &mut *guard;
        places.retain(|key, _| kept.contains_key(key));
        for (index, lot) in lots.iter_mut().enumerate() {
            for message in &mut lot.queue {
                if places.get(&message.key) == Some(&(index, message.sequence)) {
                    message.descriptor = kept.remove(&message.key).flatten();
                }
            }
            let is_kept =
                |message: &Message| places.get(&message.key) == Some(&(index, message.sequence));
            let dropped = lot.queue.iter().filter(|message| !is_kept(message));
            let dropped: Vec<_> = dropped.map(|message| message.sequence).collect();
            // One that is dropped cannot be copied: so the first ones are dropped first.
            for sequence in dropped {
                let (_, lost) = lot.unpark(sequence);
                for message in lost {
                    places.remove(&message.key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
