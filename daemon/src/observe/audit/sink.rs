//! The destinations of audit records.

use std::io::{self, PipeWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::file::Lines;
use super::journal::encode;
use super::line;
use super::pipe::RecordWriter;
use super::record::Record;
use crate::observe::journal::{Journal, SOCKET};

/// A destination as it is configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Destination {
    /// The journal if it runs, else standard error.
    #[default]
    Auto,
    Journal,
    /// Standard error, one line of JSON a record.
    Stderr,
    /// A file, to which one line of JSON a record is appended.
    File(PathBuf),
    Off,
}

#[derive(Debug)]
pub struct Sink(Kind);

#[derive(Debug)]
enum Kind {
    Journal(Journal),
    Stderr,
    File(Lines),
    Monitor(Arc<Mutex<RecordWriter>>),
}

impl Sink {
    /// The audit of a worker: the monitor writes its records.
    pub fn to_monitor(pipe: PipeWriter) -> io::Result<Self> {
        Ok(Self(Kind::Monitor(Arc::new(Mutex::new(RecordWriter::new(pipe)?)))))
    }

    /// The pipe to the monitor, on which a reporter can write without waiting.
    pub(super) fn pipe(&self) -> Option<Arc<Mutex<RecordWriter>>> {
        match &self.0 {
            Kind::Monitor(pipe) => Some(pipe.clone()),
            Kind::Journal(_) | Kind::Stderr | Kind::File(_) => None,
        }
    }

    /// Opens a destination; `None` for [`Destination::Off`]. Called before the broker confines itself, after
    /// which the file may be out of reach.
    pub fn open(destination: &Destination) -> io::Result<Option<Self>> {
        Ok(Some(Self(match destination {
            Destination::Off => return Ok(None),
            Destination::Journal => Kind::Journal(Journal::open(Path::new(SOCKET))?),
            Destination::Auto => {
                Journal::open(Path::new(SOCKET)).map_or(Kind::Stderr, Kind::Journal)
            }
            Destination::Stderr => Kind::Stderr,
            Destination::File(path) => Kind::File(Lines::open(path)?),
        })))
    }

    /// Opens the file at its path again.
    pub(super) fn reopen(&mut self) {
        if let Kind::File(lines) = &mut self.0 {
            lines.reopen();
        }
    }

    /// Writes a record. A record that cannot be written is lost.
    pub(super) fn write(&mut self, record: &Record) -> io::Result<()> {
        match &mut self.0 {
            Kind::Journal(journal) => journal.send(&encode(record)),
            Kind::Stderr => io::stderr().write_all(&line::encode(record)),
            Kind::File(lines) => lines.add(&line::encode(record)),
            Kind::Monitor(pipe) => {
                pipe.lock().unwrap_or_else(PoisonError::into_inner).write(record)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use sockbroker_test_support::folder::Folder;

    use super::*;

    #[test]
    fn a_missing_journal_is_an_error_and_auto_falls_back_to_standard_error() {
        if Path::new(SOCKET).exists() {
            assert!(Sink::open(&Destination::Journal).is_ok());
            return;
        }
        assert!(Sink::open(&Destination::Journal).is_err());
        let sink = Sink::open(&Destination::Auto).unwrap().unwrap();
        assert!(matches!(sink.0, Kind::Stderr));
    }

    #[test]
    fn records_reach_the_journal_as_datagrams_also_after_its_restart() {
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
        sink.write(&Record::new("test").with("reason", "x".repeat(1 << 26))).unwrap_err();
        sink.write(&Record::new("test")).unwrap();
    }
}
