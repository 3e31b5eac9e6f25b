//! Closes descriptors of other processes in a process that must not wait.
//!
//! The last `close(2)` of a socket with `SO_LINGER` waits for the peer until the time is over or a signal arrives
//! (`sk_stream_wait_close`). Here a timer sends the closing thread a signal every millisecond until the close has
//! returned. The kernel then completes the connection in the background, as it does without `SO_LINGER`.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::signal::{
    SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction,
};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::gettid;

/// How long a close may wait.
const LONGEST: Duration = Duration::from_millis(1);

/// Closes sockets without waiting for their peers, in the thread that made this value.
#[derive(Debug)]
pub struct PromptClose(Timer);

extern "C" fn interrupt(_: libc::c_int) {}

impl PromptClose {
    /// Prepares this thread. `SIGALRM` of the process no longer ends it.
    pub fn new() -> io::Result<Self> {
        let action = SigAction::new(
            SigHandler::Handler(interrupt),
            SaFlags::empty(), // no SA_RESTART: the signal is there to interrupt
            SigSet::empty(),
        );
        // SAFETY: the handler does nothing, so it can run at any point.
        unsafe { sigaction(Signal::SIGALRM, &action) }?;
        let (signal, thread_id) = (Signal::SIGALRM, gettid().as_raw());
        let event = SigEvent::new(SigevNotify::SigevThreadId { signal, thread_id, si_value: 0 });
        Ok(Self(Timer::new(ClockId::CLOCK_MONOTONIC, event)?))
    }

    /// Closes sockets. MUST run in the thread that made this value. Other files may wait nevertheless.
    pub fn close(&mut self, sockets: Vec<OwnedFd>) {
        if sockets.is_empty() {
            return;
        }
        let every = TimeSpec::from_duration(LONGEST);
        let armed = self.set(Expiration::IntervalDelayed(every, every));
        drop(sockets);
        if armed.is_ok() {
            // Disarming fails only for arguments that arming has accepted.
            self.set(Expiration::OneShot(TimeSpec::new(0, 0))).ok();
        }
    }

    fn set(&mut self, expiration: Expiration) -> io::Result<()> {
        Ok(self.0.set(expiration, TimerSetTimeFlags::empty())?)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::time::Instant;

    use super::*;
    use crate::{message, option};

    #[test]
    fn close_of_a_lingering_socket_does_not_wait_for_its_peer() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let own = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_peer, _) = listener.accept().unwrap();
        let linger = [1_i32.to_ne_bytes(), 60_i32.to_ne_bytes()].concat();
        option::set_bytes(own.as_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &linger).unwrap();
        while message::send(own.as_fd(), &[0; 10_000], libc::MSG_DONTWAIT).is_ok() {}
        let (mut closing, began) = (PromptClose::new().unwrap(), Instant::now());
        closing.close(vec![own.into()]);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}
