//! Where records go.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::journal::encode;
use super::line;
use super::record::Record;
use crate::observe::journal::{Journal, SOCKET};

/// What the configuration says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Destination {
    /// The journal if there is one, else standard error.
    #[default]
    Auto,
    /// The journal.
    Journal,
    /// Standard error, a line of JSON a record.
    Stderr,
    /// A file, a line of JSON a record, behind what it holds.
    File(PathBuf),
    /// Nowhere.
    Off,
}

/// An open destination.
#[derive(Debug)]
pub struct Sink(Kind);

#[derive(Debug)]
enum Kind {
    Journal(Journal),
    Stderr,
    /// `torn`: it may end with a part of a record.
    File {
        file: File,
        path: PathBuf,
        torn: bool,
    },
}

impl Sink {
    /// Opens a destination; `None` for nowhere. Before the broker confines itself: the file may lie
    /// where it may not write later.
    pub fn open(destination: &Destination) -> io::Result<Option<Self>> {
        Ok(Some(Self(match destination {
            Destination::Off => return Ok(None),
            Destination::Journal => Kind::Journal(Journal::open(Path::new(SOCKET))?),
            Destination::Auto => {
                Journal::open(Path::new(SOCKET)).map_or(Kind::Stderr, Kind::Journal)
            }
            Destination::Stderr => Kind::Stderr,
            Destination::File(path) => {
                Kind::File { file: append(path)?, path: path.clone(), torn: false }
            }
        })))
    }

    /// Opens a file anew by its path: somebody may have moved it, to keep the past apart. If it cannot be
    /// opened, the old one is written to as before.
    pub(super) fn reopen(&mut self) {
        let Kind::File { file, path, .. } = &mut self.0 else { return };
        match append(path) {
            Ok(new) => *file = new,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the audit's file cannot be opened anew");
            }
        }
    }

    /// Writes a record, or fails and it is lost.
    pub(super) fn write(&mut self, record: &Record) -> io::Result<()> {
        match &mut self.0 {
            Kind::Journal(journal) => journal.send(&encode(record)),
            Kind::Stderr => io::stderr().write_all(&line::encode(record)),
            Kind::File { file, torn, .. } => {
                let end: &[u8] = if *torn { b"\n" } else { b"" };
                let written = file.write_all(&[end, &line::encode(record)].concat());
                *torn = written.is_err();
                written
            }
        }
    }
}

/// A file for its owner alone; records go behind what it holds.
fn append(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use sockbroker_test_support::folder::Folder;

    use super::*;

    #[test]
    fn a_file_is_for_its_owner_and_records_go_behind_what_it_holds() {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("sockbroker-audit-{}", std::process::id()));
        for _ in 0..2 {
            let mut sink = Sink::open(&Destination::File(path.clone())).unwrap().unwrap();
            sink.write(&Record::new("test")).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((text.lines().count(), mode & 0o777), (2, 0o600));
    }

    #[test]
    fn a_record_behind_a_part_of_one_is_a_line_of_its_own() {
        let folder = Folder::new();
        let path = folder.write("audit", "{\"time\":");
        let file = append(&path).unwrap();
        let mut sink = Sink(Kind::File { file, path: path.clone(), torn: true });
        for _ in 0..2 {
            sink.write(&Record::new("test")).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 3);
    }

    #[test]
    fn a_journal_that_is_not_there_is_an_error_and_auto_takes_standard_error() {
        if Path::new(SOCKET).exists() {
            assert!(Sink::open(&Destination::Journal).is_ok());
            return;
        }
        assert!(Sink::open(&Destination::Journal).is_err());
        let sink = Sink::open(&Destination::Auto).unwrap().unwrap();
        assert!(matches!(sink.0, Kind::Stderr));
    }

    #[test]
    fn a_record_reaches_the_journal_as_one_datagram_and_also_one_that_was_started_anew() {
        let folder = Folder::new();
        let path = folder.join("journal");
        let mut journal = UnixDatagram::bind(&path).unwrap();
        let mut sink = Sink(Kind::Journal(Journal::open(&path).unwrap()));
        for _ in 0..2 {
            sink.write(&Record::new("test").with("uid", 1_u32)).unwrap();
            let mut datagram = [0; 4096];
            let length = journal.recv(&mut datagram).unwrap();
            let text = String::from_utf8_lossy(&datagram[..length]).into_owned();
            assert!(text.contains("SOCKBROKER_AUDIT\n") && text.contains("SOCKBROKER_UID\n"));
            std::fs::remove_file(&path).unwrap();
            journal = UnixDatagram::bind(&path).unwrap();
        }
        drop(journal);
        sink.write(&Record::new("test")).unwrap_err();
    }

    #[test]
    fn a_record_that_is_too_long_for_the_journal_is_an_error() {
        let folder = Folder::new();
        let path = folder.join("journal");
        let _journal = UnixDatagram::bind(&path).unwrap();
        let mut sink = Sink(Kind::Journal(Journal::open(&path).unwrap()));
        sink.write(&Record::new("test").with("reason", "x".repeat(1 << 20))).unwrap_err();
        sink.write(&Record::new("test")).unwrap();
    }
}
