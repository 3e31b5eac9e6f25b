//! Writes pcap with times in nanoseconds.

use crate::link_type::LinkType;
use crate::number::PCAP_NANOSECONDS;
use crate::writer::WriteError;

/// The length of the header of each packet.
const RECORD_HEADER: usize = 16;

/// Writes packets of one link type. Times are nanoseconds since 1970.
#[derive(Debug)]
pub struct PcapWriter {
    snaplen: u32,
}

impl PcapWriter {
    /// Appends the header of a file. `snaplen` is the most bytes of a packet that are captured, including VLAN tags that
    /// are inserted after the capture: libpcap cuts longer packets.
    pub fn begin(link_type: LinkType, snaplen: u32, output: &mut Vec<u8>) -> Self {
        output.extend_from_slice(&PCAP_NANOSECONDS.to_le_bytes());
        // Version 2.4.
        output.extend_from_slice(&2u16.to_le_bytes());
        output.extend_from_slice(&4u16.to_le_bytes());
        // Two reserved fields.
        output.extend_from_slice(&[0; 8]);
        output.extend_from_slice(&snaplen.to_le_bytes());
        output.extend_from_slice(&u32::from(link_type.0).to_le_bytes());
        Self { snaplen }
    }

    /// Appends a packet. `data` are the captured bytes, in parts that are joined, and `length` is the length on the
    /// wire. It allocates only if the capacity of the buffer is not sufficient. If it fails, it has appended nothing.
    pub fn packet(
        &self,
        time: u64,
        data: &[&[u8]],
        length: u32,
        output: &mut Vec<u8>,
    ) -> Result<(), WriteError> {
        let captured = data.iter().fold(0usize, |sum, part| sum.saturating_add(part.len()));
        let Some(captured_bytes) = u32::try_from(captured).ok().filter(|bytes| *bytes <= length)
        else {
            return Err(WriteError::LongerThanPacket { captured, length });
        };
        if captured_bytes > self.snaplen {
            return Err(WriteError::LongerThanSnaplen { captured, snaplen: self.snaplen });
        }
        let (seconds, nanoseconds) = (time / 1_000_000_000, time % 1_000_000_000);
        let Some(seconds) = u32::try_from(seconds).ok() else {
            return Err(WriteError::TimeOutOfRange { seconds });
        };
        let nanoseconds = u32::try_from(nanoseconds).unwrap_or_default();
        output.reserve(captured.saturating_add(RECORD_HEADER));
        for field in [seconds, nanoseconds, captured_bytes, length] {
            output.extend_from_slice(&field.to_le_bytes());
        }
        for part in data {
            output.extend_from_slice(part);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_has_a_header_and_a_record_for_each_packet() {
        let mut bytes = Vec::new();
        let writer = PcapWriter::begin(LinkType::ETHERNET, 100, &mut bytes);
        writer.packet(5_000_000_007, &[b"ab", b"", b"cde"], 60, &mut bytes).unwrap();
        let words: Vec<u32> = bytes[..40]
            .chunks(4)
            .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
            .collect();
        assert_eq!(words, [0xA1B2_3C4D, 0x4_0002, 0, 0, 100, 1, 5, 7, 5, 60]);
        assert_eq!(bytes[40..], *b"abcde");
    }

    #[test]
    fn what_pcap_cannot_express_is_refused_and_appends_nothing() {
        let mut bytes = Vec::new();
        let writer = PcapWriter::begin(LinkType::RAW, 4, &mut bytes);
        let header = bytes.clone();
        let after_2106 = (u64::from(u32::MAX) + 1) * 1_000_000_000;
        let mut refused = |time, data: &[u8], length| {
            writer.packet(time, &[data], length, &mut bytes).unwrap_err()
        };
        assert_eq!(
            refused(0, b"abcde", 9),
            WriteError::LongerThanSnaplen { captured: 5, snaplen: 4 }
        );
        assert_eq!(refused(0, b"abc", 2), WriteError::LongerThanPacket { captured: 3, length: 2 });
        assert_eq!(refused(after_2106, b"abc", 3), WriteError::TimeOutOfRange { seconds: 1 << 32 });
        assert_eq!(bytes, header);
        writer.packet(after_2106 - 1, &[b"abcd"], 4, &mut bytes).unwrap();
    }
}
