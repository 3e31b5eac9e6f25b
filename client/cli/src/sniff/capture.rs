//! Receives packets and writes them, until the count is reached, a signal arrives or the interface is removed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::args::SniffArgs;
use super::file::CaptureFile;
use super::packet::Received;
use super::show::show;
use super::socket::{Batch, Counts, PacketSocket, Wait};
use crate::failure::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::screen::{Screen, report};

/// How long packets that the kernel has already queued are written after a signal.
const DRAIN: Duration = Duration::from_millis(80);

/// Counters for the statistics. Another thread can read them while the capture is blocked.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Packets that were written to the file, or printed if there is none.
    captured: AtomicU64,
    /// Messages that were received from the socket.
    messages: AtomicU64,
    /// Received messages that were copies of others.
    copies: AtomicU64,
    /// Packets that arrived after the last one that was wanted.
    late: AtomicU64,
}

impl Tally {
    /// Computes how many packets were seen (captured and lost) and how many were lost.
    pub(super) fn total(&self, counted: Counts) -> Counts {
        let unseen = self.copies.load(Ordering::Relaxed) + self.late.load(Ordering::Relaxed);
        let received = counted.received.saturating_sub(unseen).max(self.captured());
        Counts { received, dropped: received - self.captured() }
    }

    pub(super) fn captured(&self) -> u64 {
        self.captured.load(Ordering::Relaxed)
    }
}

/// The counters of the broker, if it still answered, and the result of the capture.
pub(super) type Ended = (Option<Counts>, Result<(), Failure>);

/// A running capture.
pub(super) struct Capture {
    pub(super) args: SniffArgs,
    pub(super) as_json: bool,
    pub(super) socket: Arc<PacketSocket>,
    pub(super) interrupt: Interrupt,
    pub(super) tally: Arc<Tally>,
}

impl Capture {
    /// Captures until the end and ends the file with the statistics. Returns the statistics if the broker
    /// reports them.
    pub(super) fn run(self) -> Ended {
        match self.begin() {
            Ok(mut output) => {
                let captured = self.capture(&mut output);
                self.end(output, captured)
            }
            Err(failure) => (None, Err(failure)),
        }
    }

    fn begin(&self) -> Result<Output, Failure> {
        let path = self.args.write.as_deref();
        let begin = |path: &Path| CaptureFile::begin(path, &self.args, self.socket.kind);
        let file = path.map(begin).transpose()?;
        let SniffArgs { interface, snaplen, .. } = &self.args;
        report(&format!("listening on {interface}, {snaplen} bytes of each packet"));
        Ok(Output { file, screen: (path != Some(Path::new("-"))).then(Screen::new) })
    }

    /// Reads the counters, writes packets that are still wanted, and ends the file.
    fn end(&self, mut output: Output, mut captured: Result<(), Failure>) -> Ended {
        let counted = self.socket.counts().ok();
        if let Some(counted) = counted {
            let waiting = self.waiting(counted);
            if self.wanted() == 0 {
                self.tally.late.store(waiting, Ordering::Relaxed);
            } else if captured.is_ok() {
                captured = self.drain(&mut output, waiting);
            }
        }
        let total = counted.map(|counted| self.tally.total(counted));
        let ended = output.file.map_or(Ok(()), |mut file| file.end(total));
        // Report the error that ended the capture, not an error of ending the file.
        (total, captured.and(ended))
    }

    fn capture(&self, output: &mut Output) -> Result<(), Failure> {
        let mut down = false;
        while !self.interrupt.is_set() && self.wanted() > 0 {
            match self.socket.receive(self.wanted(), Wait::Shortly)? {
                Batch::Packets { packets, messages } => {
                    down = false;
                    self.write(output, &packets, messages)?;
                }
                Batch::Down if !down => {
                    down = true;
                    report(&format!(
                        "{} went down; the capture continues when it is up again",
                        self.args.interface
                    ));
                }
                Batch::Nothing | Batch::Down => {}
            }
            if down && self.socket.is_gone() {
                return Err(Failure::new(
                    Exit::Failed,
                    format!("cannot capture on {}: the interface was removed", self.args.interface),
                ));
            }
        }
        Ok(())
    }

    fn wanted(&self) -> u64 {
        self.args.count.map_or(u64::MAX, |count| count.saturating_sub(self.tally.captured()))
    }

    fn write(
        &self,
        output: &mut Output,
        packets: &[Received],
        messages: u64,
    ) -> Result<(), Failure> {
        let copies = messages.saturating_sub(packets.len() as u64);
        self.tally.messages.fetch_add(messages, Ordering::Relaxed);
        self.tally.copies.fetch_add(copies, Ordering::Relaxed);
        for packet in packets {
            if let Some(file) = &mut output.file {
                file.packet(packet)?;
            }
            if let Some(screen) = &mut output.screen {
                show(screen, packet, self.socket.kind, self.as_json)?;
            }
            self.tally.captured.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Returns how many messages the kernel had queued for the socket when it returned these counters.
    fn waiting(&self, Counts { received, dropped }: Counts) -> u64 {
        let taken = self.tally.messages.load(Ordering::Relaxed);
        received.saturating_sub(dropped).saturating_sub(taken)
    }

    /// Writes packets that arrived before the signal, for a short time.
    fn drain(&self, output: &mut Output, mut waiting: u64) -> Result<(), Failure> {
        let deadline = Instant::now() + DRAIN;
        while waiting > 0 && self.wanted() > 0 && Instant::now() < deadline {
            let most = waiting.min(self.wanted());
            let Batch::Packets { packets, messages } = self.socket.receive(most, Wait::No)? else {
                break;
            };
            self.write(output, &packets, messages)?;
            waiting = waiting.saturating_sub(messages);
        }
        Ok(())
    }
}

/// The outputs of a capture.
struct Output {
    file: Option<CaptureFile>,
    screen: Option<Screen>,
}
