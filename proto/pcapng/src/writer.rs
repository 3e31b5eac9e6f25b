//! Writes pcapng: blocks that are appended to a buffer of the caller.
//!
//! Numbers are little-endian, times are nanoseconds since 1970. A function that fails has appended nothing.

mod block;
mod error;

use crate::link_type::LinkType;
use crate::number::{
    BLOCK_OVERHEAD, BYTE_ORDER_MAGIC, COMMENT, ENHANCED_PACKET, EPB_DROPCOUNT, EPB_FLAGS,
    EPB_PROCESSID_THREADID, IF_DESCRIPTION, IF_FILTER, IF_HARDWARE, IF_MACADDR, IF_NAME, IF_OS,
    IF_SPEED, IF_TSRESOL, INTERFACE_DESCRIPTION, INTERFACE_STATISTICS, ISB_ENDTIME,
    ISB_FILTERACCEPT, ISB_IFDROP, ISB_IFRECV, ISB_OSDROP, ISB_STARTTIME, ISB_USRDELIV,
    MAX_BLOCK_BYTES, MAX_INTERFACES, SECTION_FIELDS, SECTION_HEADER, SHB_HARDWARE, SHB_OS,
    SHB_USERAPPL,
};
use crate::packet::{PacketFlags, Process};
use block::{BlockOption, block, options_bytes, padded, put, time_bytes};
pub use error::WriteError;

/// What a section begins with. A field that is `None` is not written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Section<'a> {
    /// The hardware of the machine, such as `x86_64`.
    pub hardware: Option<&'a str>,
    /// The operating system, such as `Linux 6.1.0`.
    pub os: Option<&'a str>,
    /// The program that writes.
    pub application: Option<&'a str>,
    /// A comment on the section.
    pub comment: Option<&'a str>,
}

/// The description of an interface. A field that is `None` is not written.
#[derive(Debug, Clone, Copy)]
pub struct Interface<'a> {
    /// What the packets of the interface begin with.
    pub link_type: LinkType,
    /// The most bytes of a packet that are captured, 0 for no limit. It includes VLAN tags that are inserted after the
    /// capture: libpcap refuses a file with a longer packet. It also refuses interfaces with different snapshot
    /// lengths, and interfaces with different link types.
    pub snaplen: u32,
    /// The name, such as `eth0`.
    pub name: Option<&'a str>,
    /// A description of the interface.
    pub description: Option<&'a str>,
    /// The text of the filter, in the language of libpcap.
    pub filter: Option<&'a str>,
    /// The speed in bits per second.
    pub speed: Option<u64>,
    /// The hardware address.
    pub mac: Option<[u8; 6]>,
    /// The operating system of the machine that has the interface.
    pub os: Option<&'a str>,
    /// The hardware of the interface.
    pub hardware: Option<&'a str>,
    /// A comment on the interface.
    pub comment: Option<&'a str>,
}

impl<'a> Interface<'a> {
    /// An interface with a name, without optional facts.
    pub const fn new(name: &'a str, link_type: LinkType, snaplen: u32) -> Self {
        Self {
            link_type,
            snaplen,
            name: Some(name),
            description: None,
            filter: None,
            speed: None,
            mac: None,
            os: None,
            hardware: None,
            comment: None,
        }
    }
}

/// A packet.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// The number of its interface, which [`Writer::interface`] has returned.
    pub interface: u32,
    /// When it was captured, in nanoseconds since 1970.
    pub time: u64,
    /// The captured bytes, in parts that are joined. A caller inserts a VLAN tag by a part of its own.
    pub data: &'a [&'a [u8]],
    /// The length of the packet on the wire.
    pub length: u32,
    /// Direction and kind of destination, if they are known.
    pub flags: Option<PacketFlags>,
    /// Packets of this interface that were dropped since its last packet; 0 is not written.
    pub dropped: u64,
    /// The process of the local socket, if it is known.
    pub process: Option<Process>,
    /// A comment on the packet.
    pub comment: Option<&'a str>,
}

impl<'a> Packet<'a> {
    /// A packet without optional facts.
    pub const fn new(interface: u32, time: u64, data: &'a [&'a [u8]], length: u32) -> Self {
        Self {
            interface,
            time,
            data,
            length,
            flags: None,
            dropped: 0,
            process: None,
            comment: None,
        }
    }

    /// The length of the block that [`Writer::packet`] appends.
    pub fn block_bytes(&self) -> usize {
        let options = self.options();
        BLOCK_OVERHEAD
            .saturating_add(20)
            .saturating_add(padded(self.captured()))
            .saturating_add(options_bytes(&options))
    }

    fn captured(&self) -> usize {
        self.data.iter().fold(0, |sum, part| sum.saturating_add(part.len()))
    }

    fn options(&self) -> [Option<BlockOption<'a>>; 4] {
        [
            self.comment.map(|text| BlockOption::text(COMMENT, text)),
            self.flags.map(|flags| BlockOption::u32(EPB_FLAGS, flags.0)),
            (self.dropped != 0).then(|| BlockOption::u64(EPB_DROPCOUNT, self.dropped)),
            self.process.map(|process| {
                let number = u64::from(process.thread) << 32 | u64::from(process.process);
                BlockOption::u64(EPB_PROCESSID_THREADID, number)
            }),
        ]
    }
}

