//! Closes descriptors of other processes in a process that must not wait.
//!
//! The last `close(2)` of a socket with `SO_LINGER` waits for the peer until the time is over or a signal arrives
//! (`sk_stream_wait_close`). Here a timer sends the closing thread a signal every millisecond until the close has
//! returned. The kernel then completes the connection in the background, as it does without `SO_LINGER`.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
pub struct PromptClose(Arc<Mutex<Interrupts>>);

/// Interrupts a thread that has a [`PromptClose`], from another thread.
#[derive(Debug, Clone)]
pub struct Interrupter(Arc<Mutex<Interrupts>>);

/// The timer that interrupts a thread.
#[derive(Debug)]
struct Interrupts {
    timer: Timer,
    /// Whether it interrupts the thread until its end.
    always: bool,
}

// SAFETY: a `timer_t` is the id of a timer of the process. Every thread may use it, under the lock; the signal goes to the
// thread that the timer was made for.
unsafe impl Send for Interrupts {}

impl Interrupts {
    fn set(&mut self, expiration: Expiration) -> io::Result<()> {
        Ok(self.timer.set(expiration, TimerSetTimeFlags::empty())?)
    }

    fn arm(&mut self) -> io::Result<()> {
        let every = TimeSpec::from_duration(LONGEST);
        self.set(Expiration::IntervalDelayed(every, every))
    }
}

fn lock(interrupts: &Mutex<Interrupts>) -> MutexGuard<'_, Interrupts> {
    interrupts.lock().unwrap_or_else(PoisonError::into_inner)
}

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
        let timer = Timer::new(ClockId::CLOCK_MONOTONIC, event)?;
        Ok(Self(Arc::new(Mutex::new(Interrupts { timer, always: false }))))
    }

    /// Closes sockets. MUST run in the thread that made this value. Other files may wait nevertheless.
    pub fn close(&mut self, sockets: Vec<OwnedFd>) {
        if sockets.is_empty() {
            return;
        }
        let armed = lock(&self.0).arm();
        drop(sockets);
        let mut interrupts = lock(&self.0);
        if armed.is_ok() && !interrupts.always {
            // Disarming fails only for arguments that arming has accepted.
            interrupts.set(Expiration::OneShot(TimeSpec::new(0, 0))).ok();
        }
    }

    /// What another thread needs to end a close of this thread that waits. Arming the timer for each close costs more
    /// than most closes do.
    pub fn interrupter(&self) -> Interrupter {
        Interrupter(self.0.clone())
    }
}

impl Interrupter {
    /// Interrupts the thread every millisecond until it ends, so that no close of it waits any longer.
    pub fn interrupt(&self) {
        let mut interrupts = lock(&self.0);
        interrupts.always = true;
        // It fails only for other arguments.
        interrupts.arm().ok();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::time::Instant;

    use super::*;
    use crate::{message, option};

    /// How long a test waits, on any machine.
    const BOUND: Duration = Duration::from_mins(3);

    /// A socket whose close waits an hour for its peer, and the peer.
    fn lingering() -> (OwnedFd, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let own = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        let linger = [1_i32.to_ne_bytes(), 3600_i32.to_ne_bytes()].concat();
        option::set_bytes(own.as_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &linger).unwrap();
        while message::send(own.as_fd(), &[0; 10_000], libc::MSG_DONTWAIT).is_ok() {}
        (own.into(), peer)
    }

    #[test]
    fn close_of_a_lingering_socket_does_not_wait_for_its_peer() {
        let (own, _peer) = lingering();
        let (mut closing, began) = (PromptClose::new().unwrap(), Instant::now());
        closing.close(vec![own]);
        assert!(began.elapsed() < BOUND, "{:?}", began.elapsed());
    }

    #[test]
    fn another_thread_ends_closes_that_wait() {
        let (first, second) = (lingering(), lingering());
        let (sender, interrupter) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut closing = PromptClose::new().unwrap();
            sender.send(closing.interrupter()).unwrap();
            let began = Instant::now();
            drop(first.0);
            closing.close(Vec::new());
            // Later ones too, also after a close that disarms the timer.
            closing.close(vec![std::fs::File::open("/dev/null").unwrap().into()]);
            drop(second.0);
            began.elapsed()
        });
        interrupter.recv().unwrap().interrupt();
        let took = thread.join().unwrap();
        assert!(took < BOUND, "{took:?}");
        drop((first.1, second.1));
    }
}
