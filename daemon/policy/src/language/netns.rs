//! Network namespaces as rules and requests name them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error};

use crate::language::value::from_text;

from_text! { Netns }

/// The longest name of a file (`NAME_MAX`).
const NAME_MAX: usize = 255;
/// The word for the namespace of the caller.
const CALLER: &str = "caller";
/// A word that has no meaning yet, and is not taken for a name.
const OWNED: &str = "owned";

/// A network namespace other than the broker's own: `caller`, or the name of a file in a folder of namespaces
/// (`ip-netns(8)`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Netns {
    /// That of the caller: of the socket with which it connected to the broker.
    Caller,
    /// The one with this name.
    Named(Arc<str>),
}

impl FromStr for Netns {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            Err(format!(
                "`{}` is not a network namespace: {why}; write \"{CALLER}\", or a name of `ip netns list`",
                text.escape_debug()
            ))
        };
        match text {
            CALLER => Ok(Self::Caller),
            OWNED => wrong("this word is reserved"),
            "" => wrong("it is empty"),
            _ if text.len() > NAME_MAX => wrong("a name has at most 255 bytes"),
            _ if text.starts_with('.') => wrong("a name does not begin with a dot"),
            _ if text.contains(['/', '\0']) => wrong("a name is not a path"),
            _ => Ok(Self::Named(text.into())),
        }
    }
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caller => f.write_str(CALLER),
            Self::Named(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_part_of_a_path() {
        assert_eq!("caller".parse(), Ok(Netns::Caller));
        for name in ["lab1", "Caller", "a b", "cni-1d4a", "ü"] {
            assert_eq!(name.parse(), Ok(Netns::Named(name.into())));
            assert_eq!(name.parse::<Netns>().unwrap().to_string(), name);
        }
        let long = "x".repeat(256);
        for text in ["", ".", "..", ".lab", "/run/netns/lab1", "a/b", "a\0", "owned", &long] {
            let why = text.parse::<Netns>().unwrap_err();
            assert!(why.contains("write \"caller\", or a name"), "{why}");
        }
        assert!(long[1..].parse::<Netns>().is_ok());
    }
}
