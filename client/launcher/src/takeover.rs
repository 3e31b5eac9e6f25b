//! The launcher in place of a supervisor that has ended.
//!
//! Without anybody who answers, each reported call would fail with `ENOSYS`, also a plain `bind`. So the launcher keeps
//! a copy of the listener, and lets the kernel make the calls.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;

use rustix::event::{PollFd, PollFlags, poll};

use crate::decision::unserved;
use crate::jobs::{QUEUED_MAX, WORKERS_MAX};
use crate::kernel::notify::Listener;

/// The most calls that the supervisor had received and not answered: those with a thread and those in the queue.
const UNANSWERED_MAX: u64 = (WORKERS_MAX + QUEUED_MAX) as u64;

/// Notes the number of the last received call, for [`answer_all`].
pub(crate) fn note(last: &File, id: u64) {
    // Without it, calls in progress wait for ever if the supervisor is killed.
    drop(last.write_all_at(&id.to_ne_bytes(), 0));
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
