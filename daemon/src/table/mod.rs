//! Handle to owned socket.
//!
//! A handle holds a slot's index and its generation. Closing raises the generation, so a stale copy
//! finds nothing, however often the slot is used again.

pub mod entry;
pub mod permitted;
pub mod ends;
pub mod socket_endpoints;
pub mod fanout;
pub mod shared;
pub mod call_queue;
pub mod rcvall;
pub mod timeout;
pub mod readiness;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::error::LimitExceeded;
use crate::error::OpError;
use crate::quota::Share;
use crate::table::entry::Entry;
use sockbroker_proto::handle::Handle;

/// Bits of a handle that hold the slot's index; the generation's 32 stand above them.
const INDEX_BITS: u32 = 20;
/// The most slots a table can have.
pub const MAX_SLOTS: usize = 1 << INDEX_BITS;

/// The sockets of one session.
#[derive(Debug, Default)]
pub struct Table {
    slots: Vec<Slot>,
    /// Oldest first, so that a slot rests as long as possible.
    free: VecDeque<u32>,
    open: usize,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    entry: Option<Arc<Entry>>,
}

/// Why a table cannot be duplicated.
#[derive(Debug)]
pub enum Unduplicated {
    /// The user may not have so many handles.
    Limit(LimitExceeded),
    /// The kernel gives no further descriptor.
    Os(io::Error),
}

impl From<Unduplicated> for OpError {
    fn from(error: Unduplicated) -> Self {
        match error {
            Unduplicated::Limit(crossed) => crossed.into(),
            Unduplicated::Os(error) => Self::os("dup", error),
        }
    }
}

/// The table is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Table {
    /// How many handles are open.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Names an entry, unless `limit` handles are open.
    pub fn insert(&mut self, entry: Arc<Entry>, limit: usize) -> Result<Handle, Full> {
        if self.open >= limit.min(MAX_SLOTS) {
            return Err(Full);
        }
        let index = match self.free.pop_front() {
            Some(index) => index,
            None => self.grow()?,
        };
        let slot = self.slots.get_mut(index as usize).ok_or(Full)?;
        slot.entry = Some(entry);
        self.open += 1;
        name(index, slot.generation).ok_or(Full)
    }

    fn grow(&mut self) -> Result<u32, Full> {
        if self.slots.len() >= MAX_SLOTS {
            return Err(Full);
        }
        let index = u32::try_from(self.slots.len()).map_err(|_error| Full)?;
        self.slots.push(Slot { generation: 1, entry: None });
        Ok(index)
    }

    /// The entry of a handle that is open.
    pub fn get(&self, handle: Handle) -> Option<Arc<Entry>> {
        let (index, generation) = parts(handle);
        let slot = self.slots.get(index as usize)?;
        if slot.generation != generation {
            return None;
        }
        slot.entry.clone()
    }

    /// The open handles with their entries, lowest first.
    pub fn entries(&self) -> Vec<(Handle, Arc<Entry>)> {
        let slots = (0..).zip(&self.slots);
        let open = slots
            .filter_map(|(index, slot)| Some((name(index, slot.generation)?, slot.entry.clone()?)));
        let mut entries: Vec<_> = open.collect();
        entries.sort_unstable_by_key(|(handle, _)| *handle);
        entries
    }

    /// Takes the entry of a handle that is open; the handle is void from now on.
    pub fn remove(&mut self, handle: Handle) -> Option<Arc<Entry>> {
        let (index, generation) = parts(handle);
        let slot = self.slots.get_mut(index as usize)?;
        if slot.generation != generation {
            return None;
        }
        let entry = slot.entry.take()?;
        self.open -= 1;
        // A slot whose generations are used up is never given out again.
        if let Some(next) = generation.checked_add(1) {
            slot.generation = next;
            self.free.push_back(index);
        }
        Some(entry)
    }

    /// A table with every entry duplicated under the same handle.
    pub fn duplicate(&self) -> Result<Self, Unduplicated> {
        let slots = self.slots.iter().map(|slot| {
            let entry = match &slot.entry {
                Some(entry) => {
                    let handle = entry.user().take(Share::Handles, 1);
                    let handle = handle.map_err(Unduplicated::Limit)?;
                    let copy = entry.duplicate(handle).map_err(Unduplicated::Os)?;
                    copy.set_inheritable(entry.inheritable());
                    Some(Arc::new(copy))
                }
                None => None,
            };
            Ok(Slot { generation: slot.generation, entry })
        });
        let slots = slots.collect::<Result<_, _>>()?;
        Ok(Self { slots, free: self.free.clone(), open: self.open })
    }
}

