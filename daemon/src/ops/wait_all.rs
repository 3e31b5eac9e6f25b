//! `MSG_WAITALL`: bytes that are gathered over several system calls, and kept if the call is cancelled.

use std::io;
use std::sync::PoisonError;

use sockbroker_sys::message::{self, ReceivedMessage};

use crate::error::OpResult;

use crate::ops::wait::{Direction, until_done};
use crate::ops::want::{Want, ended, plain, wait_policy_of};
use crate::table::entry::Entry;
use crate::table::timeout::Timeout;

/// `MSG_WAITALL` counts on blocking streams only: with a timeout CPython's descriptor is
/// non-blocking, and the kernel ignores the flag.
pub(super) fn waits_for_all(entry: &Entry, want: Want) -> bool {
    let never = libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE | libc::MSG_OOB;
    want.flags & libc::MSG_WAITALL != 0
        && want.control == 0
        && want.flags & never == 0
        && entry.declared().ty == libc::SOCK_STREAM
        && entry.timeout() == Timeout::Blocking
}

/// `MSG_DONTWAIT` would cancel `MSG_WAITALL`, so the parts are gathered here. What was taken when the
/// call is cancelled goes back to the entry.
pub(super) async fn receive_all(entry: &Entry, want: Want) -> OpResult<ReceivedMessage> {
    let flags = (want.flags & !libc::MSG_WAITALL) | libc::MSG_DONTWAIT;
    let peek = want.flags & libc::MSG_PEEK != 0;
    let unread = if peek { None } else { take_unread(entry, want) };
    let mut taken = Reservation { entry, data: unread.unwrap_or_default(), peek };
    if !taken.data.is_empty() && taken.data.len() >= want.length {
        return Ok(plain(taken.keep()));
    }
    loop {
        let wait_policy = || wait_policy_of(entry, want);
        let missing = want.length - taken.data.len();
        let data = &mut taken.data;
        let result = until_done(entry, Direction::Receive, "recv", wait_policy, || {
            if !peek {
                return message::receive_append(entry.fd(), data, missing, flags);
            }
            data.clear();
            let n = message::receive_append(entry.fd(), data, want.length, flags)?;
            // Peeking finds the same bytes again: wait for more of them, unless the end has come.
            if n == 0 || n == want.length || ended(entry) {
                Ok(0)
            } else {
                Err(io::ErrorKind::WouldBlock.into())
            }
        })
        .await;
        match result {
            Ok(0) => return Ok(plain(taken.keep())),
            Ok(_) if taken.data.len() >= want.length => return Ok(plain(taken.keep())),
            Ok(_) => {}
            // As in the kernel: what came before the error is the result; the error comes next time.
            Err(_) if !taken.data.is_empty() => return Ok(plain(taken.keep())),
            Err(error) => return Err(error),
        }
    }
}

/// Bytes taken from the kernel that nobody was given yet.
struct Reservation<'a> {
    entry: &'a Entry,
    data: Vec<u8>,
    /// Peeked bytes are still in the kernel.
    peek: bool,
}

impl Reservation<'_> {
    fn keep(mut self) -> Vec<u8> {
        std::mem::take(&mut self.data)
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.peek && !self.data.is_empty() {
            let mut unread = self.entry.unread.lock().unwrap_or_else(PoisonError::into_inner);
            unread.splice(..0, self.data.drain(..));
        }
    }
}

/// The front of what a cancelled call left, as one receive.
pub(super) fn take_unread(entry: &Entry, want: Want) -> Option<Vec<u8>> {
    let mut unread = entry.unread.lock().unwrap_or_else(PoisonError::into_inner);
    if unread.is_empty() || want.flags & (libc::MSG_OOB | libc::MSG_ERRQUEUE) != 0 {
        return None;
    }
    let length = want.length.min(unread.len());
    if want.flags & libc::MSG_PEEK != 0 {
        return unread.get(..length).map(<[u8]>::to_vec);
    }
    Some(unread.drain(..length).collect())
}
