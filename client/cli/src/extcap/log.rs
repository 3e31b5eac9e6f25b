//! The log file of `--log-file`.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use super::args::ExtcapArgs;
use super::names::NAME;
use crate::failure::Failure;

/// Levels of Wireshark (`README.wslog`) that exclude ordinary messages.
const QUIET: [&str; 4] = ["none", "critical", "error", "warning"];

/// The log file, if there is one.
#[derive(Debug)]
pub(super) struct Log {
    file: Option<File>,
    is_quiet: bool,
}

impl Log {
    /// Opens the file.
    pub(super) fn open(args: &ExtcapArgs) -> Result<Self, Failure> {
        let named = args.log_file.as_deref().filter(|path| *path != Path::new(""));
        let open = |path: &Path| {
            let opened = File::options().append(true).create(true).open(path);
            opened.map_err(|error| Failure::stream(&path.display().to_string(), &error))
        };
        let level = args.log_level.as_deref().unwrap_or_default();
        Ok(Self { file: named.map(open).transpose()?, is_quiet: QUIET.contains(&level) })
    }

    /// Appends an ordinary message.
    pub(super) fn message(&self, text: &str) {
        if !self.is_quiet {
            self.error(text);
        }
    }

    /// Appends a message about an error. Best effort: a full disk must not end the capture.
    pub(super) fn error(&self, text: &str) {
        if let Some(mut file) = self.file.as_ref() {
            drop(file.write_all(format!("{NAME}: {text}\n").as_bytes()));
        }
    }
}
