//! The launcher in place of a supervisor that has ended.
//!
//! Without anybody who answers, each reported call would fail with `ENOSYS`, also a plain `bind`. So the launcher keeps
//! a copy of the listener, and lets the kernel make the calls.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::{PollFd, PollFlags, poll};

use crate::decision::unserved;
use crate::jobs::{QUEUED_MAX, WORKERS_MAX};
use crate::kernel::notify::Listener;
use crate::kernel::shared::{RECEIVERS, Shared, Slot};

/// The most calls that the supervisor had received and not answered: those with a thread and those in the queue.
const UNANSWERED_MAX: u64 = (RECEIVERS + WORKERS_MAX + QUEUED_MAX) as u64;
/// The number of the last received call, in memory that [`answer_all`] reads.
#[derive(Debug)]
pub(crate) struct Last(&'static AtomicU64);

impl Last {
    /// Returns also where the receivers let the kernel write the calls, and the file for `answer_all`.
    pub(crate) fn create() -> io::Result<(Self, &'static mut [Slot; RECEIVERS], File)> {
        let (Shared { last, slots }, file) = Shared::create()?;
        Ok((Self(last), slots, file))
    }

    /// Notes the number of a received call. Threads can note their numbers in another order than the kernel gave them.
    pub(crate) fn note(&self, id: u64) {
        // The kernel begins with a random number. The sign of the distance shows which of two is the later one.
        let is_later = |latest: u64| latest == 0 || id.wrapping_sub(latest).cast_signed() > 0;
        // It fails if a later one is noted.
        let later = |latest| is_later(latest).then_some(id);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later).ok();
    }
}

/// Lets the kernel make every call, until no program is left. If the sockets of the program are in another network
/// namespace (`in_named_namespace`), it gets no more.
pub(crate) fn answer_all(
    listener: &Listener,
    last: Option<&File>,
    in_named_namespace: bool,
) -> io::Result<()> {
    if let Some((last, received)) = last.and_then(|file| Shared::read(file).ok()) {
        // The numbers are consecutive. One that does not wait is an error without effect. The last ones, which the kernel had
        // written for the receivers, may not have been noted.
        let noted = (0..UNANSWERED_MAX).map(|earlier| last.wrapping_sub(earlier));
        for id in noted.chain(received) {
            drop(if in_named_namespace {
                // Which call it is, is not known.
                listener.answer(id, Some(libc::ENETDOWN))
            } else {
                listener.make_natively(id)
            });
        }
    }
    let mut slot = Slot::of(0);
    loop {
        let mut entries = [PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut entries, None))?;
        let [entry] = &entries;
        if entry.revents().contains(PollFlags::IN) {
            if let Some(call) = listener.receive(&mut slot)? {
                drop(match unserved(&call.call, in_named_namespace) {
                    Some(errno) => listener.answer(call.id, Some(errno)),
                    None => listener.make_natively(call.id),
                });
            }
        } else if !entry.revents().is_empty() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_number_is_noted_in_whatever_order_they_come() {
        let (last, slots, file) = Last::create().unwrap();
        slots[1] = Slot::of(9);
        let noted = || Shared::read(&file).unwrap();
        assert_eq!(noted(), (0, [0, 9]));
        for (id, latest) in
            [(u64::MAX - 1, u64::MAX - 1), (u64::MAX, u64::MAX), (1, 1), (u64::MAX, 1)]
        {
            last.note(id);
            assert_eq!(noted(), (latest, [0, 9]));
        }
    }
}
