//! Reads a capture, writes it to a file, and prints its packets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use sockbroker_client::blocking::CaptureStream;
use sockbroker_pcapng::{Block, FormatError};

use super::args::SniffArgs;
use super::blocks::{Blocks, PART};
use super::files::OutputFile;
use super::open::describe;
use super::show::Printer;
use crate::connection::failure;
use crate::failure::Failure;
use crate::screen::report;

/// How long to sleep after many bytes have been written to a file, before the next ones are read. Meanwhile the broker
/// wakes nobody.
const MODERATION: Duration = Duration::from_millis(1);
/// What counts as many bytes: a busy network has more within a millisecond.
const BUSY: usize = 4 << 10;

/// The number of packets that were written to the file, or printed if there is none. Another thread can read it while
/// the output is blocked.
#[derive(Debug, Default)]
pub(super) struct Tally(AtomicU64);

impl Tally {
    pub(super) fn captured(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, packets: u64) {
        self.0.fetch_add(packets, Ordering::Relaxed);
    }
}

/// A capture that is recorded.
pub(super) struct Recording {
    pub(super) args: SniffArgs,
    pub(super) as_json: bool,
    pub(super) stream: CaptureStream,
    pub(super) tally: Arc<Tally>,
}

impl Recording {
    /// Records until the capture has ended. The broker counts until this value is dropped.
    pub(super) fn run(&mut self) -> Result<(), Failure> {
        let mut output = Output::begin(&self.args, self.as_json, Arc::clone(&self.tally))?;
        let opened = self.stream.opened();
        report(&describe(&opened.interfaces, opened.snaplen));
        let mut blocks = Blocks::default();
        let stream = &mut self.stream;
        loop {
            let length = blocks.read(|buffer| {
                stream.read_part(buffer).map_err(|error| failure("capture.read", &error))
            })?;
            if length == 0 {
                break;
            }
            let goes_on = output.record(&mut blocks).map_err(|fault| match fault {
                Fault::Format(error) => {
                    Failure::protocol(format!("cannot read the broker's capture: {error}"))
                }
                Fault::Output(failure) => failure,
            })?;
            if !goes_on {
                break;
            }
            if output.is_file_alone && (BUSY..PART).contains(&length) {
                #[expect(clippy::disallowed_methods, reason = "no event loop that it could block")]
                thread::sleep(MODERATION);
            }
        }
        Ok(())
    }
}

/// Why recording fails.
pub(super) enum Fault {
    Format(FormatError),
    Output(Failure),
}

/// Where packets are recorded.
struct Output {
    file: Option<OutputFile>,
    printer: Option<Printer>,
    /// Whether a regular file is all that is written: nobody waits for the next packet.
    is_file_alone: bool,
    tally: Arc<Tally>,
}

impl Output {
    /// Creates the file. If it is a FIFO, waits for its reader.
    fn begin(args: &SniffArgs, as_json: bool, tally: Arc<Tally>) -> Result<Self, Failure> {
        let file = args.write.as_deref().map(|path| OutputFile::create(path, args)).transpose()?;
        let printer = args.prints().then(|| Printer::new(args, as_json)).transpose()?;
        let is_file_alone = printer.is_none() && file.as_ref().is_some_and(OutputFile::is_regular);
        Ok(Self { file, printer, is_file_alone, tally })
    }

    /// Records all complete blocks. `false` if the last file is complete.
    fn record(&mut self, blocks: &mut Blocks) -> Result<bool, Fault> {
        let rotates = self.file.as_ref().is_some_and(OutputFile::rotates);
        let mut packets = 0;
        if self.printer.is_none() && !rotates {
            packets = blocks.pass().map_err(Fault::Format)?;
        }
        while let Some(block) = blocks.next().map_err(Fault::Format)? {
            let kind = Kind::of(&block);
            if kind == Kind::Packet
                && let Some(file) = self.file.as_mut().filter(|_| rotates)
                && !file.advance().map_err(Fault::Output)?
            {
                return Ok(false);
            }
            if let Some(printer) = &mut self.printer {
                match &block {
                    Block::Packet(packet) => printer.packet(packet).map_err(Fault::Output)?,
                    other => printer.note(other),
                }
            }
            if let Some(file) = self.file.as_mut().filter(|_| rotates) {
                let bytes = blocks.last();
                let written = match kind {
                    Kind::Section => file.begin_section(bytes),
                    Kind::Interface => file.describe(bytes),
                    Kind::Packet | Kind::Other => file.write(bytes),
                };
                written.map_err(Fault::Output)?;
            }
            if kind == Kind::Packet {
                packets += 1;
                if self.file.is_none() || rotates {
                    self.tally.add(1);
                }
            }
        }
        if let Some(file) = self.file.as_mut().filter(|_| !rotates) {
            file.write(blocks.taken()).map_err(Fault::Output)?;
            self.tally.add(packets);
        }
        Ok(true)
    }
}

/// What a block is, as far as files differ by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Section,
    Interface,
    Packet,
    Other,
}

impl Kind {
    fn of(block: &Block<'_>) -> Self {
        match block {
            Block::Section(_) => Self::Section,
            Block::Interface(_) => Self::Interface,
            Block::Packet(_) => Self::Packet,
            Block::Statistics(_) | Block::Other { .. } => Self::Other,
        }
    }
}
