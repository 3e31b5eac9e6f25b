//! The thread of a capture: reads the ring, and writes the stream.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use sockbroker_bpf::Program;
use sockbroker_proto::address::Address;
use sockbroker_sys::events::Wake;
use sockbroker_sys::interface::of_socket;
use sockbroker_sys::journal::Journal;
use sockbroker_sys::ring::Ring;
use sockbroker_sys::{filter, poll, process, socket};

use super::count::Count;
use super::interfaces;
use super::keep::{self, Found};
use super::lot::CaptureLot;
use super::moderation::Moderation;
use super::open::now;
use super::order::{Command, Ended, Event, Failure, InterfaceFacts, Live, Opened, Reason};
use super::output::{Output, Sent};
use super::taking::Taking;

/// How long a capture that ends reads its ring, and then waits for a client that reads nothing: its answer comes within 0.3
/// seconds.
const LAST_WRITE: Duration = Duration::from_millis(250);
/// How often a capture whose interface is down finds out whether it still exists, in the first second; then it does so each
/// second.
const CHECK_OFTEN: Duration = Duration::from_millis(10);
/// How often counters are written while packets arrive.
const STATISTICS: Duration = Duration::from_secs(1);

/// A capture that is running.
pub(super) struct Run {
    capture: u64,
    ring: Ring,
    moderation: Moderation,
    /// A copy of its socket, on which interfaces are looked up.
    names: OwnedFd,
    output: Output,
    /// What it captures.
    opened: Opened,
    /// When it last found out whether several interfaces still exist.
    checked_at: Instant,
    count: Count,
    control: Control,
    /// Where it notes how far it is, if it outlives this process.
    journal: Option<Journal>,
    /// When it ends by itself, and why.
    until: Option<(Instant, Reason)>,
    ending: Option<Ending>,
    counted_at: Instant,
    /// Since when the interface is down, as far as it is known.
    down_since: Option<Instant>,
}

/// How the rest of the process reaches a capture.
pub(super) struct Control {
    pub(super) commands: Receiver<Command>,
    pub(super) wake: Arc<Wake>,
    /// Where captures lie that outlive this process.
    pub(super) lot: Option<Arc<CaptureLot>>,
    /// Whether this one does.
    pub(super) kept: Arc<AtomicBool>,
}

/// The packets that were read from the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filled {
    Nothing,
    /// As many as fit into the buffer; there can be more.
    Part,
    All,
}

/// The ring of a capture, and how long its reader sleeps.
fn map(opened: &Opened, socket: OwnedFd) -> io::Result<(Ring, Moderation)> {
    let geometry = opened.order.geometry(opened.longest).ok_or(io::ErrorKind::InvalidData)?;
    Ok((Ring::map(socket, &geometry)?, Moderation::of(&geometry)))
}

/// A capture that ends.
#[derive(Debug, Clone, Copy)]
struct Ending {
    reason: Reason,
    /// When it takes no further packet from the ring, and ends if the client does not read.
    deadline: Instant,
    /// Whether the ring is empty and the last counters are written.
    drained: bool,
}

impl Run {
    /// Begins. Returns what the client learns, and its end of the stream.
    pub(super) fn begin(
        capture: u64,
        opened: Opened,
        socket: OwnedFd,
        control: Control,
    ) -> io::Result<(Self, Live, OwnedFd)> {
        let facts = opened.indexes.iter().map(|index| interfaces::facts(socket.as_fd(), *index));
        let interfaces: Vec<InterfaceFacts> = facts.collect::<io::Result<_>>()?;
        let (output, stream) = Output::begin(&opened.order, &interfaces)?;
        let live = Live { interfaces, ..opened.live() };
        let run = Self::new(capture, opened, socket, (control, output), Duration::ZERO)?;
        Ok((run, live, stream))
    }

    /// `gone` is the time for which it runs already.
    fn new(
        capture: u64,
        opened: Opened,
        socket: OwnedFd,
        (control, output): (Control, Output),
        gone: Duration,
    ) -> io::Result<Self> {
        let names = socket.try_clone()?;
        let (ring, moderation) = map(&opened, socket)?;
        let now = Instant::now();
        let time = opened.order.milliseconds.map(Duration::from_millis);
        let left = time.map(|time| time.saturating_sub(gone));
        let until = left.and_then(|time| now.checked_add(time)).map(|at| (at, Reason::Limit));
        let (count, journal, ending, down_since) = (Count::default(), None, None, None);
        let (checked_at, counted_at) = (now, now);
        Ok(Self {
            capture,
            ring,
            moderation,
            names,
            output,
            opened,
            checked_at,
            count,
            control,
            journal,
            until,
            ending,
            counted_at,
            down_since,
        })
    }

