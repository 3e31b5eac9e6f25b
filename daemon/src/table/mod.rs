//! Handle to socket or stream.
//!
//! A handle is made of a slot's index and its generation. Closing raises the generation, so that a stale
//! copy of a handle never finds what the slot holds later.

pub mod entry;
pub mod permitted;
pub mod stream;
pub mod ends;
pub mod socket_endpoints;
pub mod claims;
pub mod channel;
pub mod shared;
pub mod call_queue;
pub mod rcvall;
pub mod timeout;
pub mod readiness;
pub mod unread;
pub mod peeked;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::error::LimitExceeded;
use crate::error::OpError;
use crate::quota::{Share, User};
use crate::table::channel::ChannelEnd;
use crate::table::entry::Entry;
use crate::table::stream::Stream;
use serde::{Deserialize, Serialize};
use sockbroker_policy::namespace::Namespace;
use sockbroker_proto::handle::Handle;

/// Bits of a handle that hold the slot's index; the generation's 32 stand above them.
const INDEX_BITS: u32 = 20;
/// The most slots a table can have.
pub const MAX_SLOTS: usize = 1 << INDEX_BITS;

/// What a handle names.
#[derive(Debug, Clone)]
pub enum Resource {
    Socket(Arc<Entry>),
    Stream(Arc<Stream>),
}

/// The sockets and streams of one session.
#[derive(Debug, Default)]
pub struct Table {
    slots: Vec<Slot>,
    /// Oldest first, so that a slot is used again as late as possible.
    free: VecDeque<u32>,
    open: usize,
    /// How many generations a new slot skips: those that an earlier table may have given out.
    skipped: u32,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    resource: Option<Resource>,
}

/// Which handles a table has given out, as far as another table needs it to give out none of them again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Numbers {
    pub slots: u32,
    /// The first generation that no slot has given out.
    pub generation: u64,
}

/// The generation of a handle.
pub fn generation(handle: Handle) -> u64 {
    handle.number() >> INDEX_BITS
}

/// The number of slots of a table with these handles.
pub fn slots(handles: impl Iterator<Item = u64>) -> u32 {
    let index = |handle: u64| u32::try_from(handle & ((1 << INDEX_BITS) - 1)).unwrap_or_default();
    handles.map(|handle| index(handle) + 1).max().unwrap_or_default()
}

/// A handle that no table with these numbers has given out, or that names two things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownHandle(pub Handle);

/// Why a table cannot be duplicated.
#[derive(Debug)]
pub enum DuplicateError {
    /// A limit on the user's handles.
    Limit(LimitExceeded),
    /// The kernel returned no descriptor.
    Os(io::Error),
}

