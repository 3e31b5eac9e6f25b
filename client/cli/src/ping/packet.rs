//! Encodes ICMP echo requests and decodes their replies.

/// Bytes of the header of an ICMP message.
const HEADER: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// ICMP, RFC 792.
    V4,
    /// ICMP for IPv6, RFC 4443.
    V6,
}

/// A received message, as far as it concerns a ping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// A reply to an echo request.
    Reply {
        id: u16,
        /// The sequence number of the request.
        sequence: u16,
        /// Bytes of the message, including the header.
        length: usize,
    },
    /// An error about an echo request.
    Error {
        id: u16,
        /// The sequence number of the request.
        sequence: u16,
        /// The error, in words.
        what: &'static str,
    },
    /// Any other message.
    Other,
}

/// Encodes an echo request with `size` bytes of data. The kernel computes the checksum for IPv6, because it
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

/// Decodes a message from a raw socket or an ICMP datagram socket. Only a raw IPv4 socket receives the IP
/// header too.
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

/// Returns the identifier and the sequence number of an echo message.
fn echo_of(data: &[u8]) -> Option<(u16, u16)> {
    let [_, _, _, _, id_high, id_low, sequence_high, sequence_low] = *data.first_chunk()?;
    let id = u16::from_be_bytes([id_high, id_low]);
    Some((id, u16::from_be_bytes([sequence_high, sequence_low])))
}

/// Returns the echo request that an error message quotes, if it quotes one.
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

/// Returns the data without an IPv4 header. No ICMP message here begins with 0x4_, as that header does.
fn without_ip_header(data: &[u8]) -> &[u8] {
    match data.first() {
        Some(first) if first >> 4 == 4 => {
            data.get(usize::from(first & 0xF) * 4..).unwrap_or_default()
        }
        _ => data,
    }
}

/// The Internet checksum (RFC 1071).
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
    fn checksum_matches_rfc_1071() {
        // The example of RFC 1071, section 3: the sum is ddf2.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        // A packet that includes its checksum has the checksum 0.
        for size in [0, 1, 56, 65_000] {
            assert_eq!(checksum(&request(Version::V4, 7, 9, size)), 0, "{size}");
        }
    }

    #[test]
    fn replies_are_decoded_with_and_without_the_ip_header() {
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
    fn errors_are_reported_only_about_echo_requests() {
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
    fn requests_and_invalid_bytes_are_ignored() {
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