fn name(index: u32, generation: u32) -> Option<Handle> {
    Handle::new(u64::from(generation) << INDEX_BITS | u64::from(index))
}

fn parts(handle: Handle) -> (u32, u32) {
    let number = handle.number();
    let index = u32::try_from(number & ((1 << INDEX_BITS) - 1));
    // 2^53 leaves one bit more than a generation has: such a number names nothing.
    let generation = u32::try_from(number >> INDEX_BITS);
    match (index, generation) {
        (Ok(index), Ok(generation)) => (index, generation),
        _ => (u32::MAX, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sockbroker_proto::socket_spec::SocketSpec;
    use timeout::Timeout;

    fn entry() -> Arc<Entry> {
        let facts = SocketSpec { domain: libc::AF_UNIX, ty: libc::SOCK_STREAM, protocol: 0 };
        let descriptor = sockbroker_sys::socket::create(facts.domain, facts.ty, 0).unwrap();
        let handle = crate::quota::tests::handle();
        Arc::new(Entry::new(descriptor, facts, Timeout::Blocking, handle).unwrap())
    }

    #[test]
    fn a_stale_handle_never_finds_the_socket_that_took_its_slot() {
        let mut table = Table::default();
        let first = table.insert(entry(), 1).unwrap();
        assert!(table.get(first).is_some());
        assert!(table.remove(first).is_some());
        let second = table.insert(entry(), 1).unwrap();
        assert_ne!(first, second);
        assert!(table.get(first).is_none());
        assert!(table.remove(first).is_none());
        assert!(table.get(second).is_some());
    }

    #[test]
    fn the_limit_counts_open_handles() {
        let mut table = Table::default();
        let first = table.insert(entry(), 2).unwrap();
        table.insert(entry(), 2).unwrap();
        assert_eq!(table.insert(entry(), 2), Err(Full));
        table.remove(first).unwrap();
        assert!(table.insert(entry(), 2).is_ok());
        assert_eq!(table.open(), 2);
    }

    #[test]
    fn numbers_that_were_never_given_out_find_nothing() {
        let mut table = Table::default();
        table.insert(entry(), 8).unwrap();
        for number in [0, 1, 1 << 20 | 1, 2 << 20, (1 << 53) - 1] {
            assert!(table.get(Handle::new(number).unwrap()).is_none(), "{number}");
        }
    }

    #[test]
    fn a_slot_whose_generations_are_used_up_is_retired() {
        let mut table = Table::default();
        table.insert(entry(), 8).unwrap();
        table.slots[0].generation = u32::MAX;
        let last = name(0, u32::MAX).unwrap();
        table.remove(last).unwrap();
        assert_eq!(parts(table.insert(entry(), 8).unwrap()).0, 1);
    }

    #[test]
    fn a_clone_keeps_the_numbers() {
        let mut table = Table::default();
        let closed = table.insert(entry(), 8).unwrap();
        let kept = table.insert(entry(), 8).unwrap();
        table.remove(closed).unwrap();
        let clone = table.duplicate().unwrap();
        assert!(clone.get(kept).is_some());
        assert!(clone.get(closed).is_none());
    }
}
