//! Prints the packets of a file, or writes them to another file.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sockbroker_filter::{Compiler, LinkLayer, Program};
use sockbroker_pcapng::{Block, LinkType, PacketBlock};

use super::args::SniffArgs;
use super::blocks::Blocks;
use super::copy::Copy;
use super::filter::failed;
use super::show::Printer;
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::screen::report;

/// Prints the packets of a file that the expression selects, or writes them to another one.
pub(super) fn run(global: &Global, args: &SniffArgs, path: &Path) -> Result<Exit, Failure> {
    let mut selection = args.whole_expression()?.map(Selection::new).transpose()?;
    let (mut source, name) = open(path)?;
    let mut printer = args.prints().then(|| Printer::new(args, global.json)).transpose()?;
    let mut copy = args.write.as_deref().map(|file| Copy::create(file, args, path)).transpose()?;
    report(&format!("reading from file {name}"));
    let unreadable =
        |error: &dyn std::fmt::Display| Failure::new(Exit::Stream, format!("{name}: {error}"));
    let mut blocks = Blocks::default();
    let mut rest = args.count.unwrap_or(u64::MAX);
    while rest > 0 {
        let block = match blocks.next() {
            Ok(Some(block)) => block,
            Ok(None) => {
                let read = |buffer: &mut [u8]| {
                    read(&mut *source, buffer).map_err(|error| Failure::stream(&name, &error))
                };
                if blocks.read(read)? == 0 {
                    blocks.finish().map_err(|error| unreadable(&error))?;
                    break;
                }
                continue;
            }
            Err(error) => return Err(unreadable(&blocks.located(error))),
        };
        let is_packet = match &block {
            Block::Packet(packet) => {
                let selects = |selection: &mut Selection| selection.selects(packet);
                if !selection.as_mut().map_or(Ok(true), selects)? {
                    continue;
                }
                if let Some(printer) = &mut printer {
                    printer.packet(packet)?;
                }
                true
            }
            other => {
                if let Some(printer) = &mut printer {
                    printer.note(other);
                }
                false
            }
        };
        if let Some(copy) = &mut copy {
            let kind = copy.encode(&block)?;
            copy.write(kind, blocks.last())?;
        }
        rest -= u64::from(is_packet);
    }
    Ok(Exit::Done)
}

/// Reads once.
fn read(source: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
/// Opens a file; `-` is standard input.
fn open(path: &Path) -> Result<(Box<dyn Read>, String), Failure> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin().lock()), "standard input".to_owned()));
    }
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| Failure::stream(&name, &error))?;
    Ok((Box::new(file), name))
}

/// A filter expression, and its programs for the link types of the file.
struct Selection {
    compiler: Compiler,
    expression: String,
    programs: HashMap<LinkType, Program>,
}

impl Selection {
    fn new(expression: String) -> Result<Self, Failure> {
        let compiler = Compiler::new().map_err(|error| failed(&error))?;
        let mut selection = Self { compiler, expression, programs: HashMap::new() };
        // Before the first packet: an error of the expression.
        selection.program(LinkType::ETHERNET)?;
        Ok(selection)
    }

    fn selects(&mut self, packet: &PacketBlock<'_>) -> Result<bool, Failure> {
        let program = self.program(packet.link_type)?;
        Ok(program.selects(packet.data, packet.length))
    }

    fn program(&mut self, link_type: LinkType) -> Result<&Program, Failure> {
        if !self.programs.contains_key(&link_type) {
            let layer = match link_type {
                LinkType::ETHERNET => LinkLayer::Ethernet,
                LinkType::RAW => LinkLayer::RawIp,
                LinkType::LINUX_SLL => LinkLayer::LinuxSll,
                LinkType::LINUX_SLL2 => LinkLayer::LinuxSll2,
                LinkType(number) => {
                    return Err(Failure::usage(format!(
                        "cannot filter packets with the link type {number}: use tcpdump -r FILE EXPRESSION"
                    )));
                }
            };
            let program = self.compiler.compile_for_file(&self.expression, layer);
            let program = program.map_err(|error| failed(&error))?;
            program.check().map_err(|error| {
                Failure::usage(format!("cannot run the filter {:?}: {error}", self.expression))
            })?;
            self.programs.insert(link_type, program);
        }
        self.programs.get(&link_type).ok_or_else(|| Failure::usage("no program"))
    }
}
