//! A timer as a descriptor (`timerfd_create(2)`): exact where the timers of an event loop round to milliseconds.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// A timer of the monotonic clock. Its descriptor is readable from its expiry until it is set again.
#[derive(Debug)]
pub struct Timer(TimerFd);

impl Timer {
    /// A timer that is not set.
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(Self(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?))
    }

    /// Sets it to expire once after this time: after a nanosecond if that is zero, which would disarm it.
    pub fn set(&self, after: Duration) -> io::Result<()> {
        let after = TimeSpec::from_duration(after.max(Duration::from_nanos(1)));
        Ok(self.0.set(Expiration::OneShot(after), TimerSetTimeFlags::empty())?)
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Events;

    #[test]
    fn timer_expires_once_also_after_no_time_and_a_new_time_replaces_the_expiry() {
        let timer = Timer::new().unwrap();
        let mut events = Events::new().unwrap();
        events.add(timer.as_fd(), 1).unwrap();
        for after in [Duration::ZERO, Duration::from_micros(50)] {
            timer.set(after).unwrap();
            assert_eq!(events.wait(None).unwrap().len(), 1);
            timer.set(Duration::from_hours(1)).unwrap();
            assert_eq!(events.wait(Some(Duration::ZERO)).unwrap(), []);
        }
    }
}
