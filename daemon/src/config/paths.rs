//! Paths in the configuration file, which are absolute.

use std::path::PathBuf;

use serde::Deserialize as _;
use serde::de::{Deserializer, Error as _};

pub(super) fn absolute_path<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<PathBuf, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(D::Error::custom(format!("{} is not an absolute path", path.display())))
    }
}

/// Absolute paths.
pub(super) fn absolute<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<PathBuf>, D::Error> {
    let folders = Vec::<PathBuf>::deserialize(deserializer)?;
    match folders.iter().find(|folder| !folder.is_absolute()) {
        Some(folder) => {
            Err(D::Error::custom(format!("{} is not an absolute path", folder.display())))
        }
        None => Ok(folders),
    }
}

/// An absolute path; none for an empty text.
pub(super) fn optional_path<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if path.as_os_str().is_empty() {
        Ok(None)
    } else if path.is_absolute() {
        Ok(Some(path))
    } else {
        Err(D::Error::custom(format!("{} is not an absolute path", path.display())))
    }
}
