//! `poll(2)` over many handles, without a thread.

use std::time::Duration;

use sockbroker_sys::poll::{ReadinessSet, poll_now};
use tokio::io::Interest;
use tokio::time::{Instant, timeout_at};

use crate::error::{During, OpResult};
use crate::table::permitted::Permitted;
use crate::table::readiness::register;
use sockbroker_policy::action::Inspect;

/// One handle to look at.
#[derive(Debug)]
pub struct Watched {
    /// The socket; `None` for a handle that is not open.
    pub socket: Option<Permitted<Inspect>>,
    /// `POLL*`.
    pub events: i16,
}

/// Waits until one of the handles has an event; the events of each, 0 for none. `POLLNVAL` stands for
/// a handle that is not open.
pub async fn poll(watched: &[Watched], timeout: Option<Duration>) -> OpResult<Vec<i16>> {
    let now = look(watched)?;
    if now.iter().any(|events| *events != 0) || timeout == Some(Duration::ZERO) {
        return Ok(now);
    }
    // A level-triggered set of its own: what another call waits for is not disturbed.
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
            return look(watched);
        };
        let mut ready = ready.during("poll")?;
        let now = look(watched)?;
        if now.iter().any(|events| *events != 0) {
            return Ok(now);
        }
        ready.clear_ready();
    }
}

fn look(watched: &[Watched]) -> OpResult<Vec<i16>> {
    let open = watched
        .iter()
        .filter_map(|item| Some((item.socket.as_ref()?.socket().fd(), item.events)))
        .collect::<Vec<_>>();
    let mut found = poll_now(&open).during("poll")?.into_iter();
    let events = watched.iter().map(|item| match &item.socket {
        None => libc::POLLNVAL,
        Some(permitted) => {
            let events = found.next().unwrap_or(0);
            // Bytes that a cancelled call left are invisible to the kernel.
            let unread = permitted.socket().unread.lock().is_ok_and(|unread| !unread.is_empty());
            if unread { events | (item.events & (libc::POLLIN | libc::POLLRDNORM)) } else { events }
        }
    });
    Ok(events.collect())
}