/// The counters of an interface since the start of the capture. A field that is `None` is not written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Statistics<'a> {
    /// The number of the interface, which [`Writer::interface`] has returned.
    pub interface: u32,
    /// When the counters were read, in nanoseconds since 1970.
    pub time: u64,
    /// When the capture started, in nanoseconds since 1970.
    pub start: Option<u64>,
    /// When the capture ended, in nanoseconds since 1970.
    pub end: Option<u64>,
    /// Packets that the interface received.
    pub received: Option<u64>,
    /// Packets that were dropped for lack of resources.
    pub dropped: Option<u64>,
    /// Packets that the filter accepted.
    pub accepted: Option<u64>,
    /// Packets that the operating system dropped.
    pub os_dropped: Option<u64>,
    /// Packets that were delivered: written to the file.
    pub delivered: Option<u64>,
    /// A comment, such as why the capture ended.
    pub comment: Option<&'a str>,
}

/// Writes one section.
#[derive(Debug)]
pub struct Writer {
    /// The snapshot length of each interface.
    snaplens: Vec<u32>,
}

impl Writer {
    /// Appends the header of a section whose length is not known.
    pub fn begin(section: &Section<'_>, output: &mut Vec<u8>) -> Result<Self, WriteError> {
        let options = [
            section.comment.map(|text| BlockOption::text(COMMENT, text)),
            section.hardware.map(|text| BlockOption::text(SHB_HARDWARE, text)),
            section.os.map(|text| BlockOption::text(SHB_OS, text)),
            section.application.map(|text| BlockOption::text(SHB_USERAPPL, text)),
        ];
        let mut fixed = [0; SECTION_FIELDS];
        put(&mut fixed, 0, &BYTE_ORDER_MAGIC.to_le_bytes());
        // Version 1.0.
        put(&mut fixed, 4, &1u16.to_le_bytes());
        put(&mut fixed, 8, &u64::MAX.to_le_bytes());
        block(SECTION_HEADER, &fixed, &[], 0, &options, output)?;
        Ok(Self { snaplens: Vec::new() })
    }

    /// Appends the description of an interface, and returns the number for its packets. It can follow packets of
    /// other interfaces.
    pub fn interface(
        &mut self,
        interface: &Interface<'_>,
        output: &mut Vec<u8>,
    ) -> Result<u32, WriteError> {
        if self.snaplens.len() >= MAX_INTERFACES {
            return Err(WriteError::TooManyInterfaces);
        }
        let number = u32::try_from(self.snaplens.len()).unwrap_or(u32::MAX);
        let options = [
            interface.comment.map(|text| BlockOption::text(COMMENT, text)),
            interface.name.map(|text| BlockOption::text(IF_NAME, text)),
            interface.description.map(|text| BlockOption::text(IF_DESCRIPTION, text)),
            interface.mac.map(|mac| BlockOption::bytes(IF_MACADDR, &mac)),
            interface.speed.map(|speed| BlockOption::u64(IF_SPEED, speed)),
            // 10^-9 seconds.
            Some(BlockOption::bytes(IF_TSRESOL, &[9])),
            interface.filter.map(|text| BlockOption::prefixed_text(IF_FILTER, 0, text)),
            interface.os.map(|text| BlockOption::text(IF_OS, text)),
            interface.hardware.map(|text| BlockOption::text(IF_HARDWARE, text)),
        ];
        let mut fixed = [0; 8];
        put(&mut fixed, 0, &interface.link_type.0.to_le_bytes());
        put(&mut fixed, 4, &interface.snaplen.to_le_bytes());
        block(INTERFACE_DESCRIPTION, &fixed, &[], 0, &options, output)?;
        self.snaplens.push(interface.snaplen);
        Ok(number)
    }

    /// Appends a packet. It allocates only if the capacity of the buffer is less than
    /// [`Packet::block_bytes`].
    pub fn packet(&self, packet: &Packet<'_>, output: &mut Vec<u8>) -> Result<(), WriteError> {
        let snaplen = self.snaplen(packet.interface)?;
        let captured = packet.captured();
        let Some(captured_bytes) =
            u32::try_from(captured).ok().filter(|captured| *captured <= packet.length)
        else {
            return Err(WriteError::LongerThanPacket { captured, length: packet.length });
        };
        if snaplen != 0 && captured_bytes > snaplen {
            return Err(WriteError::LongerThanSnaplen { captured, snaplen });
        }
        if packet.comment.is_some() {
            let mut fixed = [0; 20];
            put(&mut fixed, 0, &packet.interface.to_le_bytes());
            put(&mut fixed, 4, &time_bytes(packet.time));
            put(&mut fixed, 12, &captured_bytes.to_le_bytes());
            put(&mut fixed, 16, &packet.length.to_le_bytes());
            return block(
                ENHANCED_PACKET,
                &fixed,
                packet.data,
                captured,
                &packet.options(),
                output,
            );
        }
        packet_without_text(packet, captured_bytes, output)
    }

