//! `MSG_WAITALL`: gathers bytes with several system calls, and keeps them if the call is cancelled.

use std::io;
use std::sync::PoisonError;

use sockbroker_sys::message::{self, ReceivedMessage};

use crate::error::OpResult;
use crate::quota::{Reservation, Share};

use crate::ops::incoming::{ended, plain, wait_policy_of};
use crate::ops::wait::{Direction, until_done};
use crate::table::permitted::Socket;
use crate::table::timeout::Timeout;
use sockbroker_policy::action::Receive;

/// Whether `MSG_WAITALL` has an effect: on blocking streams only. With a timeout CPython's descriptor is
/// non-blocking, and the kernel ignores the flag.
pub(super) fn waits_for_all(socket: &Socket, request: &Receive) -> bool {
    let never = libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE | libc::MSG_OOB;
    request.flags & libc::MSG_WAITALL != 0
        && request.ancillary == 0
        && request.flags & never == 0
        && socket.declared().ty == libc::SOCK_STREAM
        && socket.timeout() == Timeout::Blocking
}

/// Receives `request.length` bytes in parts, because the kernel ignores `MSG_WAITALL` with `MSG_DONTWAIT`. If the
/// call is cancelled, the bytes are kept for the next call on the socket. Their memory counts as held for the user.
pub(super) async fn receive_all(socket: &Socket, request: &Receive) -> OpResult<ReceivedMessage> {
    let flags = (request.flags & !libc::MSG_WAITALL) | libc::MSG_DONTWAIT;
    let peek = request.flags & libc::MSG_PEEK != 0;
    let memory = socket.user().take(Share::Bytes, request.length as u64)?;
    let unread = if peek { None } else { take_unread(socket, request) };
    let mut gathered = Gathered { socket, data: unread.unwrap_or_default(), peek, _memory: memory };
    if !gathered.data.is_empty() && gathered.data.len() >= request.length {
        return Ok(plain(gathered.keep()));
    }
    loop {
        let wait_policy = || wait_policy_of(socket, request);
        let missing = request.length - gathered.data.len();
        let data = &mut gathered.data;
        let result = until_done(socket, Direction::Receive, "recv", wait_policy, || {
            let _turn = socket.turn();
            if !peek {
                return message::receive_append(socket.fd(), data, missing, flags);
            }
            data.clear();
            let n = message::receive_append(socket.fd(), data, request.length, flags)?;
            // MSG_PEEK returns the same bytes again: wait for more, unless the stream has ended.
            if n == 0 || n == request.length || ended(socket) {
                Ok(0)
            } else {
                Err(io::ErrorKind::WouldBlock.into())
            }
        })
        .await;
        match result {
            Ok(0) => return Ok(plain(gathered.keep())),
            Ok(_) if gathered.data.len() >= request.length => return Ok(plain(gathered.keep())),
            Ok(_) => {}
            // As in the kernel: bytes before an error are the result, and the next call returns the error.
            Err(_) if !gathered.data.is_empty() => return Ok(plain(gathered.keep())),
            Err(error) => return Err(error),
        }
    }
}

/// Bytes that were received from the kernel, and not returned to a caller yet.
struct Gathered<'a> {
    socket: &'a Socket,
    data: Vec<u8>,
    /// Peeked bytes are still in the kernel.
    peek: bool,
    /// Released after the bytes are put back.
    _memory: Reservation,
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
            unread.put_back(self.socket.user(), std::mem::take(&mut self.data));
        }
    }
}

/// Whether a cancelled call has left bytes.
pub(super) fn has_unread(socket: &Socket) -> bool {
    !socket.unread.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
}

/// Receives bytes that a cancelled call left; `None` if there are none.
pub(super) fn take_unread(socket: &Socket, request: &Receive) -> Option<Vec<u8>> {
    let mut unread = socket.unread.lock().unwrap_or_else(PoisonError::into_inner);
    if unread.is_empty() || request.flags & (libc::MSG_OOB | libc::MSG_ERRQUEUE) != 0 {
        return None;
    }
    let peek = request.flags & libc::MSG_PEEK != 0;
    Some(if peek { unread.peek(request.length) } else { unread.take(request.length) })
}
