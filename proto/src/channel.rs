//! The codec of channels: the frames of `Upgrade: sockbroker-channel`, over byte slices.
//!
//! A channel carries the data of one socket on a connection of its own. Each frame begins with four bytes: its kind,
//! and the length of what follows as three bytes, most significant first. All numbers are in this order.
//!
//! | kind | payload |
//! |---|---|
//! | 0 data | bytes of a stream |
//! | 1 end | nothing: the sender sends no further data |
//! | 2 reset | error number as two bytes, then the reason in UTF-8; the channel has ended |
//! | 3 datagram | length of an address as two bytes, the address as JSON or nothing, then the datagram |
//! | 4 urgent | one byte of out-of-band data |
//! | 5 dropped | eight bytes: how many datagrams the kernel has dropped since the last such frame |
//! | 6 close | nothing: the handle of the socket is closed after everything that was sent before |

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// The value of the field `Upgrade` for a channel of frames.
pub const FRAMES: &str = "sockbroker-channel";
/// The value of the field `Upgrade` for a channel of plain bytes.
pub const RAW: &str = "sockbroker-raw";
/// The path of a channel is this, followed by its token.
pub const PATH: &str = "/channel/";
/// The length of what precedes the payload of a frame, in bytes.
pub const HEAD_BYTES: usize = 4;
/// The most bytes of one data frame, and of one datagram.
pub const DATA_MAX: usize = 65_536;
/// The most bytes of the JSON of an address.
pub const ADDRESS_MAX: usize = 1024;
/// The most bytes of a reason.
pub const REASON_MAX: usize = 1024;

/// The most bytes of a payload: those of a datagram with its address.
const PAYLOAD_MAX: usize = 2 + ADDRESS_MAX + DATA_MAX;

/// A frame of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelFrame<'a> {
    /// Bytes of a stream: at least one.
    Data(&'a [u8]),
    /// The sender sends no further data.
    End,
    /// The channel has ended with an error.
    Reset {
        /// The error number; 0 if no system call failed.
        errno: u16,
        /// Why, for people.
        reason: &'a str,
    },
    /// A datagram.
    Datagram {
        /// Its sender or destination as the JSON of an address; empty for none.
        address: &'a str,
        /// Its data.
        data: &'a [u8],
    },
    /// One byte of out-of-band data.
    Urgent(u8),
    /// How many datagrams the kernel has dropped since the last such frame.
    Dropped(u64),
    /// The handle is closed after everything that was sent before.
    Close,
}

/// Bytes that are not a frame, or a value that does not fit into one. The channel ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// The kind is unknown.
    #[error("a channel frame has the unknown kind {0}")]
    Kind(u8),
    /// The payload is not one of this kind.
    #[error("a channel frame of kind {kind} has an invalid payload of {length} bytes")]
    Payload {
        /// The kind.
        kind: u8,
        /// The length of the payload in bytes.
        length: usize,
    },
}

/// Reads the frame at the start of `bytes`: the frame and its length, or `None` until it is complete.
pub fn read_frame(bytes: &[u8]) -> Result<Option<(ChannelFrame<'_>, usize)>, ChannelError> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
        return Ok(None);
    };
    let [kind, high, middle, low] = *head;
    let length = u32::from_be_bytes([0, high, middle, low]);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let wrong = ChannelError::Payload { kind, length };
    let fits = match kind {
        0 => (1..=DATA_MAX).contains(&length),
        1 | 6 => length == 0,
        2 => (2..=2 + REASON_MAX).contains(&length),
        3 => (2..=PAYLOAD_MAX).contains(&length),
        4 => length == 1,
        5 => length == 8,
        _ => return Err(ChannelError::Kind(kind)),
    };
    if !fits {
        return Err(wrong);
    }
    let Some(payload) = rest.get(..length) else { return Ok(None) };
    let frame = frame_of(kind, payload).ok_or(wrong)?;
    Ok(Some((frame, HEAD_BYTES.saturating_add(length))))
}

fn frame_of(kind: u8, payload: &[u8]) -> Option<ChannelFrame<'_>> {
    Some(match kind {
        0 => ChannelFrame::Data(payload),
        1 => ChannelFrame::End,
        2 => {
            let (errno, reason) = payload.split_first_chunk()?;
            let reason = str::from_utf8(reason).ok()?;
            ChannelFrame::Reset { errno: u16::from_be_bytes(*errno), reason }
        }
        3 => {
            let (length, rest) = payload.split_first_chunk()?;
            let length = usize::from(u16::from_be_bytes(*length));
            let (address, data) = rest.split_at_checked(length)?;
            if address.len() > ADDRESS_MAX || data.len() > DATA_MAX {
                return None;
            }
            ChannelFrame::Datagram { address: str::from_utf8(address).ok()?, data }
        }
        4 => ChannelFrame::Urgent(*payload.first()?),
        5 => ChannelFrame::Dropped(u64::from_be_bytes(payload.try_into().ok()?)),
        _ => ChannelFrame::Close,
    })
}

/// Appends a frame. Fails, and appends nothing, if a part of it is longer than its limit.
pub fn write_frame(out: &mut Vec<u8>, frame: ChannelFrame<'_>) -> Result<(), ChannelError> {
    match frame {
        ChannelFrame::Data(data) if (1..=DATA_MAX).contains(&data.len()) => append(out, 0, &[data]),
        ChannelFrame::Data(data) => Err(ChannelError::Payload { kind: 0, length: data.len() }),
        ChannelFrame::End => append(out, 1, &[]),
        ChannelFrame::Reset { errno, reason } if reason.len() <= REASON_MAX => {
            append(out, 2, &[&errno.to_be_bytes(), reason.as_bytes()])
        }
        ChannelFrame::Reset { reason, .. } => {
            Err(ChannelError::Payload { kind: 2, length: reason.len() })
        }
        ChannelFrame::Datagram { address, data } => {
            let wrong = ChannelError::Payload { kind: 3, length: data.len() };
            let length = u16::try_from(address.len()).map_err(|_error| wrong)?;
            if address.len() > ADDRESS_MAX || data.len() > DATA_MAX {
                return Err(wrong);
            }
            append(out, 3, &[&length.to_be_bytes(), address.as_bytes(), data])
        }
        ChannelFrame::Urgent(byte) => append(out, 4, &[&[byte]]),
        ChannelFrame::Dropped(count) => append(out, 5, &[&count.to_be_bytes()]),
        ChannelFrame::Close => append(out, 6, &[]),
    }
}