    /// Continues a capture of a process that has ended.
    pub(super) fn resume(capture: u64, found: Found, control: Control) -> io::Result<Self> {
        let Found { opened, socket, stream, journal, position, unsent, count, ending } = found;
        let interfaces = opened.live().interfaces;
        let is_drained = ending.is_some_and(|(_, drained)| drained);
        let output = Output::resume((&opened.order, &interfaces), stream, unsent, is_drained)?;
        let gone = Duration::from_nanos(now().saturating_sub(opened.started));
        control.kept.store(true, Ordering::Release);
        let mut run = Self::new(capture, opened, socket, (control, output), gone)?;
        run.ring.resume(position)?;
        (run.count, run.journal) = (count, Some(journal));
        let now = Instant::now();
        let deadline = now + LAST_WRITE;
        run.ending = ending.map(|(reason, drained)| Ending { reason, deadline, drained });
        // The earlier process may have got the error.
        run.down_since = Some(now);
        run.note()?;
        Ok(run)
    }

    /// Outlives this process from now on.
    fn keep(&mut self) -> io::Result<()> {
        if self.journal.is_some() {
            return Ok(());
        }
        let lot = self.control.lot.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let mut journal = keep::journal(self.capture, &self.opened)?;
        let state = (self.ring.position(), &mut self.output, &self.count);
        keep::note(&mut journal, state, None)?;
        let parts = [self.ring.as_fd(), journal.as_fd(), self.output.as_fd()];
        lot.park(self.capture, parts)?;
        self.journal = Some(journal);
        self.control.kept.store(true, Ordering::Release);
        Ok(())
    }

