//! Names of interfaces and units, and paths, as fields of a rule.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error};

use crate::language::value::from_text;

from_text! { Pattern PathPrefix }

/// The longest name in bytes: units have the longest (`UNIT_NAME_MAX` of systemd is 256 with its end).
const NAME_MAX: usize = 255;
/// The longest path in bytes: `PATH_MAX` without its end.
const PATH_MAX: usize = 4095;

/// A name, or the beginning of names with `*` as its end: `eth0`, `veth*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    start: String,
    open: bool,
}

impl Pattern {
    /// Whether it matches a name.
    pub fn matches(&self, name: &str) -> bool {
        if self.open { name.starts_with(&self.start) } else { name == self.start }
    }

    /// Whether it matches every name that another matches.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        if self.open { other.start.starts_with(&self.start) } else { self == other }
    }

    /// The name, if it matches only one.
    pub fn name(&self) -> Option<&str> {
        (!self.open).then_some(&self.start)
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > NAME_MAX {
            return Err(format!("a name has at most {NAME_MAX} bytes"));
        }
        let (start, open) = text.strip_suffix('*').map_or((text, false), |start| (start, true));
        if start.contains('*') || text.is_empty() {
            return Err(format!(
                "`{text}` is not a name: write a name, or its beginning and one `*`"
            ));
        }
        Ok(Self { start: start.to_owned(), open })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.start)?;
        if self.open { f.write_str("*") } else { Ok(()) }
    }
}

/// The beginning of Unix socket addresses: `/run/app` with what is below it, or `@name...` in the
/// abstract namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPrefix(String);

impl PathPrefix {
    /// Whether a path is this one or below it. A path that is relative or has `..` is below none.
    pub(crate) fn contains_path(&self, path: &[u8]) -> bool {
        is_plain(path) && !self.0.starts_with('@') && is_below(path, self.0.as_bytes())
    }

    /// Whether an abstract name has this prefix.
    pub(crate) fn contains_abstract(&self, name: &[u8]) -> bool {
        self.0.strip_prefix('@').is_some_and(|prefix| name.starts_with(prefix.as_bytes()))
    }

    /// Whether it is this text.
    pub(crate) fn is(&self, text: &str) -> bool {
        self.0 == text
    }

    /// The path, unless it is of the abstract namespace.
    pub fn path(&self) -> Option<&str> {
        (!self.0.starts_with('@')).then_some(&self.0)
    }

    /// Whether everything below another is below this.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self.0.strip_prefix('@'), other.0.strip_prefix('@')) {
            (Some(own), Some(other)) => other.starts_with(own),
            (None, None) => is_below(other.0.as_bytes(), self.0.as_bytes()),
            _ => false,
        }
    }
}

/// Whether a path is absolute and without `..`, so that only symbolic links can lead it elsewhere.
pub(crate) fn is_plain(path: &[u8]) -> bool {
    path.starts_with(b"/") && !path.split(|byte| *byte == b'/').any(|part| part == b"..")
}

fn is_below(path: &[u8], folder: &[u8]) -> bool {
    let mut parts = parts(path);
    self::parts(folder).all(|part| parts.next() == Some(part))
}

fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

impl FromStr for PathPrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > PATH_MAX {
            return Err(format!("a path has at most {PATH_MAX} bytes"));
        }
        if text.starts_with('@') || is_plain(text.as_bytes()) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("`{text}` is not a path: write /run/app, or @name for the abstract namespace"))
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_below_by_whole_parts_and_never_with_dots() {
        let prefix: PathPrefix = "/run/app".parse().unwrap();
        for (path, below) in [
            ("/run/app", true),
            ("/run/app/socket", true),
            ("//run/./app/socket", true),
            ("/run/apple", false),
            ("/run/app/../secret", false),
            ("run/app", false),
            ("/run", false),
        ] {
            assert_eq!(prefix.contains_path(path.as_bytes()), below, "{path}");
        }
        assert!(!prefix.contains_abstract(b"/run/app"));
        let abstracts: PathPrefix = "@app".parse().unwrap();
        assert!(abstracts.contains_abstract(b"app.socket") && !abstracts.contains_path(b"@app"));
        assert!("run/app".parse::<PathPrefix>().is_err());
    }

    #[test]
    fn a_pattern_is_a_name_or_a_beginning() {
        let open: Pattern = "veth*".parse().unwrap();
        assert!(open.matches("veth0") && !open.matches("eth0"));
        let one: Pattern = "eth0".parse().unwrap();
        assert!(one.matches("eth0") && !one.matches("eth01") && !open.covers(&one));
        assert!("".parse::<Pattern>().is_err() && "a*b".parse::<Pattern>().is_err());
    }

    #[test]
    fn names_and_paths_have_a_maximal_length() {
        for (longest, longer) in [(255, 256), (4095, 4096)] {
            let text = |length: usize| format!("/{}", "x".repeat(length - 1));
            if longest == 255 {
                assert!(text(longest).parse::<Pattern>().is_ok());
                assert!(text(longer).parse::<Pattern>().unwrap_err().contains("255"));
            } else {
                assert!(text(longest).parse::<PathPrefix>().is_ok());
                assert!(text(longer).parse::<PathPrefix>().unwrap_err().contains("4095"));
            }
        }
    }
}
