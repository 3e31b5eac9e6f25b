//! `sockbroker sniff`: packets of an interface, captured by the broker.

pub(crate) mod decode;
mod pcapng;
pub(crate) mod source;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::args::{Global, SniffArgs};
use crate::failure::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::link::Link;
use crate::screen::Screen;
use pcapng::{Counts, Direction, LinkType, Packet, Writer};
use source::{COOKED_HEADER, Received, Source};

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// Captures until there are enough packets, or the user has seen enough.
pub(crate) fn run(global: &Global, args: &SniffArgs) -> Result<Exit, Failure> {
    let link = Link::open(global)?;
    let source = Source::open(&link, &args.interface, args.snaplen, args.promiscuous)?;
    let interrupt = Interrupt::minded()?;
    let mut file = args.write.as_deref().map(|path| Recording::begin(path, args, source.kind));
    let mut file = file.take().transpose()?;
    let mut screen = Screen::new();
    let silent = args.write.as_deref() == Some(Path::new("-"));
    say(&format!("listening on {}, {} bytes of each packet", args.interface, args.snaplen));
    let mut seen = 0;
    while !interrupt.came() && args.count.is_none_or(|count| seen < count) {
        let most = args.count.map_or(u64::MAX, |count| count - seen);
        for packet in source.receive(most)? {
            seen += 1;
            if let Some(file) = &mut file {
                file.packet(&packet)?;
            }
            if !silent {
                show(&mut screen, &packet, source.kind, global.json)?;
            }
        }
        if let Some(file) = &mut file {
            file.flush()?;
        }
    }
    let counts = source.counts()?;
    if let Some(file) = file {
        file.end(counts)?;
    }
    say(&format!("{seen} packets captured, {} seen, {} lost", counts.received, counts.dropped));
    Ok(Exit::Done)
}

/// A line beside the packets, for people.
fn say(line: &str) {
    // Packets matter, not this.
    drop(writeln!(io::stderr(), "{line}"));
}

/// The file that packets are written to.
#[derive(Debug)]
struct Recording {
    name: String,
    writer: Writer<BufWriter<Box<dyn Output>>>,
}

/// Where a file may go.
trait Output: Write + std::fmt::Debug {}
impl<W: Write + std::fmt::Debug> Output for W {}

impl Recording {
    fn begin(path: &Path, args: &SniffArgs, kind: LinkType) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let fail = |error: io::Error| Failure::stream(&name, &error);
        let output: Box<dyn Output> = if path == Path::new("-") {
            Box::new(io::stdout())
        } else {
            Box::new(File::create(path).map_err(fail)?)
        };
        let snaplen = match kind {
            LinkType::Ethernet => args.snaplen,
            LinkType::Cooked => args.snaplen + COOKED_HEADER,
        };
        let output = BufWriter::new(output);
        let writer = Writer::begin(output, &args.interface, kind, snaplen, now()).map_err(fail)?;
        Ok(Self { name, writer })
    }

    fn packet(&mut self, packet: &Received) -> Result<(), Failure> {
        let Received { time, data, length, direction, .. } = packet;
        let packet = Packet { time: *time, data, length: *length, direction: *direction };
        self.writer.packet(&packet).map_err(|error| Failure::stream(&self.name, &error))
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.writer.flush().map_err(|error| Failure::stream(&self.name, &error))
    }

    fn end(self, counts: Counts) -> Result<(), Failure> {
        let Self { name, writer } = self;
        writer.end(counts, now()).map_err(|error| Failure::stream(&name, &error))
    }
}

/// Now, in nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn show(
    screen: &mut Screen,
    packet: &Received,
    kind: LinkType,
    as_json: bool,
) -> Result<(), Failure> {
    let described = describe(packet, kind);
    let Received { interface, length, .. } = packet;
    if as_json {
        return screen.line(json!({
            "time": format!("{}.{:09}", packet.time / SECOND, packet.time % SECOND),
            "interface": interface,
            "direction": word(packet.direction),
            "length": length,
            "packet": described,
        }));
    }
    let time = time_of_day(packet.time);
    let arrow = if packet.direction == Direction::Outgoing { "out" } else { "in " };
    screen.line(format_args!("{time} {interface} {arrow} {described}"))
}

/// A packet on one line.
pub(crate) fn describe(packet: &Received, kind: LinkType) -> String {
    match kind {
        LinkType::Ethernet => decode::ethernet(&packet.data),
        LinkType::Cooked => {
            let behind = packet.data.get(COOKED_HEADER as usize..).unwrap_or_default();
            decode::payload(packet.protocol, behind)
        }
    }
}

fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Unicast => "unicast",
        Direction::Broadcast => "broadcast",
        Direction::Multicast => "multicast",
        Direction::Promiscuous => "promiscuous",
        Direction::Outgoing => "outgoing",
    }
}

/// Hours to microseconds, UTC.
fn time_of_day(time: u64) -> String {
    let seconds = time / SECOND;
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:06}", seconds % 60, time % SECOND / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_to_the_microsecond() {
        let time = ((23 * 60 + 5) * 60 + 9) * SECOND + 1_234_999;
        assert_eq!(time_of_day(86_400 * SECOND * 3 + time), "23:05:09.001234");
    }
}
