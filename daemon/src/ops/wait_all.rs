//! `MSG_WAITALL`: bytes that are gathered over several system calls, and kept if the call is cancelled.

use std::io;
use std::sync::PoisonError;

use sockbroker_sys::message::{self, ReceivedMessage};

use crate::error::OpResult;

use crate::ops::wait::{Direction, until_done};
use crate::ops::want::{ended, plain, wait_policy_of};
use crate::table::permitted::Socket;
use crate::table::timeout::Timeout;
use sockbroker_policy::action::Receive;

/// `MSG_WAITALL` counts on blocking streams only: with a timeout CPython's descriptor is
/// non-blocking, and the kernel ignores the flag.
pub(super) fn waits_for_all(socket: &Socket, request: &Receive) -> bool {
    let never = libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE | libc::MSG_OOB;
    request.flags & libc::MSG_WAITALL != 0
        && request.ancillary == 0
        && request.flags & never == 0
        && socket.declared().ty == libc::SOCK_STREAM
        && socket.timeout() == Timeout::Blocking
}

/// `MSG_DONTWAIT` would cancel `MSG_WAITALL`, so the parts are gathered here. What was taken when the
/// call is cancelled goes back to the socket.
pub(super) async fn receive_all(socket: &Socket, request: &Receive) -> OpResult<ReceivedMessage> {
    let flags = (request.flags & !libc::MSG_WAITALL) | libc::MSG_DONTWAIT;
    let peek = request.flags & libc::MSG_PEEK != 0;
    let unread = if peek { None } else { take_unread(socket, request) };
    let mut taken = Gathered { socket, data: unread.unwrap_or_default(), peek };
    if !taken.data.is_empty() && taken.data.len() >= request.length {
        return Ok(plain(taken.keep()));
    }
    loop {
        let wait_policy = || wait_policy_of(socket, request);
        let missing = request.length - taken.data.len();
        let data = &mut taken.data;
        let result = until_done(socket, Direction::Receive, "recv", wait_policy, || {
            if !peek {
                return message::receive_append(socket.fd(), data, missing, flags);
            }
            data.clear();
            let n = message::receive_append(socket.fd(), data, request.length, flags)?;
            // Peeking finds the same bytes again: wait for more of them, unless the end has come.
            if n == 0 || n == request.length || ended(socket) {
                Ok(0)
            } else {
                Err(io::ErrorKind::WouldBlock.into())
            }
        })
        .await;
        match result {
            Ok(0) => return Ok(plain(taken.keep())),
            Ok(_) if taken.data.len() >= request.length => return Ok(plain(taken.keep())),
            Ok(_) => {}
            // As in the kernel: what came before the error is the result; the error comes next time.
            Err(_) if !taken.data.is_empty() => return Ok(plain(taken.keep())),
            Err(error) => return Err(error),
        }
    }
}

/// Bytes taken from the kernel that nobody was given yet.
struct Gathered<'a> {
    socket: &'a Socket,
    data: Vec<u8>,
    /// Peeked bytes are still in the kernel.
    peek: bool,
}

impl Gathered<'_> {
    fn keep(mut self) -> Vec<u8> {
        std::mem::take(&mut self.data)
    }
}

impl Drop for Gathered<'_> {
    fn drop(&mut self) {
        if !self.peek && !self.data.is_empty() {
            let mut unread = self.socket.unread.lock().unwrap_or_else(PoisonError::into_inner);
            unread.splice(..0, self.data.drain(..));
        }
    }
}

/// The front of what a cancelled call left, as one receive.
pub(super) fn take_unread(socket: &Socket, request: &Receive) -> Option<Vec<u8>> {
    let mut unread = socket.unread.lock().unwrap_or_else(PoisonError::into_inner);
    if unread.is_empty() || request.flags & (libc::MSG_OOB | libc::MSG_ERRQUEUE) != 0 {
        return None;
    }
    let length = request.length.min(unread.len());
    if request.flags & libc::MSG_PEEK != 0 {
        return unread.get(..length).map(<[u8]>::to_vec);
    }
    Some(unread.drain(..length).collect())
}
