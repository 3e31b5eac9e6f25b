//! `sendfile`, from a descriptor of the client.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;

use sockbroker_sys::file;

use crate::descriptor::Descriptor;
use crate::error::{During, OpError, OpResult};
use crate::ops::send::{Sender, attempt};
use crate::ops::wait::{Direction, WaitPolicy, keep_pace, until_done};
use crate::table::call_queue::Ticket;
use crate::table::permitted::{Permitted, Socket};
use crate::table::timeout::Timeout;
use sockbroker_policy::action::Send;

/// The most bytes of one `sendfile(2)`, so that one call does not hold a worker for long.
const FILE_STEP: usize = 1 << 20;
/// The most bytes of one step where the bytes are copied.
const COPY_STEP: usize = 64 << 10;

/// `sendfile(2)` from a regular file, up to `count` bytes or the end of the file (`_sendfile_use_sendfile`).
/// Returns the number of bytes that were sent.
pub async fn send_file(
    permitted: &Permitted<Send>,
    sender: Sender<'_>,
    ticket: Ticket<'_>,
    source: Descriptor,
    range: (u64, Option<u64>),
) -> OpResult<u64> {
    let socket = permitted.socket();
    ticket.acquire().await;
    if socket.timeout() == Timeout::NonBlocking {
        return Err(OpError::value("non-blocking sockets are not supported"));
    }
    if socket.declared().ty != libc::SOCK_STREAM {
        return Err(OpError::value("only SOCK_STREAM type sockets are supported"));
    }
    if !file::is_regular(source.as_fd()).during("fstat")? {
        return Err(OpError::value("not a regular file"));
    }
    let (mut offset, count) = range;
    let signs = sender.caller.client(socket.actual(), "sendfile")?.is_some();
    let file = source.as_fd();
    let mut sent: u64 = 0;
    while count.is_none_or(|count| sent < count) {
        let left = count.map_or(u64::MAX, |count| count - sent);
        let step = usize::try_from(left).unwrap_or(FILE_STEP).min(FILE_STEP);
        let moved = if signs {
            copy(socket, sender, file, &mut offset, step).await
        } else {
            splice(socket, file, &mut offset, step).await
        };
        let n = moved.map_err(|error| error.after(sent))?;
        if n == 0 {
            break;
        }
        sent += n as u64;
        sender.progress.store(sent, Ordering::Relaxed);
    }
    Ok(sent)
}

/// Sends one step with `sendfile(2)`.
async fn splice(
    socket: &Socket,
    file: BorrowedFd<'_>,
    offset: &mut u64,
    step: usize,
) -> OpResult<usize> {
    let wait_policy = || WaitPolicy::of(socket, Direction::Send, 0);
    let kept = keep_pace(socket, wait_policy, "sendfile").await?;
    let wait_policy = || kept.unwrap_or_else(wait_policy);
    let sent = until_done(socket, Direction::Send, "sendfile", wait_policy, || {
        socket.without_blocking(|fd| file::send_file(fd, file, offset, step))
    })
    .await?;
    socket.user().sent(1, sent);
    Ok(sent)
}

/// Sends one step with `read(2)` and `sendmsg(2)`, because `sendfile(2)` cannot carry credentials.
async fn copy(
    socket: &Socket,
    sender: Sender<'_>,
    file: BorrowedFd<'_>,
    offset: &mut u64,
    step: usize,
) -> OpResult<usize> {
    let mut data = vec![0; step.min(COPY_STEP)];
    let n = file::read_at(file, &mut data, *offset).during("sendfile")?;
    data.truncate(n);
    if n == 0 {
        return Ok(0);
    }
    let wait_policy = || WaitPolicy::of(socket, Direction::Send, 0);
    let sent = attempt(socket, sender, data.into(), 0, None, &wait_policy).await?;
    *offset += sent as u64;
    Ok(sent)
}
