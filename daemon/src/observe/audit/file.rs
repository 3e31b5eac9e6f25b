//! A file to which records are added, a line each.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// An open file, and where it was found.
#[derive(Debug)]
pub(super) struct Lines {
    file: File,
    path: PathBuf,
    /// Whether it ends in the middle of a line: a disk was full.
    torn: bool,
}

impl Lines {
    /// Opens a file, or makes one for its owner alone. That the broker may read it is not needed.
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

    /// Opens it anew by its path: somebody may have moved it, to keep the past apart. If it cannot be
    /// opened, the old one is written to as before.
    pub(super) fn reopen(&mut self) {
        match Self::open(&self.path) {
            Ok(new) => *self = new,
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%path, %error, "the audit's file cannot be opened anew");
            }
        }
    }

    /// Adds a line, which has its end. Behind a part of one it begins a line of its own.
    pub(super) fn add(&mut self, line: &[u8]) -> io::Result<()> {
        let end: &[u8] = if self.torn { b"\n" } else { b"" };
        let added = self.file.write_all(&[end, line].concat());
        self.torn = added.is_err() && is_torn(&self.file);
        added
    }
}

/// Whether a file ends in the middle of a line. What is no regular file has no end to look at.
fn is_torn(file: &File) -> bool {
    let length =
        file.metadata().ok().filter(std::fs::Metadata::is_file).map_or(0, |data| data.len());
    let mut last = [b'\n'];
    // One that cannot be read is taken as whole.
    length > 0 && file.read_exact_at(&mut last, length - 1).is_ok() && last != [b'\n']
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use sockbroker_test_support::folder::Folder;

    use super::*;

    #[test]
    fn a_file_is_for_its_owner_and_lines_go_behind_what_it_holds() {
        let folder = Folder::new();
        let path = folder.join("audit");
        for _ in 0..2 {
            Lines::open(&path).unwrap().add(b"line\n").unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "line\nline\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_may_be_written_and_not_read_will_do() {
        let folder = Folder::new();
        let path = folder.write("audit", "line\n");
        let mode = |bits| fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
        // Root may read it all the same.
        mode(0o200);
        Lines::open(&path).unwrap().add(b"1\n").unwrap();
        mode(0o600);
        assert_eq!(fs::read_to_string(&path).unwrap(), "line\n1\n");
    }

    #[test]
    fn behind_a_part_of_a_line_begins_another() {
        let folder = Folder::new();
        let path = folder.write("audit", "{\"time\":");
        let mut lines = Lines::open(&path).unwrap();
        lines.add(b"1\n").unwrap();
        lines.add(b"2\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"time\":\n1\n2\n");
    }

    #[test]
    fn a_file_that_was_moved_is_made_anew() {
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
    fn what_a_full_disk_refuses_is_an_error() {
        let mut lines = Lines::open(Path::new("/dev/full")).unwrap();
        let error = lines.add(b"1\n").unwrap_err();
        assert_eq!((error.kind(), lines.torn), (io::ErrorKind::StorageFull, false));
    }
}
