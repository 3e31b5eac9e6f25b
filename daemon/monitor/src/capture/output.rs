//! The stream of a capture: blocks that are gathered, and sent as the client reads.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use sockbroker_pcapng::{
    Direction, Interface, LinkType, Packet, PacketFlags, PcapWriter, Reception, Section,
    Statistics, WriteError, Writer,
};
use sockbroker_sys::journal::{Journal, PAIRS_MAX};
use sockbroker_sys::{message, ring, socket, stream};

use super::interfaces::{Described, link_type};
use super::order::{Counts, Format, InterfaceFacts, Order};

/// The bytes that are gathered before the ring waits.
pub(super) const GATHERED: usize = 256 << 10;
/// The send buffer of the stream, which the kernel doubles.
const SEND_BUFFER: usize = 1 << 20;
/// The bytes of a tag, which stands behind the two addresses of a header.
const TAG: u32 = 4;
const ADDRESSES: usize = 12;

/// How far a sending got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    All,
    /// Some bytes, and there may be room for more.
    Some,
    /// The client does not read.
    Part,
    /// The client has closed the stream.
    Gone,
}

#[derive(Debug)]
pub(super) struct Output {
    stream: OwnedFd,
    buffer: Vec<u8>,
    /// The bytes of the stream before the buffer.
    before: u64,
    /// How much of the buffer was sent.
    sent: usize,
    /// When something was sent while the client was behind.
    sent_at: Option<Instant>,
    /// The ends of the packets in the buffer, and their captured bytes.
    packets: Vec<[u32; 2]>,
    /// How much of the buffer and of the packets the journal has.
    noted: (usize, usize),
    writer: FileWriter,
    /// Index and hardware type of the interface of the last packet, and the number of its block.
    last: Option<((u32, u16), u32)>,
    snaplen: u32,
    text: Option<String>,
}

#[derive(Debug)]
enum FileWriter {
    Pcapng(Writer, Described),
    Pcap(PcapWriter),
}

fn failed(error: WriteError) -> io::Error {
    io::Error::other(error)
}

/// The comment on a section that another process than that of the last one writes.
const CONTINUED: &str = "continued after the end of the process that wrote the capture: no packet is repeated, and the \
     drop counts include those of the interruption";

fn section_header() -> Section<'static> {
    let application = Some(concat!("sockbroker ", env!("CARGO_PKG_VERSION")));
    Section { os: Some("Linux"), application, ..Section::default() }
}

/// What a process had gathered, and how much of it it has sent.
#[derive(Debug)]
pub(super) struct Unsent {
    /// The bytes of the stream before the buffer.
    pub(super) before: u64,
    pub(super) buffer: Vec<u8>,
    pub(super) packets: Vec<[u32; 2]>,
    pub(super) sent: usize,
}

impl Output {
    /// Begins a file. Returns also the client's end of the stream.
    pub(super) fn begin(
        order: &Order,
        interfaces: &[InterfaceFacts],
    ) -> io::Result<(Self, OwnedFd)> {
        let (stream, other) =
            socket::pair(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0)?;
        // The reading program chooses for its own end.
        socket::set_nonblocking(other.as_fd(), false)?;
        stream::set_send_buffer(stream.as_fd(), SEND_BUFFER)?;
        let mut buffer = Vec::with_capacity(GATHERED + (128 << 10));
        let writer = match order.format {
            Format::Pcapng => {
                let writer = Writer::begin(&section_header(), &mut buffer).map_err(failed)?;
                FileWriter::Pcapng(writer, Described::default())
            }
            Format::Pcap => {
                let link_type =
                    interfaces.first().map_or(LinkType::ETHERNET, |one| LinkType(one.link_type));
                let with_tag = order.snaplen.saturating_add(TAG);
                FileWriter::Pcap(PcapWriter::begin(link_type, with_tag, &mut buffer))
            }
        };
        let unsent = Unsent { before: 0, buffer, packets: Vec::new(), sent: 0 };
        let mut output = Self::new(order, stream, unsent, writer);
        for interface in interfaces {
            output.describe(interface.clone())?;
        }
        Ok((output, other))
    }

    fn new(order: &Order, stream: OwnedFd, unsent: Unsent, writer: FileWriter) -> Self {
        let Unsent { before, buffer, packets, sent } = unsent;
        let (snaplen, text) = (order.snaplen, order.text.clone());
        let (sent_at, noted, last) = (None, (0, 0), None);
        Self { stream, buffer, before, sent, sent_at, packets, noted, writer, last, snaplen, text }
    }

