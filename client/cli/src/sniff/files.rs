//! Files that packets are written to: one, or one after the other (`-C`, `-G`, `-W`).

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sockbroker_pcapng::Block;

use super::args::SniffArgs;
use super::rotation::Rotation;
use crate::failure::Failure;
use crate::screen::report;

/// The unit of `-C`.
const MEGABYTE: u64 = 1_000_000;

/// The file that packets are written to. All packets that count as captured are in a file.
#[derive(Debug)]
pub(super) struct OutputFile {
    path: PathBuf,
    rotation: Rotation,
    name: String,
    file: File,
    /// The number of the file by its size, and how many bytes it has.
    number: u64,
    length: u64,
    /// How many files were begun because of the time, and when the last of them.
    periods: u64,
    since: Instant,
    /// The blocks that describe the section and its interfaces.
    header: Vec<u8>,
    /// Why the next file could not be begun when its time came.
    failure: Option<Failure>,
}

impl OutputFile {
    /// Creates the first file; `-` is standard output. If it is a FIFO, waits for its reader.
    pub(super) fn create(path: &Path, args: &SniffArgs) -> Result<Self, Failure> {
        let rotation = args.rotation()?;
        let first = rotation.path(path, 0, now());
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("pcap")) {
            report(&format!("writing pcapng to {}", path.display()));
        }
        let (file, name) = create(&first)?;
        Ok(Self {
            path: path.to_owned(),
            rotation,
            name,
            file,
            number: 0,
            length: 0,
            periods: 1,
            since: Instant::now(),
            header: Vec::new(),
            failure: None,
        })
    }

    /// Whether blocks must be written one by one, because another file can follow.
    pub(super) fn rotates(&self) -> bool {
        !self.rotation.is_none()
    }

    /// Whether nobody waits for what is written: not a pipe, nor a terminal.
    pub(super) fn is_regular(&self) -> bool {
        self.file.metadata().is_ok_and(|facts| facts.is_file())
    }

    /// Writes whole blocks.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(bytes);
        self.length = self.length.saturating_add(bytes.len() as u64);
        written.map_err(|error| {
            let failure = Failure::stream(&self.name, &error);
            // A reader that has closed the pipe is not reported.
            if error.kind() == io::ErrorKind::BrokenPipe {
                failure.without_message()
            } else {
                failure
            }
        })
    }

    /// Writes a block.
    pub(super) fn write_block(&mut self, kind: Kind, bytes: &[u8]) -> Result<(), Failure> {
        match kind {
            Kind::Section => self.begin_section(bytes),
            Kind::Interface => self.describe(bytes),
            Kind::Packet | Kind::Other => self.write(bytes),
        }
    }

    /// Begins a section: its interfaces are not those of the last one.
    pub(super) fn begin_section(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.header.clear();
        self.describe(bytes)
    }

    /// Writes a block that further files need too.
    fn describe(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.header.extend_from_slice(bytes);
        self.write(bytes)
    }

    /// How long until the next file begins because of the time; `None` if it does not.
    pub(super) fn rest(&self) -> Option<Duration> {
        self.rotation.time.map(|time| time.saturating_sub(self.since.elapsed()))
    }

    /// Like [`OutputFile::advance`], without a packet. The next call of `advance` or `finish` returns the failure.
    pub(super) fn advance_by_time(&mut self) -> bool {
        self.advance().unwrap_or_else(|failure| {
            self.failure = Some(failure);
            false
        })
    }

    /// Returns the failure of `advance_by_time`.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Begins the next file if it is time for it, before a packet. `false` if there must not be a further file.
    pub(super) fn advance(&mut self) -> Result<bool, Failure> {
        self.finish()?;
        let Rotation { bytes, time, files } = self.rotation;
        if time.is_some_and(|time| self.since.elapsed() >= time) {
            if bytes.is_none() && files.is_some_and(|files| self.periods >= files) {
                return Ok(false);
            }
            self.periods = self.periods.saturating_add(1);
            self.since = Instant::now();
            self.number = 0;
            self.begin_file()?;
        } else if bytes.is_some_and(|bytes| self.length > bytes.saturating_mul(MEGABYTE)) {
            self.number = self.number.saturating_add(1);
            self.begin_file()?;
        }
        Ok(true)
    }

    fn begin_file(&mut self) -> Result<(), Failure> {
        let path = self.rotation.path(&self.path, self.number, now());
        (self.file, self.name) = create(&path)?;
        self.length = 0;
        let header = std::mem::take(&mut self.header);
        let written = self.write(&header);
        self.header = header;
        written
    }
}

fn create(path: &Path) -> Result<(File, String), Failure> {
    let name = path.display().to_string();
    let fail = |error: io::Error| Failure::stream(&name, &error);
    let file = if path == Path::new("-") {
        File::from(io::stdout().as_fd().try_clone_to_owned().map_err(fail)?)
    } else {
        File::create(path).map_err(fail)?
    };
    Ok((file, name))
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What a block is, as far as files differ by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Section,
    Interface,
    Packet,
    Other,
}

impl Kind {
    pub(super) fn of(block: &Block<'_>) -> Self {
        match block {
            Block::Section(_) => Self::Section,
            Block::Interface(_) => Self::Interface,
            Block::Packet(_) => Self::Packet,
            Block::Statistics(_) | Block::Other { .. } => Self::Other,
        }
    }
}