impl From<DuplicateError> for OpError {
    fn from(error: DuplicateError) -> Self {
        match error {
            DuplicateError::Limit(exceeded) => exceeded.into(),
            DuplicateError::Os(error) => Self::os("dup", error),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableFull;

impl Table {
    /// The number of open handles.
    pub fn open(&self) -> usize {
        self.open
    }

    /// The user of the sockets.
    pub fn user(&self) -> Option<Arc<User>> {
        self.slots.iter().find_map(|slot| match slot.resource.as_ref()? {
            Resource::Socket(entry) => Some(entry.user().clone()),
            Resource::Stream(_) => None,
        })
    }

    /// Gives a handle, unless `limit` handles are open.
    pub fn insert(&mut self, resource: Resource, limit: usize) -> Result<Handle, TableFull> {
        if self.open >= limit.min(MAX_SLOTS) {
            return Err(TableFull);
        }
        let index = match self.free.pop_front() {
            Some(index) => index,
            None => self.grow()?,
        };
        let slot = self.slots.get_mut(index as usize).ok_or(TableFull)?;
        slot.resource = Some(resource);
        self.open += 1;
        name(index, slot.generation).ok_or(TableFull)
    }

    fn grow(&mut self) -> Result<u32, TableFull> {
        if self.slots.len() >= MAX_SLOTS {
            return Err(TableFull);
        }
        let index = u32::try_from(self.slots.len()).map_err(|_error| TableFull)?;
        let generation = self.skipped.checked_add(1).ok_or(TableFull)?;
        self.slots.push(Slot { generation, resource: None });
        Ok(index)
    }

    /// What an open handle names.
    pub fn get(&self, handle: Handle) -> Option<Resource> {
        let (index, generation) = parts(handle);
        let slot = self.slots.get(index as usize)?;
        if slot.generation != generation {
            return None;
        }
        slot.resource.clone()
    }

    /// The open handles with what they name, lowest first.
    pub fn resources(&self) -> Vec<(Handle, Resource)> {
        let open = (0..).zip(&self.slots).filter_map(|(index, slot)| {
            Some((name(index, slot.generation)?, slot.resource.clone()?))
        });
        let mut resources: Vec<_> = open.collect();
        resources.sort_unstable_by_key(|(handle, _)| *handle);
        resources
    }

    /// Removes what an open handle names; the handle is void from then on.
    pub fn remove(&mut self, handle: Handle) -> Option<Resource> {
        let (index, generation) = parts(handle);
        let slot = self.slots.get_mut(index as usize)?;
        if slot.generation != generation {
            return None;
        }
        let resource = slot.resource.take()?;
        self.open -= 1;
        // A slot without a further generation is not used again.
        if let Some(next) = generation.checked_add(1) {
            slot.generation = next;
            self.free.push_back(index);
        }
        Some(resource)
    }

    /// Ends the channels of every socket.
    pub fn end_channels(&self, reason: ChannelEnd) {
        for slot in &self.slots {
            if let Some(Resource::Socket(entry)) = &slot.resource {
                entry.channels.end(reason);
            }
        }
    }

    /// Removes the sockets of other network namespaces than the broker's own.
    pub fn take_elsewhere(&mut self) -> Vec<(Handle, Arc<Entry>)> {
        let mut taken = Vec::new();
        for (handle, resource) in self.resources() {
            match resource {
                Resource::Socket(entry) if *entry.namespace() != Namespace::Broker => {
                    self.remove(handle);
                    taken.push((handle, entry));
                }
                Resource::Socket(_) | Resource::Stream(_) => {}
            }
        }
        taken
    }

    /// A table with a duplicate of every socket under the same handle. The handles of streams are void, and those that a
    /// channel closes: the socket would stay open after the last copy of the channel's descriptor.
    pub fn duplicate(&self) -> Result<Self, DuplicateError> {
        let mut sockets = Vec::with_capacity(self.open);
        for (handle, resource) in self.resources() {
            let Resource::Socket(entry) = resource else { continue };
            if entry.channels.is_closing() {
                continue;
            }
            let namespace = entry.user().take(Share::Handles, 1).map_err(DuplicateError::Limit)?;
            let copy = entry.duplicate(namespace).map_err(DuplicateError::Os)?;
            copy.set_inheritable(entry.inheritable());
            sockets.push((handle, Resource::Socket(Arc::new(copy))));
        }
        let resumed = Self::resume(self.numbers(), sockets);
        resumed.map_err(|UnknownHandle(_)| {
            DuplicateError::Os(io::Error::other("the table is damaged"))
        })
    }

    /// Which handles it has given out.
    pub fn numbers(&self) -> Numbers {
        // A free slot of the last generation may have been retired.
        let next = |slot: &Slot| match slot.resource {
            None if slot.generation < u32::MAX => u64::from(slot.generation),
            None | Some(_) => u64::from(slot.generation) + 1,
        };
        let slots = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        let first = u64::from(self.skipped) + 1;
        Numbers { slots, generation: self.slots.iter().map(next).fold(first, u64::max) }
    }

    /// A table with these handles open, which gives out none that a table with these numbers gave out.
    pub fn resume(
        numbers: Numbers,
        open: impl IntoIterator<Item = (Handle, Resource)>,
    ) -> Result<Self, UnknownHandle> {
        let mut table = Self::default();
        // Slots without a generation left stay unused.
        let next = u32::try_from(numbers.generation).ok();
        let generation = next.unwrap_or(u32::MAX);
        // Slots beyond these may have been given out too.
        table.skipped = generation.max(1) - 1;
        let slots = (numbers.slots as usize).min(MAX_SLOTS);
        table.slots.resize_with(slots, || Slot { generation, resource: None });
        for (handle, resource) in open {
            let (index, generation) = parts(handle);
            let fits = generation > 0 && u64::from(generation) < numbers.generation;
            match table.slots.get_mut(index as usize).filter(|_| fits) {
                Some(slot) if slot.resource.is_none() => {
                    *slot = Slot { generation, resource: Some(resource) };
                }
                Some(_) | None => return Err(UnknownHandle(handle)),
            }
            table.open += 1;
        }
        if next.is_some() {
            let slots = (0..).zip(&table.slots);
            table.free =
                slots.filter(|(_, slot)| slot.resource.is_none()).map(|(index, _)| index).collect();
        }
        Ok(table)
    }
}

fn name(index: u32, generation: u32) -> Option<Handle> {
    Handle::new(u64::from(generation) << INDEX_BITS | u64::from(index))
}

fn parts(handle: Handle) -> (u32, u32) {
    let number = handle.number();
    let index = u32::try_from(number & ((1 << INDEX_BITS) - 1));
    // 2^53 leaves one bit more than a generation has; such a number is not a handle.
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

    fn entry() -> Resource {
        let facts = SocketSpec { domain: libc::AF_UNIX, ty: libc::SOCK_STREAM, protocol: 0 };
        let descriptor = sockbroker_sys::socket::create(facts.domain, facts.ty, 0).unwrap();
        let handle = crate::quota::tests::handle();
        Resource::Socket(Arc::new(
            Entry::new(descriptor, facts, Timeout::Blocking, handle).unwrap(),
        ))
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
        assert_eq!(table.insert(entry(), 2), Err(TableFull));
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

    #[test]
    fn a_resumed_table_uses_no_slot_whose_generations_are_used_up() {
        let mut table = Table::default();
        let open = table.insert(entry(), 8).unwrap();
        let retired = table.insert(entry(), 8).unwrap();
        table.slots[1].generation = u32::MAX;
        table.remove(name(1, u32::MAX).unwrap()).unwrap();
        let numbers = table.numbers();
        let mut resumed = Table::resume(numbers, table.resources()).unwrap();
        assert_eq!(resumed.numbers(), numbers);
        assert!(resumed.get(open).is_some() && resumed.get(retired).is_none());
        assert_eq!(parts(resumed.insert(entry(), 8).unwrap()).0, 2);
        let twice = [(open, entry()), (open, entry())];
        assert_eq!(Table::resume(numbers, twice).unwrap_err(), UnknownHandle(open));
    }
}