/// Appends the head of a data frame whose payload of this length follows.
pub fn write_data_head(out: &mut Vec<u8>, length: usize) -> Result<(), ChannelError> {
    if !(1..=DATA_MAX).contains(&length) {
        return Err(ChannelError::Payload { kind: 0, length });
    }
    append_head(out, 0, length)
}

fn append(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) -> Result<(), ChannelError> {
    let length = parts.iter().fold(0_usize, |sum, part| sum.saturating_add(part.len()));
    append_head(out, kind, length)?;
    for part in parts {
        out.extend_from_slice(part);
    }
    Ok(())
}

fn append_head(out: &mut Vec<u8>, kind: u8, length: usize) -> Result<(), ChannelError> {
    let wrong = ChannelError::Payload { kind, length };
    let [0, high, middle, low] = u32::try_from(length).map_err(|_error| wrong)?.to_be_bytes()
    else {
        return Err(wrong);
    };
    out.extend_from_slice(&[kind, high, middle, low]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(frame: ChannelFrame<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        write_frame(&mut out, frame).unwrap();
        out
    }

    #[test]
    fn frames_have_these_bytes() {
        let cases: [(ChannelFrame<'_>, &[u8]); 8] = [
            (ChannelFrame::Data(b"hi"), b"\x00\x00\x00\x02hi"),
            (ChannelFrame::End, b"\x01\x00\x00\x00"),
            (ChannelFrame::Reset { errno: 104, reason: "r" }, b"\x02\x00\x00\x03\x00\x68r"),
            (
                ChannelFrame::Datagram { address: "[1]", data: b"d" },
                b"\x03\x00\x00\x06\x00\x03[1]d",
            ),
            (ChannelFrame::Datagram { address: "", data: b"" }, b"\x03\x00\x00\x02\x00\x00"),
            (ChannelFrame::Urgent(7), b"\x04\x00\x00\x01\x07"),
            (ChannelFrame::Dropped(258), b"\x05\x00\x00\x08\0\0\0\0\0\0\x01\x02"),
            (ChannelFrame::Close, b"\x06\x00\x00\x00"),
        ];
        for (frame, bytes) in cases {
            assert_eq!(written(frame), bytes, "{frame:?}");
            let longer = [bytes, b"rest"].concat();
            assert_eq!(read_frame(&longer), Ok(Some((frame, bytes.len()))));
            for cut in 0..bytes.len() {
                let (part, _) = bytes.split_at(cut);
                assert_eq!(read_frame(part), Ok(None), "{frame:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn payloads_at_their_limits_pass_and_longer_ones_are_refused() {
        let (data, address, reason) =
            (vec![1; DATA_MAX + 1], "a".repeat(ADDRESS_MAX + 1), "r".repeat(REASON_MAX + 1));
        let largest_data = data.split_first().unwrap().1;
        let mut out = Vec::new();
        let largest = [
            ChannelFrame::Data(largest_data),
            ChannelFrame::Datagram { address: &address[1..], data: largest_data },
            ChannelFrame::Reset { errno: 1, reason: &reason[1..] },
        ];
        for frame in largest {
            let bytes = written(frame);
            assert_eq!(read_frame(&bytes), Ok(Some((frame, bytes.len()))));
        }
        let larger = [
            ChannelFrame::Data(&data),
            ChannelFrame::Data(b""),
            ChannelFrame::Datagram { address: &address, data: b"" },
            ChannelFrame::Datagram { address: "", data: &data },
            ChannelFrame::Reset { errno: 1, reason: &reason },
        ];
        for frame in larger {
            assert!(write_frame(&mut out, frame).is_err() && out.is_empty());
        }
        assert!(write_data_head(&mut out, 0).is_err() && out.is_empty());
        assert!(write_data_head(&mut out, DATA_MAX + 1).is_err() && out.is_empty());
        write_data_head(&mut out, 3).unwrap();
        assert_eq!(out, b"\x00\x00\x00\x03");
    }

    #[test]
    fn invalid_frames_are_refused_before_their_payload_has_arrived() {
        for head in [
            [0, 0, 0, 0],
            [0, 1, 0, 1],
            [1, 0, 0, 1],
            [2, 0, 0, 1],
            [2, 0, 4, 3],
            [3, 0, 0, 1],
            [3, 255, 255, 255],
            [4, 0, 0, 2],
            [5, 0, 0, 7],
            [6, 0, 0, 1],
        ] {
            let error = read_frame(&head).unwrap_err();
            assert!(matches!(error, ChannelError::Payload { kind, .. } if kind == head[0]));
        }
        assert_eq!(read_frame(&[7, 0, 0, 0]), Err(ChannelError::Kind(7)));
        // An address that is longer than its frame, and text that is not UTF-8.
        assert!(read_frame(b"\x03\x00\x00\x02\x00\x01").is_err());
        assert!(read_frame(b"\x03\x00\x00\x03\x00\x01\xff").is_err());
        assert!(read_frame(b"\x02\x00\x00\x03\x00\x01\xff").is_err());
    }
}
