//! Audit records of a worker on their way to the monitor: a pipe, which cannot carry descriptors.
//!
//! A record is its length in four bytes, low byte first, and its encoding.

use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::AsFd;

use super::record::Record;
use sockbroker_sys::poll::poll_for;
use sockbroker_sys::socket;

/// The longest record. A worker that sends a longer one loses its audit.
const LENGTH_MAX: usize = 64 << 10;
/// The bytes that a pipe takes whole or not at all (`PIPE_BUF`, `pipe(7)`).
const PIPE_BUF: usize = 4096;
/// The bytes that one read takes.
const READ: usize = 64 << 10;

/// The worker's end.
#[derive(Debug)]
pub(super) struct RecordWriter(PipeWriter);

impl RecordWriter {
    pub(super) fn new(pipe: PipeWriter) -> io::Result<Self> {
        socket::set_nonblocking(pipe.as_fd(), true)?;
        Ok(Self(pipe))
    }

    /// Writes a record without waiting. `false` if the pipe has no room for all of it, or does not take it.
    pub(super) fn write_now(&mut self, record: &Record) -> bool {
        // The kernel writes it whole or not at all (pipe(7)).
        encode(record).is_ok_and(|bytes| bytes.len() <= PIPE_BUF && self.0.write(&bytes).is_ok())
    }

    /// Writes a record, and waits for the monitor if the pipe is full. One that is too long is refused.
    pub(super) fn write(&mut self, record: &Record) -> io::Result<()> {
        let encoded = encode(record)?;
        let mut rest = &*encoded;
        while !rest.is_empty() {
            match self.0.write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll_for(&[(self.0.as_fd(), libc::POLLOUT)], None)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn encode(record: &Record) -> io::Result<Vec<u8>> {
    let encoded = postcard::to_stdvec(record).map_err(io::Error::other)?;
    let length = u32::try_from(encoded.len()).ok().filter(|_| encoded.len() <= LENGTH_MAX);
    let length = length.ok_or_else(|| io::Error::other("the record is too long"))?;
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(encoded);
    Ok(bytes)
}

/// The monitor's end.
#[derive(Debug)]
pub(super) struct RecordReader {
    pipe: PipeReader,
    buffer: Vec<u8>,
}

impl RecordReader {
    /// Reads from a pipe without waiting.
    pub(super) fn new(pipe: PipeReader) -> io::Result<Self> {
        socket::set_nonblocking(pipe.as_fd(), true)?;
        Ok(Self { pipe, buffer: Vec::new() })
    }

    pub(super) fn pipe(&self) -> &PipeReader {
        &self.pipe
    }

    /// Reads once. Returns the records that are complete; `None` at the end of the pipe. An error ends it.
    pub(super) fn read(&mut self) -> io::Result<Option<Vec<Record>>> {
        let mut bytes = vec![0; READ];
        match self.pipe.read(&mut bytes) {
            Ok(0) => return Ok(None),
            Ok(count) => self.buffer.extend(bytes.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let (mut records, mut at) = (Vec::new(), 0);
        while let Some((length, rest)) =
            self.buffer.get(at..).and_then(<[u8]>::split_first_chunk::<4>)
        {
            let length = u32::from_le_bytes(*length) as usize;
            if length > LENGTH_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a record is too long"));
            }
            let Some(encoded) = rest.get(..length) else { break };
            records.push(postcard::from_bytes(encoded).map_err(io::Error::other)?);
            at += 4 + length;
        }
        self.buffer.drain(..at);
        Ok(Some(records))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_arrive_whole() {
        let (reader, writer) = io::pipe().unwrap();
        let (mut reader, mut writer) =
            (RecordReader::new(reader).unwrap(), RecordWriter::new(writer).unwrap());
        let records =
            [Record::new("a").with("n", 7_u64).with("text", "x".repeat(5000)), Record::new("b")];
        for record in &records {
            writer.write(record).unwrap();
        }
        assert_eq!(reader.read().unwrap().unwrap(), records);
        assert_eq!(reader.read().unwrap().unwrap(), []);
        writer.write(&Record::new("c").with("t", "x".repeat(LENGTH_MAX))).unwrap_err();
        writer.0.write_all(&[3, 0]).unwrap();
        assert_eq!(reader.read().unwrap().unwrap(), []);
        drop(writer);
        assert!(reader.read().unwrap().is_none(), "half a record is dropped");
    }

    #[test]
    fn a_full_pipe_takes_records_whole_or_not_at_all() {
        let (reader, writer) = io::pipe().unwrap();
        let (mut reader, mut writer) =
            (RecordReader::new(reader).unwrap(), RecordWriter::new(writer).unwrap());
        let record = Record::new("a").with("text", "x".repeat(3000));
        assert!(!writer.write_now(&Record::new("b").with("text", "x".repeat(PIPE_BUF))));
        let mut written = 0;
        while writer.write_now(&record) {
            written += 1;
        }
        // This one waits until the reader has made room.
        let waiting = std::thread::spawn(move || writer.write(&record));
        let mut read = 0;
        while read <= written {
            poll_for(&[(reader.pipe().as_fd(), libc::POLLIN)], None).unwrap();
            read += reader.read().unwrap().unwrap_or_default().len();
        }
        waiting.join().unwrap().unwrap();
        assert!(written > 1 && read == written + 1, "{written} {read}");
    }

    #[test]
    fn nonsense_is_an_error() {
        for bytes in [&[0, 0, 1, 0][..], &[1, 0, 0, 0, 0xff], &[0, 0, 0, 0]] {
            let (reader, mut writer) = io::pipe().unwrap();
            writer.write_all(bytes).unwrap();
            let read = RecordReader::new(reader).unwrap().read();
            assert!(read.is_err() || bytes == [0, 0, 1, 0], "{bytes:?}");
        }
    }
}
