//! Where records go.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use super::journal::encode;
use super::line;
use super::record::Record;
use crate::observe::journal::{SOCKET, connect};

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
    Journal(UnixDatagram),
    Stderr,
    File { file: File, path: PathBuf },
}

impl Sink {
    /// Opens a destination; `None` for nowhere. Before the broker confines itself: the file may lie
    /// where it may not write later.
    pub fn open(destination: &Destination) -> io::Result<Option<Self>> {
        Ok(Some(Self(match destination {
            Destination::Off => return Ok(None),
            Destination::Journal => Kind::Journal(connect(Path::new(SOCKET))?),
            Destination::Auto => connect(Path::new(SOCKET)).map_or(Kind::Stderr, Kind::Journal),
            Destination::Stderr => Kind::Stderr,
            Destination::File(path) => Kind::File { file: append(path)?, path: path.clone() },
        })))
    }

    /// Opens a file anew by its path: somebody may have moved it, to keep the past apart. If it cannot be
    /// opened, the old one is written to as before.
    pub(super) fn reopen(&mut self) {
        let Kind::File { file, path } = &mut self.0 else { return };
        match append(path) {
            Ok(new) => *file = new,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the audit's file cannot be opened anew");
            }
        }
    }

    /// Writes a record. One that cannot be written is lost: there is nowhere else to tell.
    pub(super) fn write(&self, record: &Record) {
        let written = match &self.0 {
            Kind::Journal(socket) => socket.send(encode(record).bytes()).map(drop),
            Kind::Stderr => io::stderr().write_all(&line::encode(record)),
            Kind::File { file, .. } => (&*file).write_all(&line::encode(record)),
        };
        if let Err(error) = written {
            tracing::debug!(%error, "an audit record could not be written");
        }
    }
}

/// A file for its owner alone; records go behind what it holds.
fn append(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_for_its_owner_and_records_go_behind_what_it_holds() {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("sockbroker-audit-{}", std::process::id()));
        for _ in 0..2 {
            let sink = Sink::open(&Destination::File(path.clone())).unwrap().unwrap();
            sink.write(&Record::new("test"));
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((text.lines().count(), mode & 0o777), (2, 0o600));
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
    fn a_record_reaches_the_journal_as_one_datagram() {
        let path = std::env::temp_dir().join(format!("sockbroker-journal-{}", std::process::id()));
        let journal = UnixDatagram::bind(&path).unwrap();
        let sink = Sink(Kind::Journal(connect(&path).unwrap()));
        std::fs::remove_file(&path).unwrap();
        sink.write(&Record::new("test").with("uid", 1_u32));
        let mut datagram = [0; 4096];
        let length = journal.recv(&mut datagram).unwrap();
        let text = String::from_utf8_lossy(&datagram[..length]).into_owned();
        assert!(text.contains("SOCKBROKER_AUDIT\n") && text.contains("SOCKBROKER_UID\n"));
    }
}
