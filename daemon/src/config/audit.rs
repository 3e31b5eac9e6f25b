//! `[audit]`: the destination of audit records.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::observe::audit::Destination;

/// The section `[audit]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// `auto`, `journald`, `stderr`, `off`, or the absolute path of a file.
    #[serde(deserialize_with = "destination")]
    pub to: Destination,
}

fn destination<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Destination, D::Error> {
    let word = String::deserialize(deserializer)?;
    Ok(match word.as_str() {
        "auto" => Destination::Auto,
        "journald" => Destination::Journal,
        "stderr" => Destination::Stderr,
        "off" => Destination::Off,
        path if path.starts_with('/') => Destination::File(PathBuf::from(path)),
        _ => {
            let known = "auto, journald, stderr, off, or the absolute path of a file";
            return Err(D::Error::custom(format!(
                "unknown destination `{word}`; there are {known}"
            )));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_words_and_absolute_paths() {
        let read = |text: &str| toml::from_str::<Audit>(text).map(|audit| audit.to);
        assert_eq!(read("").unwrap(), Destination::Auto);
        assert_eq!(read("to = 'off'").unwrap(), Destination::Off);
        assert_eq!(read("to = '/var/log/a'").unwrap(), Destination::File("/var/log/a".into()));
        let error = read("to = 'jornald'").unwrap_err().to_string();
        assert!(error.contains("jornald") && error.contains("journald"), "{error}");
    }
}
