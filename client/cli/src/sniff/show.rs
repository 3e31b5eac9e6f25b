//! Prints packets as lines of text or JSON.

use serde_json::{Map, Value, json};
use sockbroker_pcapng::{Block, Direction, LinkType, PacketBlock, PacketFlags};

use super::args::SniffArgs;
use super::decode::{self, Ends, View};
use super::details;
use super::dump::Dump;
use super::link::{Start, direction, reception};
use super::stamp::{self, Clock, SECOND};
use crate::failure::Failure;
use crate::screen::Screen;

/// What is printed of a packet.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
struct Style {
    as_json: bool,
    numbered: bool,
    brief: bool,
    link_header: bool,
    verbose: bool,
    dump: Option<Dump>,
}

/// Prints the packets of a capture.
#[derive(Debug)]
pub(super) struct Printer {
    screen: Screen,
    style: Style,
    clock: Clock,
    /// The number of the last packet.
    number: u64,
    /// The names of the interfaces of the section.
    interfaces: Vec<String>,
}

impl Printer {
    pub(super) fn new(args: &SniffArgs, as_json: bool) -> Result<Self, Failure> {
        let style = Style {
            as_json,
            numbered: args.number,
            brief: args.brief,
            link_header: args.link_header,
            verbose: args.verbose > 0,
            dump: args.dump(),
        };
        let Style { numbered, brief, link_header, verbose, dump, .. } = style;
        let of_lines = numbered || brief || link_header || verbose || dump.is_some();
        if as_json && (of_lines || args.times != 0) {
            return Err(Failure::usage(
                "--json has no use for -e, -v, -q, -t, -#, -x, -X and -A: they are about lines",
            ));
        }
        let clock = Clock::new(stamp::Style::of(args.times));
        Ok(Self { screen: Screen::new(), style, clock, number: 0, interfaces: Vec::new() })
    }

    /// Notes the names of interfaces.
    pub(super) fn note(&mut self, block: &Block<'_>) {
        match block {
            Block::Section(_) => self.interfaces.clear(),
            Block::Interface(interface) => {
                self.interfaces.push(printable(interface.name.unwrap_or_default()));
            }
            Block::Packet(_) | Block::Statistics(_) | Block::Other { .. } => {}
        }
    }

    /// Prints a packet.
    pub(super) fn packet(&mut self, packet: &PacketBlock<'_>) -> Result<(), Failure> {
        self.number = self.number.saturating_add(1);
        let number = usize::try_from(packet.interface).unwrap_or(usize::MAX);
        let interface = self.interfaces.get(number).map_or("", String::as_str);
        if self.style.as_json {
            return self.screen.line(object(packet, interface));
        }
        let number = self.style.numbered.then(|| format!("{:5}  ", self.number));
        let number = number.unwrap_or_default();
        let mut time = self.clock.format(packet.time);
        if !time.is_empty() {
            time.push(' ');
        }
        let line = self.style.line(packet, interface);
        self.screen.line(format_args!("{number}{time}{line}"))
    }
}

/// A name from a capture, without characters that control a terminal.
fn printable(name: &[u8]) -> String {
    let shown = |letter: char| if letter.is_control() { '?' } else { letter };
    String::from_utf8_lossy(name).chars().map(shown).collect()
}

/// The object for a packet of an interface, whose name is empty if it is not known.
fn object(packet: &PacketBlock<'_>, interface: &str) -> Value {
    let start = Start::of(packet.link_type, packet.data);
    let flags = packet.flags.unwrap_or_default();
    let mut object = Map::new();
    let mut add = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
    let time = packet.time.map(|time| format!("{}.{:09}", time / SECOND, time % SECOND));
    add("time", json!(time));
    add("interface", json!(interface));
    add("direction", json!(direction(flags)));
    add("reception", json!(reception(flags)));
    add("length", json!(packet.length));
    add("captured", json!(packet.data.len()));
    if let Some(Ends { source, destination, ports, protocol }) = ends(start) {
        add("protocol", json!(protocol));
        add("source", json!(source));
        add("destination", json!(destination));
        if let Some((source, destination)) = ports {
            add("source_port", json!(source));
            add("destination_port", json!(destination));
        }
    }
    add("packet", json!(describe(start, packet, false)));
    Value::Object(object)
}

impl Style {
    /// The lines for a packet of an interface, whose name is empty if it is not known.
    fn line(self, packet: &PacketBlock<'_>, interface: &str) -> String {
        let start = Start::of(packet.link_type, packet.data);
        let described = describe(start, packet, self.brief);
        let flags = packet.flags.unwrap_or_default();
        let mut place = format!("{interface}{}", arrow(flags)).trim_start().to_owned();
        if !place.is_empty() {
            place.push(' ');
        }
        let header = if self.link_header { details::link(start, packet.length) } else { None };
        let details = if self.verbose { details::network(start) } else { None };
        let (header, details) = (header.unwrap_or_default(), details.unwrap_or_default());
        let dump = self.dump.map(|dump| {
            let payload = if dump.is_whole() { packet.data } else { start.payload() };
            dump.format(payload)
        });
        let dump = dump.unwrap_or_default();
        format!("{place}{header}{described}{details}{dump}")
    }
}

fn arrow(flags: PacketFlags) -> &'static str {
    match flags.direction() {
        Direction::Outbound => " out",
        Direction::Inbound => " in ",
        Direction::Unknown => "",
    }
}

fn describe(start: Start<'_>, packet: &PacketBlock<'_>, brief: bool) -> String {
    let length = usize::try_from(packet.length).unwrap_or(usize::MAX);
    let view = View { missing: length.saturating_sub(packet.data.len()), brief };
    match start {
        Start::Ethernet(frame) => decode::ethernet(frame, view),
        Start::Payload(protocol, payload) => decode::payload(protocol, payload, view),
        Start::Unknown(LinkType(number), _) => format!("link type {number} length {length}"),
    }
}

fn ends(start: Start<'_>) -> Option<Ends> {
    match start {
        Start::Ethernet(frame) => decode::ethernet_ends(frame),
        Start::Payload(protocol, payload) => decode::payload_ends(protocol, payload),
        Start::Unknown(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_control_the_terminal() {
        assert_eq!(printable(b"eth0\x1b[2J\n\xff"), "eth0?[2J?\u{FFFD}");
    }
}
