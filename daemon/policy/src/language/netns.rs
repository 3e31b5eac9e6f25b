//! Network namespaces as rules and requests name them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error};

use crate::language::value::from_text;

from_text! { NetnsPattern }

/// The longest name of a file (`NAME_MAX`).
const NAME_MAX: usize = 255;
/// The word for the namespace of the caller.
const CALLER: &str = "caller";
/// The word for namespaces that a caller passes and owns.
const OWNED: &str = "owned";
/// The word of rules for all of these.
const ANY: &str = "any";

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

/// A value of the field `netns` of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetnsPattern {
    /// `any`: that of the caller, those that the caller owns, and all that have names.
    Any,
    /// This one.
    One(Netns),
}

impl Netns {
    /// The namespace that a client selects by a text. It selects one that it owns by its descriptor.
    pub fn of_client(text: &str) -> Result<Self, String> {
        let why = match text {
            OWNED | ANY => "it is a word of rules",
            CALLER => return Ok(Self::Caller),
            name => match named(name) {
                Ok(netns) => return Ok(netns),
                Err(why) => why,
            },
        };
        let text = text.escape_debug();
        Err(format!(
            "netns: `{text}` does not select a network namespace: {why}; write \"{CALLER}\", a name of `ip netns list`, or \
             {{\"descriptor\": n}}"
        ))
    }
}

impl FromStr for Netns {
    type Err = String;

    /// Reads one namespace, as an action in words names it.
    fn from_str(text: &str) -> Result<Self, String> {
        let why = match text {
            CALLER => return Ok(Self::Caller),
            OWNED => return Ok(Self::Owned),
            ANY => "it is the word of rules for all of them",
            name => match named(name) {
                Ok(netns) => return Ok(netns),
                Err(why) => why,
            },
        };
        let text = text.escape_debug();
        Err(format!(
            "`{text}` is not a network namespace: {why}; write \"{CALLER}\", \"{OWNED}\", or a name of `ip netns list`"
        ))
    }
}

impl FromStr for NetnsPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let why = match text {
            ANY => return Ok(Self::Any),
            CALLER => return Ok(Self::One(Netns::Caller)),
            OWNED => return Ok(Self::One(Netns::Owned)),
            name => match named(name) {
                Ok(netns) => return Ok(Self::One(netns)),
                Err(why) => why,
            },
        };
        let text = text.escape_debug();
        Err(format!(
            "`{text}` is not a network namespace: {why}; write \"{CALLER}\", \"{OWNED}\", a name of `ip netns list`, or \
             \"{ANY}\" for all of these"
        ))
    }
}

/// The namespace with a name; or why there is none.
fn named(name: &str) -> Result<Netns, &'static str> {
    match name {
        "" => Err("it is empty"),
        _ if name.len() > NAME_MAX => Err("a name has at most 255 bytes"),
        _ if name.starts_with('.') => Err("a name does not begin with a dot"),
        _ if name.contains('/') => Err("a name is not a path"),
        _ if name.contains(['*', '?']) => Err("a name is not a pattern"),
        _ if name.contains(char::is_control) => Err("a name has no control characters"),
        _ if name.trim() != name => Err("a name does not begin or end with a space"),
        _ => Ok(Netns::Named(name.into())),
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

impl fmt::Display for NetnsPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str(ANY),
            Self::One(netns) => netns.fmt(f),
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
        for name in ["lab1", "Caller", "a b", "cni-1d4a", "ü", "Any", "anyone"] {
            assert_eq!(name.parse(), Ok(Netns::Named(name.into())));
            assert_eq!(name.parse::<Netns>().unwrap().to_string(), name);
            assert_eq!(Netns::of_client(name), Ok(Netns::Named(name.into())));
        }
        let long = "x".repeat(256);
        let wrong = [
            "",
            ".",
            "..",
            ".lab",
            "/run/netns/lab1",
            "a/b",
            "a\0",
            "a\n",
            " a",
            "a ",
            "*",
            "lab*",
            "la?",
            &long,
        ];
        for text in wrong {
            let why = text.parse::<Netns>().unwrap_err();
            assert!(why.contains("write \"caller\", \"owned\", or a name"), "{why}");
            let why = text.parse::<NetnsPattern>().unwrap_err();
            assert!(why.contains("or \"any\" for all of these"), "{why}");
            let why = Netns::of_client(text).unwrap_err();
            assert!(
                why.contains("write \"caller\", a name of `ip netns list`, or {\"desc"),
                "{why}"
            );
        }
        assert!(long[1..].parse::<Netns>().is_ok());
    }

    #[test]
    fn words_that_name_several_namespaces_are_words_of_rules() {
        for (word, pattern) in [
            ("any", NetnsPattern::Any),
            ("owned", NetnsPattern::One(Netns::Owned)),
            ("caller", NetnsPattern::One(Netns::Caller)),
            ("lab1", NetnsPattern::One(Netns::Named("lab1".into()))),
        ] {
            assert_eq!(word.parse(), Ok(pattern.clone()));
            assert_eq!(pattern.to_string(), word);
            assert_eq!(
                Netns::of_client(word).is_ok(),
                ["caller", "lab1"].contains(&word),
                "{word}"
            );
        }
        assert!("any".parse::<Netns>().unwrap_err().contains("the word of rules"));
    }
}
