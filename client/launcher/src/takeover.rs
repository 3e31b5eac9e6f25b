//! The launcher in place of a supervisor that has ended.
//!
//! Without anybody who answers, each reported call would fail with `ENOSYS`, also a plain `bind`. So the launcher keeps
//! a copy of the listener, and lets the kernel make the calls.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};

use crate::decision::unserved;
use crate::jobs::{QUEUED_MAX, WORKERS_MAX};
use crate::kernel::notify::Listener;

/// The threads that receive calls: one receives while another makes a call.
pub(crate) const RECEIVERS: usize = 2;
/// The most calls that the supervisor had received and not answered: those with a thread and those in the queue.
const UNANSWERED_MAX: u64 = (RECEIVERS + WORKERS_MAX + QUEUED_MAX) as u64;

/// The number of the last received call, in a file for [`answer_all`].
#[derive(Debug)]
pub(crate) struct Last(Mutex<(u64, File)>);

impl Last {
    pub(crate) fn of(file: File) -> Self {
        Self(Mutex::new((0, file)))
    }

    /// Notes the number of a received call. Threads can note their numbers in another order than the kernel gave them.
    pub(crate) fn note(&self, id: u64) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (latest, file) = &mut *last;
        // The kernel begins with a random number. The sign of the distance shows which of two is the later one.
        if *latest == 0 || id.wrapping_sub(*latest).cast_signed() > 0 {
            *latest = id;
            // Without it, calls in progress wait for ever if the supervisor is killed.
            drop(file.write_all_at(&id.to_ne_bytes(), 0));
        }
    }
}

/// Lets the kernel make every call, until no program is left. If the sockets of the program are in another network
/// namespace (`in_named_namespace`), it gets no more.
pub(crate) fn answer_all(
    listener: &Listener,
    last: Option<&File>,
    in_named_namespace: bool,
) -> io::Result<()> {
    let mut id = [0; 8];
    if last.is_some_and(|last| last.read_exact_at(&mut id, 0).is_ok()) {
        // The numbers are consecutive. One that does not wait is an error without effect.
        let last = u64::from_ne_bytes(id);
        for id in (0..UNANSWERED_MAX).map(|earlier| last.wrapping_sub(earlier)) {
            drop(if in_named_namespace {
                // Which call it is, is not known.
                listener.answer(id, Some(libc::ENETDOWN))
            } else {
                listener.make_natively(id)
            });
        }
    }
    loop {
        let mut entries = [PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut entries, None))?;
        let [entry] = &entries;
        if entry.revents().contains(PollFlags::IN) {
            if let Some(call) = listener.receive()? {
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
        let name = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(name);
        let last = Last::of(file.try_clone().unwrap());
        let noted = || {
            let mut id = [0; 8];
            file.read_exact_at(&mut id, 0).unwrap();
            u64::from_ne_bytes(id)
        };
        for (id, latest) in
            [(u64::MAX - 1, u64::MAX - 1), (u64::MAX, u64::MAX), (1, 1), (u64::MAX, 1)]
        {
            last.note(id);
            assert_eq!(noted(), latest);
        }
    }
}