    /// Notes how far it is, if it outlives this process.
    fn note(&mut self) -> io::Result<()> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let ending = self.ending.map(|ending| (ending.reason, ending.drained));
        keep::note(journal, (self.ring.position(), &mut self.output, &self.count), ending)
    }

    /// Reads the counters of the kernel.
    fn read_counts(&mut self) -> io::Result<()> {
        self.count.read(self.ring.as_fd(), self.journal.as_mut())?;
        self.note()
    }

    /// Sends what the stream has room for.
    fn send(&mut self) -> io::Result<Sent> {
        self.note()?;
        loop {
            let sent = self.output.send(self.journal.as_mut())?;
            self.note()?;
            if sent != Sent::Some {
                return Ok(sent);
            }
        }
    }

    /// Answers the commands that came too late.
    pub(super) fn answer_late(&mut self, report: &dyn Fn(Event)) {
        while let Ok(command) = self.control.commands.try_recv() {
            match command {
                Command::Counts { request } => report(Event::Counts { request, counts: None }),
                Command::SetFilter { request, .. } => {
                    report(Event::Filter { request, result: None });
                }
                Command::Keep { request } => report(Event::Kept { request, result: None }),
                Command::Stop { .. } | Command::Close(_) => {}
            }
        }
    }

    /// Captures until the capture has ended. Returns how.
    pub(super) fn run(&mut self, report: &dyn Fn(Event)) -> Ended {
        // Without it the kernel delays the end of each sleep.
        process::use_exact_timers().ok();
        let failed = match self.follow(report) {
            Ok(complete) => return self.ended(complete),
            Err(error) => error,
        };
        tracing::error!(capture = self.capture, error = %failed, "a capture failed");
        let deadline = Instant::now();
        self.ending.get_or_insert(Ending { reason: Reason::Failed, deadline, drained: false });
        self.ended(false)
    }

    fn ended(&mut self, complete: bool) -> Ended {
        let (packets, bytes) = self.output.unsent();
        self.count.note_lost(packets, bytes);
        // What cannot be counted any more was counted before.
        self.read_counts().ok();
        let reason = self.ending.map_or(Reason::Failed, |ending| ending.reason);
        Ended { reason, counts: self.count.counts(), complete }
    }

    /// Whether the stream is complete when the capture has ended.
    fn follow(&mut self, report: &dyn Fn(Event)) -> io::Result<bool> {
        loop {
            self.control.wake.clear();
            while let Ok(command) = self.control.commands.try_recv() {
                self.obey(command, report)?;
            }
            self.check_limits()?;
            self.check_interfaces()?;
            let filled = if self.output.is_empty() { self.fill()? } else { Filled::Nothing };
            let gathered = self.output.length();
            match self.send()? {
                Sent::All => {
                    if self.ending.is_some_and(|ending| ending.drained) {
                        return Ok(true);
                    }
                    match filled {
                        Filled::Nothing => self.wait(false)?,
                        Filled::All if self.ending.is_none() => {
                            #[expect(clippy::disallowed_methods, reason = "it has nothing to do")]
                            thread::sleep(self.moderation.after(gathered));
                        }
                        Filled::All | Filled::Part => {}
                    }
                }
                Sent::Part | Sent::Some => {
                    if self.unread_until().is_some_and(|deadline| deadline <= Instant::now()) {
                        return Ok(false);
                    }
                    self.wait(true)?;
                }
                Sent::Gone => {
                    self.end(Reason::Unread, Duration::ZERO)?;
                    return Ok(false);
                }
            }
        }
    }

    /// When a capture that ends waits no longer for its client. Each time the client reads, it gets as much time again, so
    /// that it never gets a part of a block.
    fn unread_until(&self) -> Option<Instant> {
        let deadline = self.ending?.deadline;
        Some(self.output.sent_at().map_or(deadline, |at| deadline.max(at + LAST_WRITE)))
    }

    fn obey(&mut self, command: Command, report: &dyn Fn(Event)) -> io::Result<()> {
        match command {
            Command::Counts { request } => {
                self.read_counts()?;
                report(Event::Counts { request, counts: Some(self.count.counts()) });
            }
            Command::SetFilter { request, program } => {
                let before = now();
                let result = if self.ending.is_some() {
                    None
                } else {
                    let attached = filter::attach(self.ring.as_fd(), &program);
                    Some(attached.map(|()| (before, now())).map_err(Failure::from))
                };
                report(Event::Filter { request, result });
            }
            Command::Stop { linger: 0 } => self.end(Reason::Stopped, LAST_WRITE)?,
            Command::Stop { linger } => {
                let at = Instant::now() + Duration::from_millis(linger.into());
                if self.until.is_none_or(|(until, _)| at < until) {
                    self.until = Some((at, Reason::Stopped));
                }
            }
            Command::Close(reason) => self.end(reason, LAST_WRITE)?,
            Command::Keep { request } => {
                let is_ending = self.ending.is_some();
                let result = (!is_ending).then(|| self.keep().map_err(Failure::from));
                report(Event::Kept { request, result });
            }
        }
        Ok(())
    }

    /// Whether the client wants no further packet.
    fn has_enough(&self) -> bool {
        let (packets, bytes) = self.count.captured();
        self.opened.order.packets.is_some_and(|most| packets >= most)
            || self.opened.order.bytes.is_some_and(|most| bytes >= most)
    }

    fn check_limits(&mut self) -> io::Result<()> {
        match self.until {
            _ if self.has_enough() => self.end(Reason::Limit, LAST_WRITE),
            Some((at, reason)) if at <= Instant::now() => self.end(reason, LAST_WRITE),
            Some(_) | None => Ok(()),
        }
    }

    /// Begins to end: no further packet is captured.
    fn end(&mut self, reason: Reason, longest: Duration) -> io::Result<()> {
        if self.ending.is_none() {
            filter::attach(self.ring.as_fd(), &Program::none().encode())?;
            self.read_counts()?;
            let deadline = Instant::now() + longest;
            self.ending = Some(Ending { reason, deadline, drained: false });
        }
        Ok(())
    }

    /// Reads packets into the buffer, until it is full or there are none.
    fn fill(&mut self) -> io::Result<Filled> {
        let mut filled = Filled::Nothing;
        while !self.output.is_full() && !self.has_enough() {
            if !self.fill_one()? {
                break;
            }
            filled = Filled::Part;
        }
        if filled == Filled::Part && !self.output.is_full() {
            filled = Filled::All;
        }
        if let Some(ending) = self.ending {
            // The kernel writes no further packet: those that it has written are all there are.
            let all = self.count.in_ring() == 0 || self.has_enough();
            if !ending.drained && (all || ending.deadline <= Instant::now()) {
                self.ending = Some(Ending { drained: true, ..ending });
                self.write_counts(Some(ending.reason.word()))?;
            }
        } else if filled != Filled::Nothing && self.counted_at.elapsed() >= STATISTICS {
            self.read_counts()?;
            for interface in self.output.renamed(self.ring.as_fd()) {
                self.output.describe(interface)?;
            }
            self.write_counts(None)?;
        }
        Ok(filled)
    }

    /// Reads one packet. `false` if there is none.
    fn fill_one(&mut self) -> io::Result<bool> {
        let dropped = self.count.unreported();
        let ending = self.ending.map(|ending| (ending.reason, ending.drained));
        let mut taking = Taking {
            output: &mut self.output,
            names: self.names.as_fd(),
            count: &mut self.count,
            journal: self.journal.as_mut(),
            dropped,
            ending,
            failed: None,
        };
        let taken = taking.take_from(&mut self.ring)?;
        let Some(losing) = taken else { return Ok(false) };
        if losing {
            self.read_counts()?;
        }
        Ok(true)
    }

    fn write_counts(&mut self, end: Option<&str>) -> io::Result<()> {
        self.counted_at = Instant::now();
        self.output.statistics(&self.count.counts(), (self.opened.started, now()), end)
    }

    /// Waits for a command, for packets if the buffer is empty, and for a client that reads if it is not.
    fn wait(&mut self, is_full: bool) -> io::Result<()> {
        let until = self.until.filter(|_| self.ending.is_none()).map(|(at, _)| at);
        let times = [until, self.unread_until()];
        let check = self.down_since.map(|since| {
            let often = since.elapsed() < STATISTICS;
            Instant::now() + if often { CHECK_OFTEN } else { STATISTICS }
        });
        let several = self.has_several().then(|| self.checked_at + STATISTICS);
        let first = times.into_iter().chain([check, several]).flatten().min();
        let longest = first.map(|at| at.saturating_duration_since(Instant::now()));
        let (for_ring, for_stream) = if is_full { (0, libc::POLLOUT) } else { (libc::POLLIN, 0) };
        let stream = (self.output.as_fd(), for_stream);
        let entries =
            [(self.control.wake.as_fd(), libc::POLLIN), stream, (self.ring.as_fd(), for_ring)];
        let ready = poll::poll_for(&entries, longest)?;
        let has = |entry: usize, bits| ready.get(entry).is_some_and(|events| events & bits != 0);
        if has(1, libc::POLLERR | libc::POLLHUP) {
            self.end(Reason::Unread, Duration::ZERO)?;
        }
        if has(2, libc::POLLIN) {
            self.down_since = None;
        }
        if has(2, libc::POLLERR) || self.down_since.is_some() {
            self.check_interface()?;
        }
        Ok(())
    }

    fn has_several(&self) -> bool {
        self.opened.indexes.len() > 1 && self.ending.is_none()
    }

    /// Ends a capture on several interfaces when one is gone. Its socket is bound to none of them, and reports nothing.
    fn check_interfaces(&mut self) -> io::Result<()> {
        if !self.has_several() || self.checked_at.elapsed() < STATISTICS {
            return Ok(());
        }
        self.checked_at = Instant::now();
        let names = self.names.as_fd();
        if self.opened.indexes.iter().any(|index| of_socket::name_of(names, *index).is_err()) {
            self.end(Reason::InterfaceGone, LAST_WRITE)?;
        }
        Ok(())
    }

    /// Finds out why the socket has an error: its interface is down, or gone. The kernel reports the error once, when the
    /// interface goes down, and not again when it is removed.
    fn check_interface(&mut self) -> io::Result<()> {
        let error = socket::take_error(self.ring.as_fd())?;
        let [only] = self.opened.indexes[..] else { return Ok(()) };
        match socket::local_address(self.ring.as_fd())?.decode(0) {
            Some(Address::Packet { ifindex, .. }) if ifindex == only => {}
            _ => return self.end(Reason::InterfaceGone, LAST_WRITE),
        }
        if error == libc::ENETDOWN {
            self.down_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }
}
