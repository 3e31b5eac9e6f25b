//! Texts of packets for the terminal.

use std::fmt::Write as _;

/// The bytes as text. Anything but graphic ASCII and blanks is written as in zone files: a backslash and three digits.
pub(super) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(*byte)]),
            b' '..=b'~' => text.push(char::from(*byte)),
            // Writing to a string does not fail.
            _ => drop(write!(text, "\\{byte:03}")),
        }
    }
    text
}

/// An address of the link layer.
pub(super) fn mac(address: &[u8]) -> String {
    let bytes: Vec<_> = address.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_quotes_are_escaped() {
        assert_eq!(escaped(b"a b\"c\\d\n\x1b\xff"), "a b\\\"c\\\\d\\010\\027\\255");
    }
}
