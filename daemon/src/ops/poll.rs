//! `poll(2)` on many handles, without a thread.

use std::sync::Arc;
use std::time::Duration;

use sockbroker_sys::poll::{ReadinessSet, poll_now};
use tokio::io::Interest;
use tokio::time::{Instant, timeout_at};

use crate::error::{During, OpResult};
use crate::quota::{Share, User};
use crate::table::permitted::Permitted;
use crate::table::readiness::register;
use sockbroker_policy::action::Inspect;

/// A handle and the events to wait for.
#[derive(Debug)]
pub struct Watched {
    /// The socket; `None` for a handle that is not open.
    pub socket: Option<Permitted<Inspect>>,
    /// `POLL*`.
    pub events: i16,
}

/// Waits until one of the handles has an event. Returns the events of each, 0 for none. A handle that is not open
/// has `POLLNVAL`.
///
/// While it waits, it takes a descriptor of the user's.
pub async fn poll(
    watched: &[Watched],
    timeout: Option<Duration>,
    user: &Arc<User>,
) -> OpResult<Vec<i16>> {
    let now = current_events(watched)?;
    if now.iter().any(|events| *events != 0) || timeout == Some(Duration::ZERO) {
        return Ok(now);
    }
    let _descriptor = user.take(Share::Descriptors, 1)?;
    // A separate level-triggered set, so that other calls on the same sockets are not disturbed.
    let mut set = ReadinessSet::new().during("epoll_create")?;
    for item in watched {
        if let Some(permitted) = &item.socket {
            set.add(permitted.socket().fd(), item.events).during("epoll_ctl")?;
        }
    }
    let set = register(set, Interest::READABLE).during("epoll_ctl")?;
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let ready = match deadline {
            None => Some(set.readable().await),
            Some(deadline) => timeout_at(deadline, set.readable()).await.ok(),
        };
        let Some(ready) = ready else {
            return current_events(watched);
        };
        let mut ready = ready.during("poll")?;
        let now = current_events(watched)?;
        if now.iter().any(|events| *events != 0) {
            return Ok(now);
        }
        ready.clear_ready();
    }
}

fn current_events(watched: &[Watched]) -> OpResult<Vec<i16>> {
    let open = watched
        .iter()
        .filter_map(|item| Some((item.socket.as_ref()?.socket().fd(), item.events)))
        .collect::<Vec<_>>();
    let mut found = poll_now(&open).during("poll")?.into_iter();
    let events = watched.iter().map(|item| match &item.socket {
        None => libc::POLLNVAL,
        Some(permitted) => {
            let events = found.next().unwrap_or(0);
            // The kernel does not count the bytes that a cancelled call left.
            let unread = permitted.socket().unread.lock().is_ok_and(|unread| !unread.is_empty());
            if unread { events | (item.events & (libc::POLLIN | libc::POLLRDNORM)) } else { events }
        }
    });
    Ok(events.collect())
}
