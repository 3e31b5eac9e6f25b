//! The capture file that packets are written to: pcapng, with one section of one interface.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use sockbroker_pcapng::{Interface, Packet, Section, Statistics, WriteError, Writer};

use super::args::SniffArgs;
use super::link::LinkHeader;
use super::packet::{COOKED_HEADER, Received, now};
use super::socket::Counts;
use crate::failure::Failure;

/// A capture file. One write call writes a whole block, so a reader sees packets immediately, and all packets
/// that count as captured are in the file.
#[derive(Debug)]
pub(super) struct CaptureFile {
    name: String,
    output: File,
    writer: Writer,
    /// The number of the only interface.
    interface: u32,
    /// When the capture started, in nanoseconds since 1970.
    start: u64,
    /// The block that is written next. It is kept for its capacity.
    block: Vec<u8>,
}

impl CaptureFile {
    /// Creates the file; `-` is standard output. If the file is a FIFO, waits for its reader.
    pub(super) fn begin(path: &Path, args: &SniffArgs, link: LinkHeader) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let fail = |error: io::Error| Failure::stream(&name, &error);
        let mut output = if path == Path::new("-") {
            File::from(io::stdout().as_fd().try_clone_to_owned().map_err(fail)?)
        } else {
            File::create(path).map_err(fail)?
        };
        let snaplen = match link {
            LinkHeader::Ethernet => args.snaplen,
            LinkHeader::Cooked => args.snaplen + COOKED_HEADER,
        };
        let section = Section {
            os: Some("Linux"),
            application: Some(concat!("sockbroker ", env!("CARGO_PKG_VERSION"))),
            ..Section::default()
        };
        let mut block = Vec::new();
        let refused = |error: WriteError| fail(io::Error::other(error));
        let mut writer = Writer::begin(&section, &mut block).map_err(refused)?;
        let expression = args.expression();
        let described = Interface {
            filter: expression.as_deref(),
            ..Interface::new(&args.interface, link.link_type(), snaplen)
        };
        let interface = writer.interface(&described, &mut block).map_err(refused)?;
        output.write_all(&block).map_err(fail)?;
        Ok(Self { name, output, writer, interface, start: now(), block })
    }

    pub(super) fn packet(&mut self, packet: &Received) -> Result<(), Failure> {
        let data = [packet.data.as_slice()];
        let packet = Packet {
            flags: Some(packet.packet_type.flags()),
            ..Packet::new(self.interface, packet.time, &data, packet.length)
        };
        self.write(|writer, block| writer.packet(&packet, block))
    }

    /// Ends the file with the statistics that are known.
    pub(super) fn end(&mut self, counts: Option<Counts>) -> Result<(), Failure> {
        let end = now();
        let statistics = Statistics {
            interface: self.interface,
            time: end,
            start: Some(self.start),
            end: Some(end),
            received: counts.map(|counts| counts.received),
            dropped: counts.map(|counts| counts.dropped),
            ..Statistics::default()
        };
        self.write(|writer, block| writer.statistics(&statistics, block))
    }

    /// Writes one block with one call. A reader that has closed the pipe is not reported.
    fn write(
        &mut self,
        encode: impl FnOnce(&Writer, &mut Vec<u8>) -> Result<(), WriteError>,
    ) -> Result<(), Failure> {
        self.block.clear();
        let encoded = encode(&self.writer, &mut self.block).map_err(io::Error::other);
        let written = encoded.and_then(|()| self.output.write_all(&self.block));
        written.map_err(|error| {
            let failure = Failure::stream(&self.name, &error);
            if error.kind() == io::ErrorKind::BrokenPipe {
                failure.without_message()
            } else {
                failure
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use sockbroker_pcapng::{
        Block, Direction, LinkType, PacketBlock, PacketFlags, Reader, Reception, StatisticsBlock,
    };
    use sockbroker_test_support::Folder;

    use super::super::link::PacketType;
    use super::*;

    /// Writes a file of these packets, and returns its bytes.
    fn written(link: LinkHeader, packets: &[Received], counts: Option<Counts>) -> Vec<u8> {
        let folder = Folder::new();
        let path: PathBuf = folder.join("capture");
        let args = SniffArgs {
            interface: "eth0".to_owned(),
            filter: vec!["udp".to_owned(), "port 67".to_owned()],
            count: None,
            write: Some(path.clone()),
            snaplen: 64,
            promiscuous: false,
            netns: None,
        };
        let mut file = CaptureFile::begin(&path, &args, link).unwrap();
        for packet in packets {
            file.packet(packet).unwrap();
        }
        file.end(counts).unwrap();
        std::fs::read(path).unwrap()
    }

    fn received(packet_type: PacketType, data: &[u8]) -> Received {
        Received {
            time: 1_700_000_000_123_456_789,
            data: data.to_vec(),
            length: 1500,
            packet_type,
            interface: "eth0".to_owned(),
            protocol: 0x0800,
        }
    }

    #[test]
    fn packets_are_written_with_their_facts_and_the_counters() {
        let types = [
            (PacketType::Unicast, Direction::Inbound, Reception::Unicast),
            (PacketType::Broadcast, Direction::Inbound, Reception::Broadcast),
            (PacketType::Multicast, Direction::Inbound, Reception::Multicast),
            (PacketType::Promiscuous, Direction::Inbound, Reception::Promiscuous),
            (PacketType::Outgoing, Direction::Outbound, Reception::Unspecified),
        ];
        let packets = types.map(|(packet_type, ..)| received(packet_type, &[7; 64]));
        let counts = Counts { received: 9, dropped: 4 };
        let bytes = written(LinkHeader::Ethernet, &packets, Some(counts));
        let mut reader = Reader::new(&bytes[..]);
        let Ok(Some(Block::Section(section))) = reader.next_block() else { panic!("no section") };
        assert_eq!(section.os, Some(&b"Linux"[..]));
        assert!(section.application.unwrap().starts_with(b"sockbroker "));
        let Ok(Some(Block::Interface(interface))) = reader.next_block() else {
            panic!("no interface")
        };
        let description = (interface.name, interface.link_type, interface.snaplen);
        assert_eq!(description, (Some(&b"eth0"[..]), LinkType::ETHERNET, 64));
        assert_eq!(interface.filter, Some(&b"udp port 67"[..]));
        for (packet_type, direction, reception) in types {
            let Ok(Some(Block::Packet(packet))) = reader.next_block() else { panic!("no packet") };
            let PacketBlock { time, data, length, flags, .. } = packet;
            assert_eq!((time, length), (Some(1_700_000_000_123_456_789), 1500));
            assert_eq!((data, flags), (&[7; 64][..], Some(PacketFlags::new(direction, reception))));
            assert_eq!(flags, Some(packet_type.flags()));
        }
        let Ok(Some(Block::Statistics(statistics))) = reader.next_block() else {
            panic!("no statistics")
        };
        let StatisticsBlock { time, start, end, received, dropped, .. } = statistics;
        assert_eq!((received, dropped, end), (Some(9), Some(4), Some(time)));
        assert!(start.unwrap() <= time);
        assert!(matches!(reader.next_block(), Ok(None)));
    }

    #[test]
    fn cooked_header_is_not_counted_as_bytes_of_the_packet() {
        let data = [7; 64 + COOKED_HEADER as usize];
        let bytes = written(LinkHeader::Cooked, &[received(PacketType::Unicast, &data)], None);
        let mut reader = Reader::new(&bytes[..]);
        assert!(matches!(reader.next_block(), Ok(Some(Block::Section(_)))));
        let Ok(Some(Block::Interface(interface))) = reader.next_block() else {
            panic!("no interface")
        };
        assert_eq!((interface.link_type, interface.snaplen), (LinkType::LINUX_SLL2, 84));
        assert!(matches!(reader.next_block(), Ok(Some(Block::Packet(_)))));
        let Ok(Some(Block::Statistics(statistics))) = reader.next_block() else {
            panic!("no statistics")
        };
        // The broker has not reported its counters.
        assert_eq!((statistics.received, statistics.dropped), (None, None));
    }
}
