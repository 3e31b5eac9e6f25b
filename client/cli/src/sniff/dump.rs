//! The bytes of a packet, as tcpdump prints them.

use std::fmt::Write as _;

/// Bytes of a line.
const LINE: usize = 16;
/// Letters of the hexadecimal numbers of a line.
const WIDTH: usize = 40;

/// Which bytes of a packet are printed, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dump {
    /// In hexadecimal and ASCII.
    Hexadecimal {
        /// Whether the header of the link layer is printed too.
        whole: bool,
    },
    /// In hexadecimal.
    Plain {
        /// Whether the header of the link layer is printed too.
        whole: bool,
    },
    /// As text.
    Text {
        /// Whether the header of the link layer is printed too.
        whole: bool,
    },
}

impl Dump {
    /// Whether the header of the link layer is printed too.
    pub(super) fn is_whole(self) -> bool {
        match self {
            Self::Hexadecimal { whole } | Self::Plain { whole } | Self::Text { whole } => whole,
        }
    }

    /// Formats bytes. The result begins with a new line, unless it is empty.
    pub(super) fn format(self, bytes: &[u8]) -> String {
        match self {
            _ if bytes.is_empty() => String::new(),
            Self::Hexadecimal { .. } => hexadecimal(bytes, true),
            Self::Plain { .. } => hexadecimal(bytes, false),
            Self::Text { .. } => text(bytes),
        }
    }
}

fn hexadecimal(bytes: &[u8], with_ascii: bool) -> String {
    let mut lines = String::new();
    for (number, line) in bytes.chunks(LINE).enumerate() {
        let mut numbers = String::new();
        for pair in line.chunks(2) {
            numbers.push(' ');
            for byte in pair {
                // Writing to a string cannot fail.
                write!(numbers, "{byte:02x}").unwrap_or_default();
            }
        }
        let offset = number.saturating_mul(LINE);
        if !with_ascii {
            write!(lines, "\n\t0x{offset:04x}: {numbers}").unwrap_or_default();
            continue;
        }
        let ascii: String = line.iter().map(|byte| graphic(*byte)).collect();
        write!(lines, "\n\t0x{offset:04x}: {numbers:WIDTH$}  {ascii}").unwrap_or_default();
    }
    lines
}

fn text(bytes: &[u8]) -> String {
    let shown = bytes.iter().filter(|byte| **byte != b'\r').map(|byte| match byte {
        b'\n' | b'\t' | b' ' => char::from(*byte),
        other => graphic(*other),
    });
    std::iter::once('\n').chain(shown).collect()
}

fn graphic(byte: u8) -> char {
    if byte.is_ascii_graphic() { char::from(byte) } else { '.' }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_printed_as_tcpdump_prints_them() {
        let bytes: Vec<u8> = (0x2F..0x42).collect();
        let expected = "\n\t0x0000:  2f30 3132 3334 3536 3738 393a 3b3c 3d3e  /0123456789:;<=>\
                        \n\t0x0010:  3f40 41                                  ?@A";
        assert_eq!(Dump::Hexadecimal { whole: false }.format(&bytes), expected);
        let expected = "\n\t0x0000:  2f30 3132 3334 3536 3738 393a 3b3c 3d3e\n\t0x0010:  3f40 41";
        assert_eq!(Dump::Plain { whole: true }.format(&bytes), expected);
        let text = Dump::Text { whole: true };
        assert_eq!(text.format(b"GET /\r\n\tx \x1b[2J\xff"), "\nGET /\n\tx .[2J.");
        assert_eq!(text.format(b""), "");
    }
}
