//! Reads a capture, writes it to a file, and prints its packets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use sockbroker_client::blocking::CaptureStream;
use sockbroker_pcapng::{Block, FormatError};

use super::args::SniffArgs;
use super::blocks::{Blocks, PART};
use super::files::{Kind, OutputFile};
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

/// How much a pipe takes at once. What is written in such parts shows whether its reader still reads.
const PIPE: usize = 64 << 10;

/// How far recording has come. Another thread can read it while the output is blocked.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// The packets that were written to the file, or printed if there is none.
    packets: AtomicU64,
    /// The packets that were printed, and the parts that were written.
    steps: AtomicU64,
}

impl Tally {
    pub(super) fn captured(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    /// A number that is another one after each progress of the output.
    pub(super) fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    fn add(&self, packets: u64) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.note_step();
    }

    fn note_step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }
}

/// A capture that is recorded.
pub(super) struct Recording {
    pub(super) args: SniffArgs,
    pub(super) as_json: bool,
    pub(super) stream: CaptureStream,
    pub(super) tally: Arc<Tally>,
    /// Called when the time of the last file has passed.
    pub(super) on_last_period: Option<Box<dyn FnOnce() + Send>>,
}

impl Recording {
    /// Records until the capture has ended. The broker counts until this value is dropped.
    pub(super) fn run(&mut self) -> Result<(), Failure> {
        let mut output = Output::begin(&self.args, self.as_json, Arc::clone(&self.tally))?;
        // The thread ends when this function returns.
        let (_ends, ended) = mpsc::channel();
        if let Some(file) = output.file.clone()
            && let Some(on_last_period) = self.on_last_period.take()
        {
            thread::spawn(move || advance_by_time(&file, &ended, on_last_period));
        }
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
        Output::file(output.file.as_ref()).map_or(Ok(()), |mut file| file.finish())
    }
}

/// Begins files when their time has come, also without packets, until `ended` is closed.
fn advance_by_time(
    file: &Mutex<OutputFile>,
    ended: &Receiver<()>,
    on_last_period: Box<dyn FnOnce() + Send>,
) {
    let locked = || file.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let Some(rest) = locked().rest() else { return };
        if ended.recv_timeout(rest) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        if !locked().advance_by_time() {
            return on_last_period();
        }
    }
}

/// Why recording fails.
pub(super) enum Fault {
    Format(FormatError),
    Output(Failure),
}

/// Where packets are recorded.
struct Output {
    /// Another thread begins the next file if that depends on the time.
    file: Option<Arc<Mutex<OutputFile>>>,
    /// Whether another file can follow.
    rotates: bool,
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
        let rotates = file.as_ref().is_some_and(OutputFile::rotates);
        let file = file.map(|file| Arc::new(Mutex::new(file)));
        Ok(Self { file, rotates, printer, is_file_alone, tally })
    }

    /// The file, if there is one.
    fn file(file: Option<&Arc<Mutex<OutputFile>>>) -> Option<MutexGuard<'_, OutputFile>> {
        file.map(|file| file.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Records all complete blocks. `false` if the last file is complete.
    fn record(&mut self, blocks: &mut Blocks) -> Result<bool, Fault> {
        let Self { file, rotates, printer, tally, .. } = self;
        let rotates = *rotates;
        let mut file = Self::file(file.as_ref());
        let mut packets = 0;
        if printer.is_none() && !rotates {
            packets = blocks.pass().map_err(Fault::Format)?;
        }
        while let Some(block) = blocks.next().map_err(Fault::Format)? {
            let kind = Kind::of(&block);
            if kind == Kind::Packet
                && let Some(file) = file.as_mut().filter(|_| rotates)
                && !file.advance().map_err(Fault::Output)?
            {
                return Ok(false);
            }
            if let Some(printer) = printer.as_mut() {
                match &block {
                    Block::Packet(packet) => printer.packet(packet).map_err(Fault::Output)?,
                    other => printer.note(other),
                }
            }
            if let Some(file) = file.as_mut().filter(|_| rotates) {
                file.write_block(kind, blocks.last()).map_err(Fault::Output)?;
                tally.note_step();
            }
            if kind == Kind::Packet {
                packets += 1;
                if file.is_none() || rotates {
                    tally.add(1);
                }
            }
        }
        if let Some(file) = file.as_mut().filter(|_| !rotates) {
            for part in blocks.taken().chunks(PIPE) {
                file.write(part).map_err(Fault::Output)?;
                tally.note_step();
            }
            tally.add(packets);
        }
        Ok(true)
    }
}
