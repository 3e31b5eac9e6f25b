//! Divides a capture file into parts that one call sends: each is a file of its own, with the time at which it is due.

use std::error::Error;
use std::io::Read;

use sockbroker_pcapng::{
    Block, Interface, LinkType, Packet, PacketBlock, Reader, Section, WriteError, Writer,
};

/// A part ends before it has more bytes or packets: the limits of the broker are larger.
const BYTES_MAX: usize = 1 << 20;
const PACKETS_MAX: u64 = 16_384;
/// What is kept of a packet. No interface sends as much.
const PACKET_BYTES_MAX: usize = 256 << 10;
/// A part ends before a packet that is due this many seconds after its first one, so that a call ends soon.
const SECONDS_MAX: f64 = 0.2;

/// What determines when packets are due.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// The times of the file, divided by a factor; 0 for no waiting.
    Factor(f64),
    /// A number of packets a second.
    Rate(f64),
}

/// Packets for one call.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Part {
    /// A pcapng file.
    pub(super) file: Vec<u8>,
    /// The number of its first packet.
    pub(super) first: u64,
    /// How many packets it has.
    pub(super) packets: u64,
    /// When the first one is due, in seconds after the start.
    pub(super) due: f64,
}

/// Why a file ends before its end.
#[derive(Debug)]
pub(super) struct Damaged {
    /// The number of the packet that cannot be read.
    pub(super) packet: u64,
    pub(super) reason: String,
}

/// The parts of one or more files, one after the other.
#[derive(Debug)]
pub(super) struct Divider {
    pace: Pace,
    /// The most packets in all.
    limit: u64,
    /// Packets so far.
    count: u64,
    /// When the current file began, in seconds after the start.
    base: f64,
    /// When the last packet was due.
    last: f64,
}

/// A part that is being filled.
struct Open {
    part: Part,
    writer: Writer,
    links: Vec<LinkType>,
}

impl Divider {
    pub(super) fn new(pace: Pace, limit: Option<u64>) -> Self {
        Self { pace, limit: limit.unwrap_or(u64::MAX), count: 0, base: 0.0, last: 0.0 }
    }

    /// Whether no further packet is wanted.
    pub(super) fn is_done(&self) -> bool {
        self.count >= self.limit
    }

    /// Divides a file; `false` if a part is not wanted any more. The parts before a damage are passed on first.
    pub(super) fn file(
        &mut self,
        source: impl Read,
        mut pass: impl FnMut(Part) -> bool,
    ) -> Result<bool, Damaged> {
        let mut reader = Reader::new(source);
        let (mut open, mut origin, mut time) = (None::<Open>, None, 0);
        self.base = self.last;
        let end = loop {
            if self.is_done() {
                break Ok(());
            }
            let packet = match reader.next_block() {
                Ok(Some(Block::Packet(packet))) => packet,
                Ok(Some(_)) => continue,
                Ok(None) => break Ok(()),
                Err(error) => break Err(self.damaged(&error)),
            };
            time = packet.time.unwrap_or(time);
            let due = self.due(time, *origin.get_or_insert(time));
            if open.as_ref().is_some_and(|open| open.is_full(&packet, due))
                && let Some(Open { part, .. }) = open.take()
                && !pass(part)
            {
                return Ok(false);
            }
            let mut part = match open.take() {
                Some(open) => Ok(open),
                None => Open::new(self.count + 1, due),
            };
            part = part.and_then(|mut open| open.add(&packet, time).map(|()| open));
            open = match part {
                Ok(part) => Some(part),
                Err(error) => break Err(self.damaged(&error)),
            };
            self.count += 1;
            self.last = self.last.max(due);
        };
        let wanted = open.is_none_or(|Open { part, .. }| pass(part));
        end.map(|()| wanted)
    }

    fn damaged(&self, error: &dyn Error) -> Damaged {
        Damaged { packet: self.count + 1, reason: error.to_string() }
    }

    /// When the next packet is due.
    #[expect(clippy::cast_precision_loss, reason = "exact to 104 days, and to microseconds beyond")]
    fn due(&self, time: u64, origin: u64) -> f64 {
        match self.pace {
            Pace::Factor(factor) if factor > 0.0 => {
                self.base + time.saturating_sub(origin) as f64 / 1e9 / factor
            }
            Pace::Factor(_) => 0.0,
            Pace::Rate(rate) => self.count as f64 / rate,
        }
    }
}

impl Open {
    fn new(first: u64, due: f64) -> Result<Self, WriteError> {
        let mut file = Vec::with_capacity(BYTES_MAX);
        let writer = Writer::begin(&Section::default(), &mut file)?;
        Ok(Self { part: Part { file, first, packets: 0, due }, writer, links: Vec::new() })
    }

    fn is_full(&self, packet: &PacketBlock<'_>, due: f64) -> bool {
        self.part.file.len() + packet.data.len() > BYTES_MAX
            || self.part.packets >= PACKETS_MAX
            || due - self.part.due > SECONDS_MAX
    }