    /// Appends the counters of an interface. Readers use the last ones.
    pub fn statistics(
        &self,
        statistics: &Statistics<'_>,
        output: &mut Vec<u8>,
    ) -> Result<(), WriteError> {
        self.snaplen(statistics.interface)?;
        let time =
            |code, time: Option<u64>| time.map(|time| BlockOption::bytes(code, &time_bytes(time)));
        let count = |code, count: Option<u64>| count.map(|count| BlockOption::u64(code, count));
        let options = [
            statistics.comment.map(|text| BlockOption::text(COMMENT, text)),
            time(ISB_STARTTIME, statistics.start),
            time(ISB_ENDTIME, statistics.end),
            count(ISB_IFRECV, statistics.received),
            count(ISB_IFDROP, statistics.dropped),
            count(ISB_FILTERACCEPT, statistics.accepted),
            count(ISB_OSDROP, statistics.os_dropped),
            count(ISB_USRDELIV, statistics.delivered),
        ];
        let mut fixed = [0; 12];
        put(&mut fixed, 0, &statistics.interface.to_le_bytes());
        put(&mut fixed, 4, &time_bytes(statistics.time));
        block(INTERFACE_STATISTICS, &fixed, &[], 0, &options, output)
    }

    fn snaplen(&self, interface: u32) -> Result<u32, WriteError> {
        let index = usize::try_from(interface).unwrap_or(usize::MAX);
        let interfaces = self.snaplens.len();
        let unknown = WriteError::UnknownInterface { interface, interfaces };
        self.snaplens.get(index).copied().ok_or(unknown)
    }
}

/// The most bytes behind the data of a packet without a comment: the padding, three options, their end, the length.
const TAIL: usize = 3 + 8 + 12 + 12 + 4 + 4;

/// Appends a packet without a comment as [`block()`] does, in fewer steps: captures write each packet by this.
fn packet_without_text(
    packet: &Packet<'_>,
    captured: u32,
    output: &mut Vec<u8>,
) -> Result<(), WriteError> {
    let mut tail = Tail { bytes: [0; TAIL], length: padding(captured) };
    if let Some(flags) = packet.flags {
        tail.option(EPB_FLAGS, &flags.0.to_le_bytes());
    }
    if packet.dropped != 0 {
        tail.option(EPB_DROPCOUNT, &packet.dropped.to_le_bytes());
    }
    if let Some(process) = packet.process {
        let number = u64::from(process.thread) << 32 | u64::from(process.process);
        tail.option(EPB_PROCESSID_THREADID, &number.to_le_bytes());
    }
    if tail.length > padding(captured) {
        // The end of the options: code and length are 0.
        tail.length += 4;
    }
    let bytes = 28 + u64::from(captured) + tail.length as u64 + 4;
    let most = MAX_BLOCK_BYTES as u64;
    let Some(length) = u32::try_from(bytes).ok().filter(|_| bytes <= most) else {
        return Err(WriteError::BlockTooLong {
            bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
        });
    };
    tail.put(&length.to_le_bytes());
    let mut head = [0; 28];
    put(&mut head, 0, &ENHANCED_PACKET.to_le_bytes());
    put(&mut head, 4, &length.to_le_bytes());
    put(&mut head, 8, &packet.interface.to_le_bytes());
    put(&mut head, 12, &time_bytes(packet.time));
    put(&mut head, 20, &captured.to_le_bytes());
    put(&mut head, 24, &packet.length.to_le_bytes());
    output.reserve(usize::try_from(length).unwrap_or(usize::MAX));
    output.extend_from_slice(&head);
    for part in packet.data {
        output.extend_from_slice(part);
    }
    output.extend_from_slice(tail.bytes.get(..tail.length).unwrap_or_default());
    Ok(())
}

/// The zeros after this many bytes, up to a multiple of four.
fn padding(bytes: u32) -> usize {
    bytes.wrapping_neg() as usize & 3
}

/// What follows the data of a packet.
struct Tail {
    bytes: [u8; TAIL],
    length: usize,
}

impl Tail {
    fn put(&mut self, field: &[u8]) {
        put(&mut self.bytes, self.length, field);
        self.length += field.len();
    }

    /// The lengths of these values are multiples of four.
    fn option(&mut self, code: u16, value: &[u8]) {
        self.put(&code.to_le_bytes());
        self.put(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
        self.put(value);
    }
}

#[cfg(test)]
mod tests;
