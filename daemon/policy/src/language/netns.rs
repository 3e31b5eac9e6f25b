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
/// The word for namespaces that a caller passes and owns.
const OWNED: &str = "owned";

/// A network namespace other than the broker's own: `caller`, `owned`, or the name of a file in a folder of namespaces
/// (`ip-netns(8)`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Netns {
    /// That of the caller: of the socket with which it connected to the broker.
    Caller,
    /// One whose descriptor the caller passes, and that belongs to a user namespace which the caller's user made.
    Owned,
    /// The one with this name.
    Named(Arc<str>),
}

impl FromStr for Netns {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            Err(format!(
                "`{}` is not a network namespace: {why}; write \"{CALLER}\", \"{OWNED}\", or a name of `ip netns list`",
                text.escape_debug()
            ))
        };
        match text {
            CALLER => Ok(Self::Caller),
            OWNED => Ok(Self::Owned),
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
            Self::Owned => f.write_str(OWNED),
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
        assert_eq!("owned".parse(), Ok(Netns::Owned));
        assert_eq!([Netns::Caller, Netns::Owned].map(|one| one.to_string()), ["caller", "owned"]);
        for name in ["lab1", "Caller", "a b", "cni-1d4a", "ü"] {
            assert_eq!(name.parse(), Ok(Netns::Named(name.into())));
            assert_eq!(name.parse::<Netns>().unwrap().to_string(), name);
        }
        let long = "x".repeat(256);
        for text in ["", ".", "..", ".lab", "/run/netns/lab1", "a/b", "a\0", &long] {
            let why = text.parse::<Netns>().unwrap_err();
            assert!(why.contains("write \"caller\", \"owned\", or a name"), "{why}");
        }
        assert!(long[1..].parse::<Netns>().is_ok());
    }
}
