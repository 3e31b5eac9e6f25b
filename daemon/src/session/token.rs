//! The secret that lets further connections attach to a session.

use std::fmt;

use crate::error::{OpError, OpResult};

/// A session's number and 256 random bits; `Debug` does not show the bits.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    session: u64,
    secret: [u8; 32],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(session {})", self.session)
    }
}

impl Token {
    /// A new token, from the kernel's random numbers.
    pub fn new(session: u64) -> OpResult<Self> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)
            .map_err(|error| OpError::Plain(format!("getrandom: {error}")))?;
        Ok(Self { session, secret })
    }

    /// The session's number.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// The wire form: number and bits in hexadecimal, with a dot between.
    pub fn text(&self) -> String {
        let mut text = format!("{:x}.", self.session);
        for byte in self.secret {
            for digit in [byte >> 4, byte & 15] {
                text.extend(char::from_digit(digit.into(), 16));
            }
        }
        text
    }

    /// Reads the wire form.
    pub fn parse(text: &str) -> Option<Self> {
        let (session, bits) = text.split_once('.')?;
        let session = u64::from_str_radix(session, 16).ok()?;
        if bits.len() != 64 || !bits.is_ascii() {
            return None;
        }
        let mut secret = [0; 32];
        for (index, byte) in secret.iter_mut().enumerate() {
            *byte = u8::from_str_radix(bits.get(index * 2..index * 2 + 2)?, 16).ok()?;
        }
        Some(Self { session, secret })
    }

    /// Whether both are the same, in a time that does not depend on where they differ.
    pub fn matches(&self, other: &Self) -> bool {
        let pairs = self.secret.iter().zip(&other.secret);
        let difference = pairs.fold(0, |sum, (left, right)| sum | (left ^ right));
        std::hint::black_box(difference) == 0 && self.session == other.session
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_is_read_back_and_forgeries_are_not() {
        let token = Token::new(11).unwrap();
        assert!(Token::parse(&token.text()).unwrap().matches(&token));
        assert!(!Token::new(11).unwrap().matches(&token));
        for text in ["", "b.", "b.00", "x.00", &token.text()[1..], &token.text().replace('.', "")] {
            assert_eq!(Token::parse(text), None, "{text}");
        }
        assert!(!format!("{token:?}").contains(&token.text()[2..10]));
    }
}
