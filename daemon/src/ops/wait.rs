//! Readiness, timeouts and cancellation of operations that may wait.
//!
//! An operation tries first and waits afterwards: a call that fails at once (no out-of-band data, `accept` without
//! `listen`) does not wait. The system call and the return of its result happen in one poll, so that a dropped
//! future cannot lose a result.

use std::io;
use std::time::Duration;

use sockbroker_sys::{option, socket};
use tokio::io::Interest;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::error::{During, OpError, OpResult};
use crate::table::permitted::Socket;
use crate::table::timeout::Timeout;

/// The first and the longest pause between two attempts where no event reports that the socket is ready.
pub const RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// What an operation waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Data, a connection, or an error.
    Receive,
    /// The same, or out-of-band data.
    ReceiveUrgent,
    /// Buffer space, a finished connect, or an error.
    Send,
}

/// How long an operation may wait. It is determined after earlier calls on the socket have ended.
#[derive(Debug, Clone, Copy)]
pub enum WaitPolicy {
    /// The operation does not wait, and fails with `EAGAIN`.
    None,
    /// Without end.
    Endless,
    /// Until a deadline. Afterwards the error is a timeout.
    Until(Instant),
    /// Until the deadline of `SO_RCVTIMEO` or `SO_SNDTIMEO`. Afterwards the error is `EAGAIN`.
    KernelUntil(Instant),
}

impl WaitPolicy {
    /// The wait policy for the timeout of a socket. `flags` are the caller's `MSG_*`. In blocking mode
    /// `MSG_DONTWAIT` and `MSG_ERRQUEUE` prevent waiting; a timeout is not changed by them.
    pub(super) fn of(socket: &Socket, direction: Direction, flags: i32) -> Self {
        match socket.timeout() {
            Timeout::NonBlocking => Self::None,
            Timeout::After(duration) => Self::after(duration),
            Timeout::Blocking if flags & (libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE) != 0 => {
                Self::None
            }
            Timeout::Blocking => Self::of_blocking(socket, direction),
        }
    }

    /// A deadline after this duration.
    pub(super) fn after(duration: Duration) -> Self {
        match Instant::now().checked_add(duration) {
            Some(deadline) => Self::Until(deadline),
            None => Self::Endless,
        }
    }

    /// The wait policy of a blocking socket. Another holder of its descriptor may have set `O_NONBLOCK`, and it may
    /// have a timeout in the kernel.
    fn of_blocking(socket: &Socket, direction: Direction) -> Self {
        if socket::is_nonblocking(socket.fd()).unwrap_or(false) {
            return Self::None;
        }
        let name = match direction {
            Direction::Receive | Direction::ReceiveUrgent => libc::SO_RCVTIMEO,
            Direction::Send => libc::SO_SNDTIMEO,
        };
        match option::get_timeout(socket.fd(), name) {
            Ok(Some(duration)) => match Instant::now().checked_add(duration) {
                Some(deadline) => Self::KernelUntil(deadline),
                None => Self::Endless,
            },
            Ok(None) | Err(_) => Self::Endless,
        }
    }
}

/// Waits until the rate of the user allows another message, within the timeout of the socket. Returns the wait
/// policy if it was needed, so that its deadline also covers the rest of the call.
pub(super) async fn keep_pace(
    socket: &Socket,
    wait_policy: impl FnOnce() -> WaitPolicy,
    call: &'static str,
) -> OpResult<Option<WaitPolicy>> {
    let Some((_, exceeded)) = socket.user().delay() else {
        return Ok(None);
    };
    let wait_policy = wait_policy();
    let until_paid = async {
        while let Some((delay, _)) = socket.user().delay() {
            sleep(delay).await;
        }
    };
    match wait_policy {
        WaitPolicy::None => return Err(OpError::Pace(exceeded)),
        WaitPolicy::Endless => until_paid.await,
        WaitPolicy::Until(deadline) => {
            timeout_at(deadline, until_paid).await.map_err(|_elapsed| OpError::Timeout)?;
        }
        WaitPolicy::KernelUntil(deadline) => {
            let late = |_| OpError::Os { call, errno: libc::EAGAIN };
            timeout_at(deadline, until_paid).await.map_err(late)?;
        }
    }
    Ok(Some(wait_policy))
}

/// Runs `attempt`, and repeats it when the socket is ready while it fails with `EAGAIN`, and soon while it fails
/// with `EINTR`. `wait_policy` is called only after the first attempt failed so.
pub(super) async fn until_done<T>(
    socket: &Socket,
    direction: Direction,
    call: &'static str,
    wait_policy: impl FnOnce() -> WaitPolicy,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> OpResult<T> {
    match attempt() {
        Err(error) if is_unfinished(&error) => {}
        result => return result.during(call),
    }
    let waiting = wait_and_try(socket, direction, attempt);
    match wait_policy() {
        WaitPolicy::None => Err(OpError::Os { call, errno: libc::EAGAIN }),
        WaitPolicy::Endless => waiting.await.during(call),
        WaitPolicy::Until(deadline) => match timeout_at(deadline, waiting).await {
            Ok(result) => result.during(call),
            Err(_) => Err(OpError::Timeout),
        },
        WaitPolicy::KernelUntil(deadline) => match timeout_at(deadline, waiting).await {
            Ok(result) => result.during(call),
            Err(_) => Err(OpError::Os { call, errno: libc::EAGAIN }),
        },
    }
}

fn is_unfinished(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

async fn wait_and_try<T>(
    socket: &Socket,
    direction: Direction,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    // Errors wake both directions: an ICMP error on a datagram socket raises EPOLLERR alone.
    let interest = match direction {
        Direction::Receive => Interest::READABLE | Interest::ERROR,
        Direction::ReceiveUrgent => Interest::READABLE | Interest::PRIORITY | Interest::ERROR,
        Direction::Send => Interest::WRITABLE | Interest::ERROR,
    };
    let readiness = socket.readiness()?;
    let mut pause = RETRY_PAUSE.0;
    loop {
        let ready = readiness.ready(interest);
        // Space in another socket's queue raises no event on this socket.
        let ready = if needs_retry(socket, direction) {
            timeout(RETRY_PAUSE.1, ready).await.ok()
        } else {
            Some(ready.await)
        };
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                // The socket is still ready. Other calls have their turn first.
                yield_now().await;
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
        if let Some(guard) = ready {
            let mut guard = guard?;
            // The event loop keeps reporting a closed end. The pause prevents a busy loop.
            let closed = guard.ready().is_read_closed() || guard.ready().is_write_closed();
            guard.clear_ready();
            drop(guard);
            if closed {
                sleep(pause).await;
                pause = (pause * 2).min(RETRY_PAUSE.1);
            }
        }
    }
}

/// Whether the socket sends datagrams to `AF_UNIX` receivers, which wait if the receiver's queue is full (`unix(7)`).
fn needs_retry(socket: &Socket, direction: Direction) -> bool {
    let declared = socket.declared();
    direction == Direction::Send
        && declared.domain == libc::AF_UNIX
        && declared.ty == libc::SOCK_DGRAM
}
