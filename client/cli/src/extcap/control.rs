//! The messages between Wireshark's toolbar and the program, through two FIFOs.
//!
//! A message is `T`, a length of three bytes in network order, the number of a control, a command, and a payload. The
//! length counts what follows it.

use std::io::{self, Read, Write};

use sockbroker_filter::MAX_EXPRESSION_BYTES;

/// The numbers of the controls.
pub(super) const INTERFACE: u8 = 0;
pub(super) const FILTER: u8 = 1;
pub(super) const LOG: u8 = 2;
/// The number in messages that are about no control.
pub(super) const NONE: u8 = 255;

/// The commands, of those that `extcap-base` of Wireshark numbers.
pub(super) const INITIALIZED: u8 = 0;
pub(super) const SET: u8 = 1;
pub(super) const ADD: u8 = 2;
pub(super) const STATUS: u8 = 6;
pub(super) const ERROR: u8 = 9;

/// The byte that each message begins with.
const SYNC: u8 = b'T';
/// The most bytes of a payload. A filter expression is the longest.
const PAYLOAD_BYTES_MAX: usize = MAX_EXPRESSION_BYTES;
/// The bytes of the number and the command, which the length counts too.
const FIELDS: usize = 2;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) control: u8,
    pub(super) command: u8,
    pub(super) payload: Vec<u8>,
}

/// Reads a message; `None` at the end of the input.
pub(super) fn read(input: &mut impl Read) -> io::Result<Option<Message>> {
    let mut header = [0; 4];
    let first = header.first_chunk_mut::<1>().map_or(&mut [][..], |first| first);
    loop {
        match input.read(first) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut rest = [0; 3];
    input.read_exact(&mut rest)?;
    let [sync, ..] = header;
    if sync != SYNC {
        return Err(invalid(format!("a message begins with the byte {sync}, not with T")));
    }
    let [high, middle, low] = rest;
    let length = u32::from_be_bytes([0, high, middle, low]) as usize;
    if !(FIELDS..=FIELDS + PAYLOAD_BYTES_MAX).contains(&length) {
        return Err(invalid(format!(
            "a message has {length} bytes, the limit is {}",
            FIELDS + PAYLOAD_BYTES_MAX
        )));
    }
    let mut fields = [0; FIELDS];
    input.read_exact(&mut fields)?;
    let [control, command] = fields;
    let mut payload = vec![0; length - FIELDS];
    input.read_exact(&mut payload)?;
    Ok(Some(Message { control, command, payload }))
}

/// Writes a message. A payload that is too long is cut.
pub(super) fn write(
    output: &mut impl Write,
    control: u8,
    command: u8,
    payload: &[u8],
) -> io::Result<()> {
    let payload = payload.get(..PAYLOAD_BYTES_MAX).unwrap_or(payload);
    let length = u32::try_from(payload.len() + FIELDS).unwrap_or_default();
    let [_, high, middle, low] = length.to_be_bytes();
    let header = [SYNC, high, middle, low, control, command];
    // One write, so that Wireshark never waits within a message.
    output.write_all(&[&header, payload].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_were_written() {
        let mut bytes = Vec::new();
        write(&mut bytes, FILTER, SET, b"udp").unwrap();
        assert_eq!(bytes, b"T\0\0\x05\x01\x01udp");
        write(&mut bytes, NONE, INITIALIZED, b"").unwrap();
        let mut input = &bytes[..];
        let message = |control, command, payload: &[u8]| {
            Some(Message { control, command, payload: payload.to_vec() })
        };
        assert_eq!(read(&mut input).unwrap(), message(FILTER, SET, b"udp"));
        assert_eq!(read(&mut input).unwrap(), message(NONE, INITIALIZED, b""));
        assert_eq!(read(&mut input).unwrap(), None);
    }

    #[test]
    fn wrong_and_too_long_messages_are_refused() {
        let fault = |mut bytes: &[u8]| read(&mut bytes).unwrap_err().to_string();
        assert!(fault(b"X\0\0\x02\0\0").contains("not with T"));
        assert!(fault(b"T\0\0\x01\0\0").contains("has 1 bytes"));
        assert!(fault(b"T\x01\0\x03\0\0").contains("has 65539 bytes, the limit is 65538"));
        assert_eq!(
            read(&mut &b"T\0\0\x05\0\x01ud"[..]).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        let mut longest = b"T\x01\0\x02\0\x01".to_vec();
        longest.resize(6 + PAYLOAD_BYTES_MAX, b'x');
        assert_eq!(read(&mut &longest[..]).unwrap().unwrap().payload.len(), PAYLOAD_BYTES_MAX);
        let mut cut = Vec::new();
        write(&mut cut, LOG, ADD, &vec![b'x'; PAYLOAD_BYTES_MAX + 1]).unwrap();
        assert_eq!(cut.len(), longest.len());
    }
}