    /// Continues the file of a process that has ended: behind what it had gathered, with a section that states this.
    /// `ends` if it had written its last block.
    pub(super) fn resume(
        (order, interfaces): (&Order, &[InterfaceFacts]),
        stream: OwnedFd,
        unsent: Unsent,
        ends: bool,
    ) -> io::Result<Self> {
        let mut section = Vec::new();
        let writer = match order.format {
            Format::Pcapng => {
                let comment = Some(CONTINUED);
                let header = Section { comment, ..section_header() };
                let writer = Writer::begin(&header, &mut section).map_err(failed)?;
                FileWriter::Pcapng(writer, Described::default())
            }
            // It has no place for it, and its header is that of the file.
            Format::Pcap => {
                let with_tag = order.snaplen.saturating_add(TAG);
                FileWriter::Pcap(PcapWriter::begin(LinkType::ETHERNET, with_tag, &mut Vec::new()))
            }
        };
        let mut output = Self::new(order, stream, unsent, writer);
        if !ends {
            output.buffer.append(&mut section);
            for interface in interfaces {
                output.describe(interface.clone())?;
            }
        }
        Ok(output)
    }

    /// Describes an interface, or one that has another name now.
    pub(super) fn describe(&mut self, interface: InterfaceFacts) -> io::Result<()> {
        let FileWriter::Pcapng(writer, described) = &mut self.writer else { return Ok(()) };
        let link_type = LinkType(interface.link_type);
        let with_tag = self.snaplen.saturating_add(TAG);
        let filter = self.text.as_deref();
        let block = Interface { filter, ..Interface::new(&interface.name, link_type, with_tag) };
        let number = writer.interface(&block, &mut self.buffer).map_err(failed)?;
        described.add(interface, number);
        self.last = None;
        Ok(())
    }

    /// The interfaces that have other names now.
    pub(super) fn renamed(&self, socket: BorrowedFd<'_>) -> Vec<InterfaceFacts> {
        match &self.writer {
            FileWriter::Pcapng(_, described) => described.renamed(socket),
            FileWriter::Pcap(_) => Vec::new(),
        }
    }

    /// Whether an interface has to be described before its packet.
    pub(super) fn lacks(&mut self, packet: &ring::Packet<'_>) -> Option<(u32, u16)> {
        let FileWriter::Pcapng(_, described) = &self.writer else { return None };
        let key = (packet.interface, packet.hardware);
        if self.last.is_some_and(|(last, _)| last == key) {
            return None;
        }
        let link_type = link_type(packet.hardware).0;
        let number = described.number(packet.interface, link_type);
        self.last = number.map(|number| (key, number));
        number.is_none().then_some((packet.interface, link_type))
    }

    /// Writes a packet, with the number of those that were dropped before it. Returns the captured bytes.
    pub(super) fn packet(&mut self, packet: &ring::Packet<'_>, dropped: u64) -> io::Result<usize> {
        let most = self.snaplen as usize;
        let data = packet.data.get(..most).unwrap_or(packet.data);
        let link_type = link_type(packet.hardware);
        let tag = packet.tag.filter(|_| link_type == LinkType::ETHERNET);
        let split = tag.and_then(|tag| Some((data.split_at_checked(ADDRESSES)?, tag)));
        let bytes;
        let (parts, length) = match split {
            Some(((addresses, rest), tag)) => {
                let ([p0, p1], [c0, c1]) = (tag.protocol.to_be_bytes(), tag.control.to_be_bytes());
                bytes = [p0, p1, c0, c1];
                (&[addresses, &bytes, rest][..], packet.length.saturating_add(TAG))
            }
            None => (&[data][..], packet.length),
        };
        let written = match &self.writer {
            FileWriter::Pcapng(writer, described) => {
                let key = (packet.interface, packet.hardware);
                let interface = match self.last {
                    Some((last, number)) if last == key => number,
                    Some(_) | None => {
                        described.number(packet.interface, link_type.0).unwrap_or_default()
                    }
                };
                let flags = Some(flags(packet.kind));
                let block =
                    Packet { flags, dropped, ..Packet::new(interface, packet.time, parts, length) };
                writer.packet(&block, &mut self.buffer)
            }
            FileWriter::Pcap(writer) => writer.packet(packet.time, parts, length, &mut self.buffer),
        };
        written.map_err(failed)?;
        let number = |length| u32::try_from(length).unwrap_or(u32::MAX);
        self.packets.push([number(self.buffer.len()), number(data.len())]);
        Ok(data.len())
    }

