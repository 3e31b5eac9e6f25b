//! Writes packets of a file to another one.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use sockbroker_pcapng::{Block, Interface, Packet, PacketBlock, Section, Writer};

use super::args::SniffArgs;
use super::files::{Kind, OutputFile};
use crate::failure::{Exit, Failure};

/// A file that packets are written to. It has the blocks of the file that is read, with all of their facts, or those that a
/// file in the format pcap is converted to.
pub(super) struct Copy {
    file: OutputFile,
    /// Converts a file in the format pcap.
    writer: Option<Writer>,
    /// Whether a block was read.
    has_begun: bool,
    /// The converted block.
    converted: Vec<u8>,
}

impl Copy {
    /// Creates the file. It must not be the one that is read.
    pub(super) fn create(path: &Path, args: &SniffArgs, source: &Path) -> Result<Self, Failure> {
        if is_same(path, source) {
            let name = path.display();
            return Err(Failure::usage(format!(
                "{name} is the file that is read: choose another one"
            )));
        }
        let file = OutputFile::create(path, args)?;
        Ok(Self { file, writer: None, has_begun: false, converted: Vec::new() })
    }

    /// Converts a block if the file that is read is not pcapng.
    pub(super) fn encode(&mut self, block: &Block<'_>) -> Result<Kind, Failure> {
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        self.converted.clear();
        let failed =
            |error| Failure::new(Exit::Stream, format!("cannot convert the file: {error}"));
        if is_first && !matches!(block, Block::Section(_)) {
            let section = Section { application: Some("sockbroker"), ..Section::default() };
            self.writer = Some(Writer::begin(&section, &mut self.converted).map_err(failed)?);
            self.file.begin_section(&self.converted)?;
            self.converted.clear();
        }
        if let Some(writer) = &mut self.writer {
            match block {
                Block::Interface(found) => {
                    let interface = Interface::new("", found.link_type, found.snaplen);
                    let interface = Interface { name: None, ..interface };
                    writer.interface(&interface, &mut self.converted).map_err(failed)?;
                }
                Block::Packet(found) => {
                    let PacketBlock { interface, data, length, .. } = found;
                    let data = [*data];
                    let time = found.time.unwrap_or_default();
                    let packet = Packet::new(*interface, time, &data, *length);
                    writer.packet(&packet, &mut self.converted).map_err(failed)?;
                }
                Block::Section(_) | Block::Statistics(_) | Block::Other { .. } => {}
            }
        }
        Ok(Kind::of(block))
    }

    /// Writes a block: its bytes, or what they were converted to.
    pub(super) fn write(&mut self, kind: Kind, bytes: &[u8]) -> Result<(), Failure> {
        let bytes = if self.writer.is_some() { &self.converted[..] } else { bytes };
        if kind == Kind::Packet {
            self.file.advance()?;
        }
        self.file.write_block(kind, bytes)
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).ok().map(|facts| (facts.dev(), facts.ino()));
    identity(one).is_some_and(|found| {
        fs::metadata(one).is_ok_and(|facts| facts.is_file()) && identity(other) == Some(found)
    })
}
