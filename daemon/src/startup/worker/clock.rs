//! The clock of what a worker does from time to time.
//!
//! It is a descriptor. With a timer of the event loop, each wait for the next call would set a timer of the kernel and
//! remove it again.

use std::io;
use std::time::Duration;

use sockbroker_sys::timer::Timer;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::table::readiness::register;

/// A clock that ticks at regular intervals.
pub(super) struct Clock {
    timer: AsyncFd<Timer>,
    interval: Duration,
}

impl Clock {
    /// A clock with its first tick at once.
    pub(super) fn start(interval: Duration) -> io::Result<Self> {
        let timer = Timer::new()?;
        timer.set(Duration::ZERO)?;
        Ok(Self { timer: register(timer, Interest::READABLE)?, interval })
    }

    /// Waits for the next tick. If it was not awaited in time, it comes late, and none is made up for.
    pub(super) async fn tick(&mut self) -> io::Result<()> {
        self.timer.readable().await?.clear_ready();
        self.restart()
    }

    /// Lets the next tick come after an interval.
    pub(super) fn restart(&self) -> io::Result<()> {
        self.timer.get_ref().set(self.interval)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn clock_ticks_at_once_and_then_after_each_interval() {
        let mut clock = Clock::start(Duration::from_micros(50)).unwrap();
        for _ in 0..5 {
            clock.tick().await.unwrap();
        }
        let mut clock = Clock::start(Duration::from_hours(1)).unwrap();
        clock.tick().await.unwrap();
        assert!(clock.tick().now_or_never().is_none());
    }
}
