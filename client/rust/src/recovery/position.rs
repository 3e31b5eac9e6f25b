//! The position of a TCP stream, as the kernel counts it (`tcp_info` of `linux/tcp.h`).

use crate::error::{Error, Result};

/// The offsets of fields of `struct tcp_info`.
const BYTES_ACKED: usize = 120;
const BYTES_RECEIVED: usize = 128;
/// The length of the structure up to the end of these fields, in bytes.
pub(crate) const INFO_BYTES: usize = 136;

/// States of `net/tcp_states.h`.
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const TIME_WAIT: u8 = 6;
const CLOSE: u8 = 7;
const LAST_ACK: u8 = 9;
const CLOSING: u8 = 11;

/// How many bytes the kernel has taken to send. A connecting socket counts one byte more, which is its SYN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) sent: u64,
    /// Whether one byte more may be counted: the socket is closed, and its history is not known.
    pub(crate) is_closed: bool,
}

impl Position {
    /// From `TCP_INFO` and `SIOCOUTQ`, read at one time.
    pub(crate) fn of(info: &[u8], unsent: u64) -> Result<Self> {
        let [state, ..] = info else { return Err(too_short()) };
        // FIN takes a place in the stream.
        let fin_sent = matches!(*state, FIN_WAIT1 | FIN_WAIT2 | TIME_WAIT | LAST_ACK | CLOSING);
        let sent = field(info, BYTES_ACKED)?.saturating_add(unsent);
        Ok(Self { sent: sent.saturating_sub(u64::from(fin_sent)), is_closed: *state == CLOSE })
    }

    /// Whether nothing was sent, acknowledged or received between two readings of `TCP_INFO`.
    pub(crate) fn is_same(before: &[u8], after: &[u8]) -> Result<bool> {
        let counts =
            |info| Ok::<_, Error>((field(info, BYTES_ACKED)?, field(info, BYTES_RECEIVED)?));
        Ok(before.first() == after.first() && counts(before)? == counts(after)?)
    }
}

fn field(info: &[u8], at: usize) -> Result<u64> {
    let bytes = info.get(at..).and_then(<[u8]>::first_chunk).ok_or_else(too_short)?;
    Ok(u64::from_ne_bytes(*bytes))
}

fn too_short() -> Error {
    Error::protocol("TCP_INFO is too short")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(state: u8, acked: u64, received: u64) -> Vec<u8> {
        let mut info = vec![0; INFO_BYTES];
        info[0] = state;
        info[BYTES_ACKED..BYTES_ACKED + 8].copy_from_slice(&acked.to_ne_bytes());
        info[BYTES_RECEIVED..].copy_from_slice(&received.to_ne_bytes());
        info
    }

    #[test]
    fn fin_is_not_counted_as_data() {
        let established = Position::of(&info(1, 101, 60), 5).unwrap();
        assert_eq!(established, Position { sent: 106, is_closed: false });
        let end_sent = Position::of(&info(FIN_WAIT1, 101, 60), 6).unwrap();
        assert_eq!(end_sent, established);
        assert!(Position::of(&info(1, 1, 1)[..80], 0).is_err());
    }

    #[test]
    fn readings_differ_if_anything_moved() {
        let one = info(1, 5, 6);
        assert_eq!(Position::is_same(&one, &info(1, 5, 6)), Ok(true));
        for other in [info(8, 5, 6), info(1, 6, 6), info(1, 5, 7)] {
            assert_eq!(Position::is_same(&one, &other), Ok(false));
        }
    }
}
