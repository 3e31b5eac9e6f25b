//! Receives whose bytes stay in the queue of the socket until their response is sent ([`crate::table::peeked`]).

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use sockbroker_sys::message::{self, ReceivedMessage};

use crate::ops::incoming::plain;
use crate::table::peeked::Receipt;
use crate::table::permitted::Socket;
use sockbroker_policy::action::Receive;

/// Receives that take nothing, drop data, or take data outside of the stream.
const NEVER_KEPT: i32 = libc::MSG_PEEK | libc::MSG_TRUNC | libc::MSG_OOB | libc::MSG_ERRQUEUE;

/// Whether the session of a call wants that no received byte is lost with this process: then what says that the process
/// is about to end.
pub type ExactlyOnce<'a> = Option<&'a Arc<AtomicBool>>;

/// A message, and the receipt of bytes that are still in the queue.
pub type Kept = (ReceivedMessage, Option<Receipt>);

/// Makes one system call with the flags that it gets.
pub(super) fn receive(
    socket: &Socket,
    flags: i32,
    exactly_once: ExactlyOnce<'_>,
    call: impl FnOnce(i32) -> io::Result<ReceivedMessage>,
) -> io::Result<Kept> {
    let turn = socket.turn();
    match exactly_once.filter(|_| flags & NEVER_KEPT == 0 && turn.peeks(socket.actual())) {
        Some(stopping) => {
            let received = call(flags | libc::MSG_PEEK)?;
            let length = received.n;
            let receipt = (length > 0).then(|| socket.keep_until_sent(turn, length, stopping));
            Ok((received, receipt))
        }
        None => Ok((call(flags)?, None)),
    }
}

/// The result of a call with `MSG_WAITALL` if all of its bytes are in the queue. Others are gathered by several system
/// calls, and are lost with the process.
pub(super) fn receive_all(
    socket: &Socket,
    request: &Receive,
    exactly_once: ExactlyOnce<'_>,
) -> Option<Kept> {
    let stopping = exactly_once.filter(|_| request.flags & NEVER_KEPT == 0)?;
    let turn = socket.turn();
    if !turn.peeks(socket.actual()) {
        return None;
    }
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    let received = message::receive(socket.fd(), request.length, flags).ok()?;
    let is_whole = received.n > 0 && received.n == request.length;
    is_whole.then(|| {
        let receipt = socket.keep_until_sent(turn, received.n, stopping);
        (plain(received.data), Some(receipt))
    })
}
