//! Takes packets from the source and writes them, until there are enough, a signal came or nothing can come.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::args::SniffArgs;
use super::file::CaptureFile;
use super::packet::Received;
use super::pcapng::Counts;
use super::show::show;
use super::socket::{Batch, PacketSocket, Wait};
use crate::failure::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::screen::{Screen, report};

/// How long packets that the kernel already holds are written after a signal.
const DRAIN: Duration = Duration::from_millis(80);

/// What was done so far, for the statistics; also readable while the capture is stuck.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Packets that were written, or shown where there is no file.
    captured: AtomicU64,
    /// Messages that were taken from the socket.
    messages: AtomicU64,
    /// Those among them that were copies of others.
    copies: AtomicU64,
    /// Packets that came after the last one that was wanted.
    late: AtomicU64,
}

impl Tally {
    /// How many packets there were: captured and lost ones are all that were seen.
    pub(super) fn total(&self, counted: Counts) -> Counts {
        let unseen = self.copies.load(Ordering::Relaxed) + self.late.load(Ordering::Relaxed);
        let received = counted.received.saturating_sub(unseen).max(self.captured());
        Counts { received, dropped: received - self.captured() }
    }

    /// Packets that were written.
    pub(super) fn captured(&self) -> u64 {
        self.captured.load(Ordering::Relaxed)
    }
}

/// What the broker counted, if it still answered, and what ended the capture.
pub(super) type Ended = (Option<Counts>, Result<(), Failure>);

/// A capture under way.
pub(super) struct Capture {
    pub(super) args: SniffArgs,
    pub(super) as_json: bool,
    pub(super) socket: Arc<PacketSocket>,
    pub(super) interrupt: Interrupt,
    pub(super) tally: Arc<Tally>,
}

impl Capture {
    /// Captures to the end, and ends the file with its statistics, which are returned too if the broker
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

    /// Counts, writes what is still wanted, and ends the file.
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
        // What ended the capture is reported, not that the file could not be ended either.
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
                        "{} went down; capturing when it is up again",
                        self.args.interface
                    ));
                }
                Batch::Nothing | Batch::Down => {}
            }
            if down && self.socket.is_gone() {
                return Err(Failure::new(Exit::Failed, format!("{} is gone", self.args.interface)));
            }
        }
        Ok(())
    }

    /// How many more packets are wanted.
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

    /// Messages that the kernel held for the socket when it had counted these.
    fn waiting(&self, Counts { received, dropped }: Counts) -> u64 {
        let taken = self.tally.messages.load(Ordering::Relaxed);
        received.saturating_sub(dropped).saturating_sub(taken)
    }

    /// Writes what came before the signal, for a short time.
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

/// Where packets go.
struct Output {
    file: Option<CaptureFile>,
    screen: Option<Screen>,
}
