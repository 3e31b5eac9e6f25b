//! The user ids of workers: each running worker has one that no other process of the broker has.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::ops::RangeInclusive;
use std::rc::Rc;

use super::remote::is_remote;

/// The ids of the workers of local principals, and those of remote ones and the gateway, apart.
#[derive(Debug)]
pub(super) struct AllWorkerIds {
    local: WorkerIds,
    pub(super) remote: WorkerIds,
}

impl AllWorkerIds {
    /// Divides a range: the last `remote` ids, but not all, are for what serves remote principals.
    pub(super) fn new(range: RangeInclusive<u32>, remote: u64) -> io::Result<Self> {
        let (first, last) = (*range.start(), *range.end());
        let remote = u32::try_from(remote).unwrap_or(u32::MAX).min(last - first);
        let (local, remote) = (first..=last - remote, last - remote + 1..=last);
        // Without remote principals none is used.
        let remote = if remote.is_empty() { local.clone() } else { remote };
        Ok(Self { local: WorkerIds::new(local)?, remote: WorkerIds::new(remote)? })
    }

    /// Those for the worker of a user, or of a remote principal.
    pub(super) fn of(&mut self, uid: u32) -> &mut WorkerIds {
        if is_remote(uid) { &mut self.remote } else { &mut self.local }
    }
}

/// Some ids, and those in use.
#[derive(Debug)]
pub(super) struct WorkerIds {
    range: RangeInclusive<u32>,
    /// Where the search for a free one begins: an id is used again as late as possible.
    next: u32,
    used: Rc<RefCell<BTreeSet<u32>>>,
}

/// An id that is in use until all copies of this are dropped: when the process has ended, and no sockets of it wait for
/// the next worker of its principal.
#[derive(Debug, Clone)]
pub(super) struct WorkerId(Rc<InUse>);

#[derive(Debug)]
struct InUse {
    number: u32,
    used: Rc<RefCell<BTreeSet<u32>>>,
}

impl WorkerIds {
    /// Begins anywhere in the range: other brokers may use the same one, and should have other ids of it.
    pub(super) fn new(range: RangeInclusive<u32>) -> io::Result<Self> {
        let count = u64::from(range.end() - range.start()) + 1;
        let random =
            getrandom::u64().map_err(|error| io::Error::other(format!("getrandom: {error}")))?;
        let offset = u32::try_from(random % count).map_err(io::Error::other)?;
        Ok(Self::beginning_with(range.start() + offset, range))
    }

    fn beginning_with(next: u32, range: RangeInclusive<u32>) -> Self {
        Self { next, range, used: Rc::default() }
    }

    /// An id that no process of the broker has; `None` if all are in use.
    pub(super) fn take(&mut self) -> Option<WorkerId> {
        let (first, last) = (*self.range.start(), *self.range.end());
        let mut used = self.used.borrow_mut();
        let number =
            (self.next..=last).chain(first..self.next).find(|number| !used.contains(number))?;
        used.insert(number);
        self.next = if number == last { first } else { number + 1 };
        Some(WorkerId(Rc::new(InUse { number, used: self.used.clone() })))
    }

    /// The id that an earlier broker had given; `None` if it is in use, or not one of these.
    pub(super) fn take_again(&self, number: u32) -> Option<WorkerId> {
        let is_free = self.range.contains(&number) && self.used.borrow_mut().insert(number);
        is_free.then(|| WorkerId(Rc::new(InUse { number, used: self.used.clone() })))
    }
}

impl WorkerId {
    pub(super) fn number(&self) -> u32 {
        self.0.number
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.used.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_used_again_as_late_as_possible() {
        let mut ids = WorkerIds::beginning_with(7, 7..=9);
        let numbers = |taken: &[Option<WorkerId>]| -> Vec<_> {
            taken.iter().map(|id| id.as_ref().map(WorkerId::number)).collect()
        };
        let mut taken = vec![ids.take(), ids.take()];
        assert_eq!(numbers(&taken), [Some(7), Some(8)]);
        taken.remove(0);
        taken.extend([ids.take(), ids.take(), ids.take()]);
        assert_eq!(numbers(&taken), [Some(8), Some(9), Some(7), None]);
    }

    #[test]
    fn remote_principals_take_no_ids_of_local_ones() {
        let mut ids = AllWorkerIds::new(10..=15, 2).unwrap();
        let remote: Vec<_> = (0..3).map(|_| ids.of(u32::MAX - 1).take()).collect();
        let numbers: BTreeSet<_> = remote.iter().flatten().map(WorkerId::number).collect();
        assert_eq!(numbers, [14, 15].into());
        let local: Vec<_> = (0..5).map(|_| ids.of(0).take()).collect();
        let numbers: BTreeSet<_> = local.iter().flatten().map(WorkerId::number).collect();
        assert_eq!(numbers, (10..=13).collect());
        let mut none = AllWorkerIds::new(u32::MAX - 1..=u32::MAX - 1, 0).unwrap();
        assert_eq!(none.of(0).take().map(|id| id.number()), Some(u32::MAX - 1));
    }

    #[test]
    fn an_id_is_in_use_until_its_last_copy_is_dropped_and_is_given_again_by_number() {
        let mut ids = WorkerIds::beginning_with(7, 7..=8);
        let first = ids.take().unwrap();
        let copy = first.clone();
        drop(first);
        assert!(ids.take_again(7).is_none() && ids.take_again(9).is_none());
        drop(copy);
        let again = ids.take_again(7).unwrap();
        assert_eq!((again.number(), ids.take().unwrap().number()), (7, 8));
    }

    #[test]
    fn brokers_with_the_same_ids_begin_with_different_ones() {
        let range = 1_000..=1_000_000_000;
        let begins: BTreeSet<_> =
            (0..8).map(|_| WorkerIds::new(range.clone()).unwrap().next).collect();
        assert!(begins.len() > 1 && begins.iter().all(|id| range.contains(id)), "{begins:?}");
    }

    #[test]
    fn the_last_id_is_followed_by_the_first() {
        let mut ids = WorkerIds::new(u32::MAX - 1..=u32::MAX - 1).unwrap();
        assert_eq!(ids.take().map(|id| id.number()), Some(u32::MAX - 1));
        assert_eq!(ids.take().map(|id| id.number()), Some(u32::MAX - 1));
    }
}