    /// Writes the counters so far, and with `end` those of the end and its reason. An interface has to be described
    /// before: the counters are those of all interfaces, and stand at the first.
    pub(super) fn statistics(
        &mut self,
        counts: &Counts,
        (start, time): (u64, u64),
        end: Option<&str>,
    ) -> io::Result<()> {
        let FileWriter::Pcapng(writer, _) = &self.writer else { return Ok(()) };
        let block = Statistics {
            interface: 0,
            time,
            start: Some(start),
            end: end.map(|_| time),
            received: Some(counts.seen),
            dropped: Some(counts.dropped),
            delivered: Some(counts.captured),
            comment: end,
            ..Statistics::default()
        };
        match writer.statistics(&block, &mut self.buffer) {
            // Nothing was captured.
            Err(WriteError::UnknownInterface { .. }) => Ok(()),
            written => written.map_err(failed),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The bytes that are gathered, with those that were sent.
    pub(super) fn length(&self) -> usize {
        self.buffer.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.buffer.len() >= GATHERED || self.packets.len() >= PAIRS_MAX
    }

    /// Sends what the stream has room for. A journal MUST have all that is gathered, and has to note what was sent.
    pub(super) fn send(&mut self, journal: Option<&mut Journal>) -> io::Result<Sent> {
        if let Some(rest) = self.buffer.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            let number = self.before + self.sent as u64;
            let sent = match journal {
                Some(journal) => journal.send(self.stream.as_fd(), rest, number),
                None => message::send(self.stream.as_fd(), rest, flags),
            };
            match sent {
                Ok(sent) => self.sent += sent,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(Sent::Part),
                    Some(libc::EPIPE | libc::ECONNRESET) => return Ok(Sent::Gone),
                    _ => return Err(error),
                },
            }
            if self.sent < self.buffer.len() {
                self.sent_at = Some(Instant::now());
                return Ok(Sent::Some);
            }
        }
        self.before += self.sent as u64;
        self.buffer.clear();
        self.packets.clear();
        (self.sent, self.noted) = (0, (0, 0));
        Ok(Sent::All)
    }

    /// When the client, which was behind, last made room.
    pub(super) fn sent_at(&self) -> Option<Instant> {
        self.sent_at
    }

    /// Writes what is gathered to a journal, and returns what it has to note: the bytes of the stream before, those that
    /// are gathered, those of the stream that were sent, and the number of packets.
    pub(super) fn note(&mut self, journal: &mut Journal) -> io::Result<[u64; 4]> {
        let (bytes, packets) = self.noted;
        if let Some(new) = self.buffer.get(bytes..).filter(|new| !new.is_empty()) {
            journal.write_pending(bytes, new)?;
        }
        for (index, packet) in self.packets.iter().enumerate().skip(packets) {
            journal.write_pair(index, *packet)?;
        }
        self.noted = (self.buffer.len(), self.packets.len());
        let (gathered, packets) = (self.buffer.len() as u64, self.packets.len() as u64);
        Ok([self.before, gathered, self.before + self.sent as u64, packets])
    }

    /// The packets that were written and not sent completely, and their captured bytes.
    pub(super) fn unsent(&self) -> (u64, u64) {
        let unsent = self.packets.iter().filter(|[end, _]| *end as usize > self.sent);
        unsent.fold((0, 0), |(packets, sum), [_, bytes]| (packets + 1, sum + u64::from(*bytes)))
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Direction and kind of destination of a packet (`sll_pkttype`, `packet(7)`).
fn flags(kind: u8) -> PacketFlags {
    match kind {
        libc::PACKET_HOST => PacketFlags::new(Direction::Inbound, Reception::Unicast),
        libc::PACKET_BROADCAST => PacketFlags::new(Direction::Inbound, Reception::Broadcast),
        libc::PACKET_MULTICAST => PacketFlags::new(Direction::Inbound, Reception::Multicast),
        libc::PACKET_OTHERHOST => PacketFlags::new(Direction::Inbound, Reception::Promiscuous),
        libc::PACKET_OUTGOING => PacketFlags::new(Direction::Outbound, Reception::Unspecified),
        _ => PacketFlags::default(),
    }
}
