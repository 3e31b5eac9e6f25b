//! An audit file, with one record a line.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// An open file and its path.
#[derive(Debug)]
pub(super) struct Lines {
    file: File,
    path: PathBuf,
    /// Whether it ends within a line, after a write that failed.
    torn: bool,
}

impl Lines {
    /// Opens a file, or creates one with mode 0600. The broker need not be allowed to read it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut options = File::options();
        options.append(true).create(true).mode(0o600);
        let file = match options.clone().read(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => options.open(path)?,
            opened => opened?,
        };
        let torn = is_torn(&file);
        Ok(Self { file, path: path.to_owned(), torn })
    }

    /// Opens the file at the path again, after a rotation. If that fails, records go to the old file as
    /// before.
    pub(super) fn reopen(&mut self) {
        match Self::open(&self.path) {
            Ok(new) => *self = new,
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%path, %error, "cannot reopen the audit file: records go to the old one");
            }
        }
    }

    /// Appends a line, which includes its line end. It begins a new line if the file ends within one.
    pub(super) fn add(&mut self, line: &[u8]) -> io::Result<()> {
        let end: &[u8] = if self.torn { b"\n" } else { b"" };
        let added = self.file.write_all(&[end, line].concat());
        self.torn = added.is_err() && is_torn(&self.file);
        added
    }
}

/// Whether a regular file ends within a line.
fn is_torn(file: &File) -> bool {
    let length =
        file.metadata().ok().filter(std::fs::Metadata::is_file).map_or(0, |data| data.len());
    let mut last = [b'\n'];
    // A file that cannot be read is assumed to end with a line.
    length > 0 && file.read_exact_at(&mut last, length - 1).is_ok() && last != [b'\n']
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use sockbroker_test_support::folder::Folder;

    use super::*;

    #[test]
    fn a_new_file_has_mode_0600_and_lines_are_appended() {
        let folder = Folder::new();
        let path = folder.join("audit");
        for _ in 0..2 {
            Lines::open(&path).unwrap().add(b"line\n").unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "line\nline\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_can_be_written_and_not_read_is_accepted() {
        let folder = Folder::new();
        let path = folder.write("audit", "line\n");
        let mode = |bits| fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
        // Root can read it in spite of the mode.
        mode(0o200);
        Lines::open(&path).unwrap().add(b"1\n").unwrap();
        mode(0o600);
        assert_eq!(fs::read_to_string(&path).unwrap(), "line\n1\n");
    }

    #[test]
    fn a_line_after_an_incomplete_one_begins_on_its_own_line() {
        let folder = Folder::new();
        let path = folder.write("audit", "{\"time\":");
        let mut lines = Lines::open(&path).unwrap();
        lines.add(b"1\n").unwrap();
        lines.add(b"2\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"time\":\n1\n2\n");
    }

    #[test]
    fn reopening_creates_a_file_that_was_moved() {
        let folder = Folder::new();
        let (path, past) = (folder.write("audit", "part"), folder.join("past"));
        let mut lines = Lines::open(&path).unwrap();
        fs::rename(&path, &past).unwrap();
        lines.reopen();
        lines.add(b"1\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
        assert_eq!(fs::read_to_string(&past).unwrap(), "part");
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut lines = Lines::open(Path::new("/dev/full")).unwrap();
        let error = lines.add(b"1\n").unwrap_err();
        assert_eq!((error.kind(), lines.torn), (io::ErrorKind::StorageFull, false));
    }
}
