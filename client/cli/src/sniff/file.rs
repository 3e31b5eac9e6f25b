//! The capture file that packets are written to.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use super::args::SniffArgs;
use super::packet::{COOKED_HEADER, Received, now};
use super::pcapng::{Counts, LinkType, Packet, Writer};
use crate::failure::Failure;

/// A capture file. One write call writes a whole block, so a reader sees packets immediately, and all packets
/// that count as captured are in the file.
#[derive(Debug)]
pub(super) struct CaptureFile {
    name: String,
    writer: Writer<File>,
}

impl CaptureFile {
    /// Creates the file; `-` is standard output. If the file is a FIFO, waits for its reader.
    pub(super) fn begin(path: &Path, args: &SniffArgs, kind: LinkType) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let fail = |error: io::Error| Failure::stream(&name, &error);
        let output = if path == Path::new("-") {
            File::from(io::stdout().as_fd().try_clone_to_owned().map_err(fail)?)
        } else {
            File::create(path).map_err(fail)?
        };
        let snaplen = match kind {
            LinkType::Ethernet => args.snaplen,
            LinkType::Cooked => args.snaplen + COOKED_HEADER,
        };
        let writer = Writer::begin(output, &args.interface, kind, snaplen, now()).map_err(fail)?;
        Ok(Self { name, writer })
    }

    pub(super) fn packet(&mut self, packet: &Received) -> Result<(), Failure> {
        let Received { time, data, length, direction, .. } = packet;
        let packet = Packet { time: *time, data, length: *length, direction: *direction };
        self.writer.packet(&packet).map_err(|error| self.failed(&error))
    }

    /// Ends the file with the statistics that are known.
    pub(super) fn end(&mut self, counts: Option<Counts>) -> Result<(), Failure> {
        self.writer.end(counts, now()).map_err(|error| self.failed(&error))
    }

    /// Converts a write error. A reader that has closed the pipe is not reported.
    fn failed(&self, error: &io::Error) -> Failure {
        let failure = Failure::stream(&self.name, error);
        if error.kind() == io::ErrorKind::BrokenPipe { failure.without_message() } else { failure }
    }
}
