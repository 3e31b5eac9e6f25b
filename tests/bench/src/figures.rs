//! Figures of the scripts that measure in Python.

use std::process::{Command, Stdio};

use serde::de::DeserializeOwned;

use crate::error::Result;

/// Runs a script, and returns the figures that it prints as JSON. If the script fails, the error is what it reports.
pub(crate) fn measured<T: DeserializeOwned>(script: &mut Command) -> Result<Vec<T>> {
    let script = script.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null());
    let output = script.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim_end().into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
