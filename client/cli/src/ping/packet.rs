//! ICMP echo: requests as bytes, and replies read from them.

/// Where the echo's identifier stands, after type, code and checksum.
const HEADER: usize = 8;

/// A version of ICMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// RFC 792.
    V4,
    /// RFC 4443.
    V6,
}

/// What a received message is to a ping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// A reply to an echo request.
    Reply {
        /// The identifier of the request.
        id: u16,
        /// Its number.
        sequence: u16,
        /// Bytes of the message, header included.
        length: usize,
    },
    /// An error about an echo request of ours.
    Error {
        /// The identifier of the request.
        id: u16,
        /// Its number.
        sequence: u16,
        /// What is wrong, in words.
        what: &'static str,
    },
    /// Nothing of interest.
    Other,
}

/// An echo request with so many bytes of data. The checksum of IPv6's is left to the kernel, which
/// knows the addresses.
pub(crate) fn request(version: Version, id: u16, sequence: u16, size: usize) -> Vec<u8> {
    let kind = match version {
        Version::V4 => 8,
        Version::V6 => 128,
    };
    let mut packet = vec![kind, 0, 0, 0];
    packet.extend(id.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend((0..=u8::MAX).cycle().take(size));
    if version == Version::V4 {
        let sum = checksum(&packet).to_be_bytes();
        for (slot, byte) in packet.iter_mut().skip(2).zip(sum) {
            *slot = byte;
        }
    }
    packet
}

/// Reads what a raw socket or an ICMP datagram socket received. Only the former has an IPv4 header
/// in front.
pub(crate) fn read(version: Version, data: &[u8]) -> Message {
    let data = match version {
        Version::V4 => without_ip_header(data),
        Version::V6 => data,
    };
    let (Some([kind, code]), Some((id, sequence))) = (data.first_chunk(), echo_of(data)) else {
        return Message::Other;
    };
    let is_reply = matches!((version, kind), (Version::V4, 0) | (Version::V6, 129));
    if is_reply {
        return Message::Reply { id, sequence, length: data.len() };
    }
    let what = match (version, kind, code) {
        (Version::V4, 3, 0) | (Version::V6, 1, 0) => "destination network unreachable",
        (Version::V4, 3, 1) | (Version::V6, 1, 3) => "destination host unreachable",
        (Version::V4, 3, 9..=13) | (Version::V6, 1, 1) => "communication is prohibited",
        (Version::V4, 3, 4) | (Version::V6, 2, _) => "packet too big",
        (Version::V4, 3, _) | (Version::V6, 1, _) => "destination unreachable",
        (Version::V4, 11, _) | (Version::V6, 3, _) => "time to live exceeded",
        _ => return Message::Other,
    };
    match quoted(version, data).and_then(echo_of) {
        Some((id, sequence)) => Message::Error { id, sequence, what },
        None => Message::Other,
    }
}

/// Identifier and number of an echo.
fn echo_of(data: &[u8]) -> Option<(u16, u16)> {
    let [_, _, _, _, id_high, id_low, sequence_high, sequence_low] = *data.first_chunk()?;
    let id = u16::from_be_bytes([id_high, id_low]);
    Some((id, u16::from_be_bytes([sequence_high, sequence_low])))
}

/// The echo request that an error quotes, if it is one.
fn quoted(version: Version, data: &[u8]) -> Option<&[u8]> {
    let packet = data.get(HEADER..)?;
    let (protocol, inner, request) = match version {
        Version::V4 => (*packet.get(9)?, without_ip_header(packet), 8),
        Version::V6 => (*packet.get(6)?, packet.get(40..)?, 128),
    };
    let expected = match version {
        Version::V4 => 1,
        Version::V6 => 58,
    };
    (protocol == expected && inner.first() == Some(&request)).then_some(inner)
}

/// No echo reply begins with 0x4_: that is an IPv4 header.
fn without_ip_header(data: &[u8]) -> &[u8] {
    match data.first() {
        Some(first) if first >> 4 == 4 => {
            data.get(usize::from(first & 0xF) * 4..).unwrap_or_default()
        }
        _ => data,
    }
}

/// The checksum of the internet (RFC 1071).
fn checksum(data: &[u8]) -> u16 {
    let words = data.chunks(2).map(|pair| {
        let high = pair.first().copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([high, pair.get(1).copied().unwrap_or(0)]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_rfc() {
        // The example of RFC 1071, section 3: the sum is ddf2.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        // With its checksum in place a packet sums up to nothing.
        for size in [0, 1, 56, 65_000] {
            assert_eq!(checksum(&request(Version::V4, 7, 9, size)), 0, "{size}");
        }
    }

    #[test]
    fn replies_are_read_with_and_without_the_ip_header() {
        let mut reply = request(Version::V4, 0x1234, 5, 4);
        reply[0] = 0;
        let expected = Message::Reply { id: 0x1234, sequence: 5, length: 12 };
        assert_eq!(read(Version::V4, &reply), expected);
        let raw = [&[0x46; 24][..], &reply].concat();
        assert_eq!(read(Version::V4, &raw), expected);
        let mut reply = request(Version::V6, 0x1234, 5, 4);
        reply[0] = 129;
        assert_eq!(read(Version::V6, &reply), expected);
    }

    #[test]
    fn errors_are_those_about_requests() {
        let request = request(Version::V4, 7, 8, 0);
        let mut ip = vec![0x45; 20];
        ip[9] = 1;
        let error = [&[11, 0, 0, 0, 0, 0, 0, 0][..], &ip, &request].concat();
        let expected = Message::Error { id: 7, sequence: 8, what: "time to live exceeded" };
        assert_eq!(read(Version::V4, &error), expected);
        ip[9] = 17;
        let error = [&[11, 0, 0, 0, 0, 0, 0, 0][..], &ip, &request].concat();
        assert_eq!(read(Version::V4, &error), Message::Other);
    }

    #[test]
    fn requests_and_rubbish_are_of_no_interest() {
        for version in [Version::V4, Version::V6] {
            assert_eq!(read(version, &request(version, 1, 2, 3)), Message::Other);
            for length in 0..60 {
                for first in [0, 3, 11, 0x45, 0x4F, 1, 129] {
                    let mut data = vec![0xFF; length];
                    data.iter_mut().take(1).for_each(|byte| *byte = first);
                    let _message = read(version, &data);
                }
            }
        }
    }
}
