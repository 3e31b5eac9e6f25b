//! Functions that all receiving calls use.

use sockbroker_sys::address::RawAddress;
use sockbroker_sys::message::ReceivedMessage;

use crate::ops::wait::{Direction, WaitPolicy};
use crate::table::permitted::Socket;
use sockbroker_policy::action::Receive;

/// The wait policy of a receiving call.
pub(super) fn wait_policy_of(socket: &Socket, request: &Receive) -> WaitPolicy {
    WaitPolicy::of(socket, Direction::Receive, request.flags)
}

/// Whether no more data can arrive: the connection or its receiving direction is closed.
pub(super) fn ended(socket: &Socket) -> bool {
    let events = [(socket.fd(), libc::POLLRDHUP)];
    let ready = sockbroker_sys::poll::poll_now(&events).unwrap_or_default();
    ready.first().is_some_and(|events| events & (libc::POLLRDHUP | libc::POLLHUP) != 0)
}

/// A message with data only.
pub(super) fn plain(data: Vec<u8>) -> ReceivedMessage {
    ReceivedMessage {
        n: data.len(),
        data,
        control: Vec::new(),
        flags: 0,
        address: RawAddress::default(),
    }
}
