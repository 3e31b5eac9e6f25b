//! What is captured, and the packets of a capture.

use sockbroker_pcapng::{Block, Decoder, Direction, PacketFlags};
use sockbroker_proto::api::capture::CaptureOptions;

use crate::error::{Error, Result};
use crate::netns::Netns;

/// The most bytes of the stream that one call returns. The broker's default limit is larger.
pub(crate) const READ_BYTES_MAX: usize = 256 << 10;

/// Which packets are captured.
#[derive(Debug, Clone, Default)]
pub struct CaptureRequest {
    /// The names of the interfaces; none for all interfaces, also those that appear later.
    pub interfaces: Vec<String>,
    /// A program of classic BPF, as `SO_ATTACH_FILTER` takes it; empty for all packets.
    pub filter: Vec<u8>,
    /// Lengths, directions and limits.
    pub options: CaptureOptions,
    /// The network namespace of the interfaces; `None` for that of the broker.
    pub netns: Option<Netns>,
}

impl CaptureRequest {
    /// All packets of an interface.
    pub fn on(interface: impl Into<String>) -> Self {
        Self { interfaces: vec![interface.into()], ..Self::default() }
    }
}

/// A packet of a capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedPacket {
    /// When the kernel received or sent it, in nanoseconds since 1970.
    pub time: u64,
    /// The captured bytes.
    pub data: Vec<u8>,
    /// The length on the wire.
    pub length: u32,
    /// The name of the interface.
    pub interface: String,
    /// What the bytes begin with: `LINKTYPE_` of tcpdump.org.
    pub link_type: u16,
    /// Whether this host sent it; `None` if this is not known.
    pub is_outgoing: Option<bool>,
    /// How many packets were lost since the packet before it on this interface.
    pub dropped: u64,
}

/// Finds packets in the bytes of a stream.
#[derive(Debug, Default)]
pub(crate) struct PacketReader {
    decoder: Decoder,
    buffer: Vec<u8>,
    start: usize,
    /// The names of the interfaces by their numbers.
    interfaces: Vec<String>,
}

impl PacketReader {
    /// The most bytes of one read.
    pub(crate) const PART: usize = 64 << 10;

    /// Appends bytes of the stream.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.buffer.drain(..std::mem::take(&mut self.start));
        self.buffer.extend_from_slice(bytes);
    }

    /// Checks that the stream can end here.
    pub(crate) fn end(&self) -> Result<()> {
        if self.start == self.buffer.len() {
            return Ok(());
        }
        Err(Error::protocol("the stream of a capture ends within a block: it was not read in time"))
    }

    /// The next packet that is complete.
    pub(crate) fn next(&mut self) -> Result<Option<CapturedPacket>> {
        loop {
            let input = self.buffer.get(self.start..).unwrap_or_default();
            let required = self.decoder.required(input).map_err(Error::protocol)?;
            if input.len() < required {
                return Ok(None);
            }
            let (block, length) = self.decoder.decode(input).map_err(Error::protocol)?;
            self.start += length;
            match block {
                Block::Section(_) => self.interfaces.clear(),
                Block::Interface(interface) => {
                    let name = interface.name.unwrap_or_default();
                    self.interfaces.push(String::from_utf8_lossy(name).into_owned());
                }
                Block::Packet(packet) => {
                    let number = usize::try_from(packet.interface).unwrap_or(usize::MAX);
                    let direction = packet.flags.map(PacketFlags::direction);
                    return Ok(Some(CapturedPacket {
                        time: packet.time.unwrap_or_default(),
                        data: packet.data.to_vec(),
                        length: packet.length,
                        interface: self.interfaces.get(number).cloned().unwrap_or_default(),
                        link_type: packet.link_type.0,
                        is_outgoing: direction.and_then(|direction| match direction {
                            Direction::Unknown => None,
                            Direction::Inbound => Some(false),
                            Direction::Outbound => Some(true),
                        }),
                        dropped: packet.dropped.unwrap_or_default(),
                    }));
                }
                Block::Statistics(_) | Block::Other { .. } => {}
            }
        }
    }
}
