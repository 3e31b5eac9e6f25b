//! Readiness, timeouts and cancelling for every operation that may wait.
//!
//! Try first, then wait: what fails at once (no out-of-band data, `accept` without `listen`) never
//! waits. The system call and the return of its result happen in one poll, so that dropping the
//! future between them cannot lose anything.

use std::io;
use std::time::Duration;

use sockbroker_sys::{option, socket};
use tokio::io::Interest;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::error::{During, OpError, OpResult};
use crate::table::permitted::Socket;
use crate::table::timeout::Timeout;

/// Between two attempts where no event tells when to try again: at first, and at most.
pub const RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// What an operation waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Data, a connection, or an error.
    Receive,
    /// Room, a finished connect, or an error.
    Send,
}

/// How long an operation may wait, fixed when its turn comes.
#[derive(Debug, Clone, Copy)]
pub enum WaitPolicy {
    /// Not at all: `EAGAIN` is the answer.
    None,
    /// For ever.
    Endless,
    /// Until then; afterwards the error is a timeout.
    Until(Instant),
    /// Until then, by `SO_RCVTIMEO` or `SO_SNDTIMEO`; afterwards the error is `EAGAIN`.
    KernelUntil(Instant),
}

impl WaitPolicy {
    /// The wait policy of the socket's timeout. `flags` are the caller's `MSG_*`: in blocking mode
    /// `MSG_DONTWAIT` and `MSG_ERRQUEUE` forbid to wait; with a timeout they do not shorten it.
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

    /// A deadline so far from now.
    pub(super) fn after(duration: Duration) -> Self {
        match Instant::now().checked_add(duration) {
            Some(deadline) => Self::Until(deadline),
            None => Self::Endless,
        }
    }

    /// A blocking socket may have been made non-blocking by a holder of its descriptor, or have a
    /// timeout in the kernel.
    fn of_blocking(socket: &Socket, direction: Direction) -> Self {
        if socket::is_nonblocking(socket.fd()).unwrap_or(false) {
            return Self::None;
        }
        let name = match direction {
            Direction::Receive => libc::SO_RCVTIMEO,
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

/// Waits until the user's rate allows a further message, within what the socket's timeout allows. Gives
/// the wait policy that is left, if it had to be looked at.
pub(super) async fn keep_pace(
    socket: &Socket,
    wait_policy: impl FnOnce() -> WaitPolicy,
    call: &'static str,
) -> OpResult<Option<WaitPolicy>> {
    let Some((_, crossed)) = socket.user().delay() else {
        return Ok(None);
    };
    let wait_policy = wait_policy();
    let until_paid = async {
        while let Some((delay, _)) = socket.user().delay() {
            sleep(delay).await;
        }
    };
    match wait_policy {
        WaitPolicy::None => return Err(OpError::Pace(crossed)),
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

/// Tries `attempt` until it does something else than ask to wait. `wait_policy` is asked only when the
/// first attempt did.
pub(super) async fn until_done<T>(
    socket: &Socket,
    direction: Direction,
    call: &'static str,
    wait_policy: impl FnOnce() -> WaitPolicy,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> OpResult<T> {
    match attempt() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
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

async fn wait_and_try<T>(
    socket: &Socket,
    direction: Direction,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    // Errors wake both directions: an ICMP error on a datagram socket raises EPOLLERR alone.
    let interest = match direction {
        Direction::Receive => Interest::READABLE | Interest::ERROR,
        Direction::Send => Interest::WRITABLE | Interest::ERROR,
    };
    let readiness = socket.readiness()?;
    let mut pause = RETRY_PAUSE.0;
    loop {
        let ready = readiness.ready(interest);
        // Room in somebody else's queue raises no event on this socket.
        let ready = if needs_retry(socket, direction) {
            timeout(RETRY_PAUSE.1, ready).await.ok()
        } else {
            Some(ready.await)
        };
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
        if let Some(guard) = ready {
            let mut guard = guard?;
            // The event loop never forgets that an end was closed: do not spin on that.
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

/// Datagrams to an `AF_UNIX` receiver whose queue is full wait for that receiver (`unix(7)`).
fn needs_retry(socket: &Socket, direction: Direction) -> bool {
    let facts = socket.declared();
    direction == Direction::Send && facts.domain == libc::AF_UNIX && facts.ty == libc::SOCK_DGRAM
}
