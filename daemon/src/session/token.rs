//! Session tokens: the secret with which further connections attach to a session.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

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
    /// A new token of a session.
    pub fn new(session: u64) -> OpResult<Self> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)
            .map_err(|error| OpError::Plain(format!("getrandom: {error}")))?;
        Ok(Self { session, secret })
    }

    pub fn session(&self) -> u64 {
        self.session
    }

    /// The wire form: number and bits in hexadecimal, with a dot between.
    pub fn text(&self) -> String {
        format!("{:x}.{}", self.session, hexadecimal(&self.secret))
    }

    /// Reads the wire form.
    pub fn parse(text: &str) -> Option<Self> {
        let (session, bits) = text.split_once('.')?;
        let session = u64::from_str_radix(session, 16).ok()?;
        Some(Self { session, secret: from_hexadecimal(bits)? })
    }

    /// Whether both are the same, in a time that does not depend on where they differ.
    pub fn matches(&self, other: &Self) -> bool {
        is_same(&self.secret, &other.secret) && self.session == other.session
    }

    /// The hash by which a session knows its token after a restart.
    pub fn hash(&self) -> TokenHash {
        let hash = Sha256::new().chain_update(self.session.to_be_bytes());
        TokenHash(hash.chain_update(self.secret).finalize().into())
    }
}

/// The SHA-256 of a token. A token cannot be made from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenHash({})", hexadecimal(&self.0))
    }
}

impl Serialize for TokenHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hexadecimal(&self.0))
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || serde::de::Error::custom("a token's hash has 64 hexadecimal digits");
        from_hexadecimal(&String::deserialize(deserializer)?).map(Self).ok_or_else(wrong)
    }
}

/// What a session knows of its token.
#[derive(Debug, Clone)]
pub(super) enum KnownToken {
    Whole(Token),
    /// Until a connection attaches with it after a restart.
    Hashed(TokenHash),
}

impl From<Token> for KnownToken {
    fn from(token: Token) -> Self {
        Self::Whole(token)
    }
}

impl KnownToken {
    /// Whether the token is the session's. A token that is accepted is known whole from then on.
    pub(super) fn accepts(&mut self, token: &Token) -> bool {
        match self {
            Self::Whole(own) => own.matches(token),
            Self::Hashed(own) => {
                let same = is_same(&own.0, &token.hash().0);
                if same {
                    *self = Self::Whole(token.clone());
                }
                same
            }
        }
    }

    /// The token, if it is known whole.
    pub(super) fn token(&self) -> Option<&Token> {
        match self {
            Self::Whole(token) => Some(token),
            Self::Hashed(_) => None,
        }
    }

    pub(super) fn hash(&self) -> TokenHash {
        match self {
            Self::Whole(token) => token.hash(),
            Self::Hashed(hash) => *hash,
        }
    }
}

fn is_same(left: &[u8; 32], right: &[u8; 32]) -> bool {
    let difference = left.iter().zip(right).fold(0, |sum, (left, right)| sum | (left ^ right));
    std::hint::black_box(difference) == 0
}

fn hexadecimal(bytes: &[u8; 32]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

fn from_hexadecimal(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_forgeries_are_refused() {
        let token = Token::new(11).unwrap();
        assert!(Token::parse(&token.text()).unwrap().matches(&token));
        assert!(!Token::new(11).unwrap().matches(&token));
        for text in ["", "b.", "b.00", "x.00", &token.text()[1..], &token.text().replace('.', "")] {
            assert_eq!(Token::parse(text), None, "{text}");
        }
        assert!(!format!("{token:?}").contains(&token.text()[2..10]));
    }

    #[test]
    fn hash_accepts_only_its_token_and_then_stores_it() {
        let token = Token::new(11).unwrap();
        let mut known = KnownToken::Hashed(token.hash());
        assert!(!known.accepts(&Token::new(11).unwrap()));
        assert!(known.token().is_none());
        assert!(known.accepts(&token));
        assert!(known.token().unwrap().matches(&token));
        assert_eq!(known.hash(), token.hash());
    }
}
