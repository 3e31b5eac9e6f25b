//! Text that precedes the protocol: the start-up files of a login shell can print some.

use crate::error::{Error, Result};

/// The line that `sockbroker dial-stdio` prints before the first byte of the broker.
const MARKER: &str = "sockbroker dial-stdio 1";
/// The beginning of the first message without a marker. Header fields may have any case.
const HEAD: &[u8] = b"content-length:";
/// The most bytes before the protocol.
const BYTES_MAX: usize = 64 << 10;
/// The most characters of the text that an error contains.
const SHOWN_MAX: usize = 200;

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// The protocol begins after this number of bytes.
    Protocol(usize),
    /// More bytes are needed to decide.
    Incomplete,
}

/// Finds the beginning of the protocol. Only a marker can follow other text.
pub(crate) fn scan(bytes: &[u8]) -> Result<Beginning> {
    let mut at = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let is_head = line.len() >= HEAD.len()
            && line.get(..HEAD.len()).is_some_and(|start| start.eq_ignore_ascii_case(HEAD));
        if is_head && at == 0 {
            return Ok(Beginning::Protocol(0));
        }
        if is_head {
            return Err(printed(bytes.get(..at).unwrap_or_default()));
        }
        at += line.len();
        if line.ends_with(b"\n") && line.trim_ascii_end() == MARKER.as_bytes() {
            return Ok(Beginning::Protocol(at));
        }
    }
    if bytes.len() > BYTES_MAX { Err(printed(bytes)) } else { Ok(Beginning::Incomplete) }
}

/// The error for text without a marker, or of a command that ends after it.
pub(crate) fn printed(text: &[u8]) -> Error {
    let text = String::from_utf8_lossy(text);
    let shown: String = text.trim().chars().take(SHOWN_MAX).collect();
    Error::protocol(format!(
        "the command printed {shown:?} before the protocol: a start-up file of the shell can do that, and must not \
         where there is no terminal; or use `sockbroker dial-stdio` as the command, whose clients skip such text"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_begins_at_once_or_after_the_marker() {
        for (text, expected) in [
            ("Content-Length: 2\r\n\r\n{}", Beginning::Protocol(0)),
            ("content-length:", Beginning::Protocol(0)),
            ("sockbroker dial-stdio 1\nContent", Beginning::Protocol(24)),
            ("welcome\nto lab7\r\nsockbroker dial-stdio 1\r\n", Beginning::Protocol(42)),
            ("sockbroker dial-stdio 1", Beginning::Incomplete),
            ("welcome sockbroker dial-stdio 1\n", Beginning::Incomplete),
            ("Content-", Beginning::Incomplete),
            ("", Beginning::Incomplete),
        ] {
            assert_eq!(scan(text.as_bytes()).unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn text_without_a_marker_is_an_error_that_shows_it() {
        let text = "welcome to lab7\nContent-Length: 2\r\n\r\n{}";
        let error = scan(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("printed \"welcome to lab7\" before the protocol"), "{error}");
        let endless = vec![b'x'; BYTES_MAX + 1];
        assert!(scan(&endless[..BYTES_MAX]).is_ok());
        assert!(scan(&endless).unwrap_err().to_string().len() < 600);
    }
}