    fn add(&mut self, packet: &PacketBlock<'_>, time: u64) -> Result<(), WriteError> {
        let known = self.links.iter().position(|link| *link == packet.link_type);
        let interface = if let Some(number) = known.and_then(|place| u32::try_from(place).ok()) {
            number
        } else {
            self.links.push(packet.link_type);
            let interface = Interface { name: None, ..Interface::new("", packet.link_type, 0) };
            self.writer.interface(&interface, &mut self.part.file)?
        };
        let data = packet.data.get(..PACKET_BYTES_MAX).unwrap_or(packet.data);
        let captured = u32::try_from(packet.data.len()).unwrap_or(u32::MAX);
        // Some programs write a length of 0.
        let length = packet.length.max(captured);
        self.writer.packet(&Packet::new(interface, time, &[data], length), &mut self.part.file)?;
        self.part.packets += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sockbroker_pcapng::PcapWriter;

    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    /// A pcap file of packets with these times in milliseconds and lengths.
    fn capture(packets: &[(u64, usize)]) -> Vec<u8> {
        let mut file = Vec::new();
        let writer = PcapWriter::begin(LinkType::ETHERNET, 1 << 20, &mut file);
        for (time, length) in packets {
            let data = vec![7; *length];
            let wire = u32::try_from(*length).unwrap();
            writer.packet(time * MILLISECOND, &[&data], wire, &mut file).unwrap();
        }
        file
    }

    fn divide(divider: &mut Divider, file: &[u8]) -> Vec<(u64, u64, u128)> {
        let mut found = Vec::new();
        let whole = divider.file(file, |part| {
            let microseconds = Duration::from_secs_f64(part.due).as_micros();
            found.push((part.first, part.packets, (microseconds + 500) / 1000));
            true
        });
        assert!(whole.unwrap());
        found
    }

    #[test]
    fn a_part_ends_before_a_packet_that_is_due_later() {
        let file = capture(&[(500, 60), (600, 60), (700, 60), (701, 60), (5000, 60)]);
        let parts = |pace| divide(&mut Divider::new(pace, None), &file);
        assert_eq!(parts(Pace::Factor(1.0)), [(1, 3, 0), (4, 1, 201), (5, 1, 4500)]);
        assert_eq!(parts(Pace::Factor(2.0)), [(1, 4, 0), (5, 1, 2250)]);
        assert_eq!(parts(Pace::Factor(0.0)), [(1, 5, 0)]);
        assert_eq!(parts(Pace::Rate(10.0)), [(1, 3, 0), (4, 2, 300)]);
    }

    #[test]
    fn a_further_file_is_due_behind_the_last_packet_and_the_limit_counts_all() {
        let file = capture(&[(0, 60), (100, 60)]);
        let mut divider = Divider::new(Pace::Factor(1.0), Some(5));
        assert_eq!(divide(&mut divider, &file), [(1, 2, 0)]);
        assert_eq!(divide(&mut divider, &file), [(3, 2, 100)]);
        assert_eq!(divide(&mut divider, &file), [(5, 1, 200)]);
        assert!(divider.is_done());
        let mut divider = Divider::new(Pace::Rate(10.0), None);
        assert_eq!(divide(&mut divider, &file), [(1, 2, 0)]);
        assert_eq!(divide(&mut divider, &file), [(3, 2, 200)]);
    }

    #[test]
    fn parts_are_within_the_limits_of_the_broker_and_have_every_packet() {
        let mut packets = vec![(0, 1400); 2000];
        packets.extend(vec![(0, 60); 40_000]);
        packets.push((0, 900_000));
        let file = capture(&packets);
        let (mut lengths, mut count) = (Vec::new(), 0);
        let mut divider = Divider::new(Pace::Factor(0.0), None);
        let whole = divider.file(&file[..], |part| {
            assert!(part.file.len() <= BYTES_MAX + PACKET_BYTES_MAX, "{}", part.file.len());
            assert!(part.packets <= PACKETS_MAX);
            assert_eq!(part.first, count + 1);
            count += part.packets;
            let mut reader = Reader::new(&part.file[..]);
            while let Some(block) = reader.next_block().unwrap() {
                if let Block::Packet(packet) = block {
                    lengths.push((packet.length as usize, packet.data.len()));
                }
            }
            true
        });
        assert!(whole.unwrap());
        let kept = packets.iter().map(|(_, length)| (*length, (*length).min(PACKET_BYTES_MAX)));
        assert_eq!(lengths, kept.collect::<Vec<_>>());
    }

    #[test]
    fn what_is_before_a_damage_is_passed_on() {
        let file = capture(&[(0, 60), (0, 60), (0, 60)]);
        let mut found = Vec::new();
        let mut divider = Divider::new(Pace::Factor(1.0), None);
        let damaged = divider.file(&file[..file.len() - 1], |part| {
            found.push(part.packets);
            true
        });
        let Damaged { packet, reason } = damaged.unwrap_err();
        assert_eq!((packet, found), (3, vec![2]));
        assert!(reason.contains("malformed at byte 176"), "{reason}");
    }

    #[test]
    fn a_file_is_not_read_further_if_no_part_is_wanted() {
        let file = capture(&[(0, 60), (1000, 60), (2000, 60)]);
        let mut count = 0;
        let mut divider = Divider::new(Pace::Factor(1.0), None);
        let wanted = divider.file(&file[..], |_part| {
            count += 1;
            count < 2
        });
        assert_eq!((wanted.unwrap(), count), (false, 2));
    }
}
