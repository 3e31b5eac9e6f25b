//! The stream of a capture: blocks that are gathered, and sent as the client reads.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use sockbroker_pcapng::{
    Direction, Interface, LinkType, Packet, PacketFlags, PcapWriter, Reception, Section,
    Statistics, WriteError, Writer,
};
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
    /// The client does not read.
    Part,
    /// The client has closed the stream.
    Gone,
}

#[derive(Debug)]
pub(super) struct Output {
    stream: OwnedFd,
    buffer: Vec<u8>,
    /// How much of the buffer was sent.
    sent: usize,
    /// When something was sent while the client was behind.
    sent_at: Option<Instant>,
    /// The ends of the packets in the buffer, and their captured bytes.
    packets: Vec<(usize, usize)>,
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
        let snaplen = order.snaplen;
        let writer = match order.format {
            Format::Pcapng => {
                let section = Section {
                    os: Some("Linux"),
                    application: Some(concat!("sockbroker ", env!("CARGO_PKG_VERSION"))),
                    ..Section::default()
                };
                let writer = Writer::begin(&section, &mut buffer).map_err(failed)?;
                FileWriter::Pcapng(writer, Described::default())
            }
            Format::Pcap => {
                let link_type =
                    interfaces.first().map_or(LinkType::ETHERNET, |one| LinkType(one.link_type));
                let with_tag = snaplen.saturating_add(TAG);
                FileWriter::Pcap(PcapWriter::begin(link_type, with_tag, &mut buffer))
            }
        };
        let (packets, text) = (Vec::new(), order.text.clone());
        let mut output = Self {
            stream,
            buffer,
            sent: 0,
            sent_at: None,
            packets,
            writer,
            last: None,
            snaplen,
            text,
        };
        for interface in interfaces {
            output.describe(interface.clone())?;
        }
        Ok((output, other))
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
        self.packets.push((self.buffer.len(), data.len()));
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
        self.buffer.len() >= GATHERED
    }

    /// Sends what the stream has room for.
    pub(super) fn send(&mut self) -> io::Result<Sent> {
        let mut progress = false;
        while let Some(rest) = self.buffer.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            match message::send(self.stream.as_fd(), rest, flags) {
                Ok(sent) => {
                    self.sent += sent;
                    progress = true;
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => {
                        if progress {
                            self.sent_at = Some(Instant::now());
                        }
                        return Ok(Sent::Part);
                    }
                    Some(libc::EPIPE | libc::ECONNRESET) => return Ok(Sent::Gone),
                    _ => return Err(error),
                },
            }
        }
        self.buffer.clear();
        self.packets.clear();
        self.sent = 0;
        Ok(Sent::All)
    }

    /// When the client, which was behind, last made room.
    pub(super) fn sent_at(&self) -> Option<Instant> {
        self.sent_at
    }

    /// The packets that were written and not sent completely, and their captured bytes.
    pub(super) fn unsent(&self) -> (u64, u64) {
        let unsent = self.packets.iter().filter(|(end, _)| *end > self.sent);
        unsent.fold((0, 0), |(packets, sum), (_, bytes)| (packets + 1, sum + *bytes as u64))
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
