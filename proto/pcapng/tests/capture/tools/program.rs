//! Runs a program on a capture file.

use std::path::Path;
use std::process::{Command, Stdio};

use sockbroker_test_support::Folder;

/// Returns what a program prints, with the path of a file as its last argument.
pub(super) fn output(program: impl AsRef<Path>, arguments: &[&str], file: &Path) -> String {
    let mut command = Command::new(program.as_ref());
    command.args(arguments).arg(file).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}\n{errors}", output.status);
    text
}

/// Writes a file into a folder of its own.
pub(super) fn file(bytes: &[u8]) -> (Folder, std::path::PathBuf) {
    let folder = Folder::new();
    let path = folder.path().join("capture");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}
