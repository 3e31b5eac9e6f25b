//! What receiving calls have in common.

use sockbroker_sys::address::RawAddress;
use sockbroker_sys::message::ReceivedMessage;

use crate::ops::wait::{Direction, WaitPolicy};
use crate::table::entry::Entry;

/// What a receiving call asks for.
#[derive(Debug, Clone, Copy)]
pub struct Want {
    /// At most this many bytes.
    pub length: usize,
    /// Room for ancillary data in bytes.
    pub control: usize,
    /// `MSG_*`.
    pub flags: i32,
}

/// How long a receiving call waits.
pub(super) fn wait_policy_of(entry: &Entry, want: Want) -> WaitPolicy {
    WaitPolicy::of(entry, Direction::Receive, want.flags)
}

/// Whether nothing more will come.
pub(super) fn ended(entry: &Entry) -> bool {
    let events = [(entry.fd(), libc::POLLRDHUP)];
    let ready = sockbroker_sys::poll::poll_now(&events).unwrap_or_default();
    ready.first().is_some_and(|events| events & (libc::POLLRDHUP | libc::POLLHUP) != 0)
}

/// Data without anything beside it.
pub(super) fn plain(data: Vec<u8>) -> ReceivedMessage {
    ReceivedMessage {
        n: data.len(),
        data,
        control: Vec::new(),
        flags: 0,
        address: RawAddress::default(),
    }
}
