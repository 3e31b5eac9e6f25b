//! A capture: an iterator of packets, or the file that it writes.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use sockbroker_proto::api::capture::{CaptureOpened, CaptureStats, FilterReplaced};

use super::broker::Broker;
use crate::capture::{CaptureRequest, CapturedPacket, PacketReader};
use crate::error::{Error, Result};
use crate::operation;

/// A capture, and the packets that it has captured.
///
/// As an iterator it waits for each packet, and ends when the capture has ended. A program that does not read loses
/// packets, which are counted. Dropping it ends the capture.
#[derive(Debug)]
pub struct Capture {
    stream: CaptureStream,
    reader: PacketReader,
    is_ended: bool,
}

/// The file of a capture, as the broker writes it: pcapng, or the format of the request. It ends with the capture.
///
/// A program that does not read loses packets, which are counted. Dropping it ends the capture.
#[derive(Debug)]
pub struct CaptureStream {
    broker: Broker,
    opened: CaptureOpened,
    /// `None` where the connection cannot carry descriptors: then calls read the stream.
    descriptor: Option<UnixStream>,
}

impl Broker {
    /// Opens a capture. It is live when this returns: every packet that the kernel receives afterwards is captured.
    ///
    /// Its packets are read from a descriptor, and on connections that cannot carry one by calls, to which the limit of
    /// [`Broker::set_call_timeout`] applies.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] if the policy does not grant it, [`Error::Os`] with `ENODEV` for an unknown interface,
    /// [`Error::Limit`] for too many captures.
    pub fn capture(&self, request: &CaptureRequest) -> Result<Capture> {
        let (opened, descriptor) = self.run(operation::open_capture(request))?;
        let (broker, descriptor) = (self.clone(), descriptor.map(UnixStream::from));
        let stream = CaptureStream { broker, opened, descriptor };
        Ok(Capture { stream, reader: PacketReader::default(), is_ended: false })
    }
}

impl Capture {
    /// When the capture began, and on which interfaces.
    pub fn opened(&self) -> &CaptureOpened {
        &self.stream.opened
    }

    /// The number of packets so far, also after the end.
    pub fn stats(&self) -> Result<CaptureStats> {
        self.stream.stats()
    }

    /// Replaces the filter, whose expression is for the audit. No packet of the earlier one has a later time than the second
    /// of the result.
    pub fn set_filter(&self, filter: &[u8], text: Option<&str>) -> Result<FilterReplaced> {
        let CaptureStream { broker, opened, .. } = &self.stream;
        broker.run(operation::set_capture_filter(opened.handle, filter, text))
    }

    /// Ends the capture after some time. The packets that it has captured can still be read, if they fit into the
    /// stream: another thread can read meanwhile.
    pub fn stop(&self, linger: Duration) -> Result<CaptureStats> {
        self.stream.stop(linger)
    }

    /// The file of the capture, from its beginning if no packet was read.
    pub fn into_stream(self) -> CaptureStream {
        self.stream
    }

    /// The next packet; `None` at the end of the capture.
    fn next_packet(&mut self) -> Result<Option<CapturedPacket>> {
        let mut part = vec![0; PacketReader::PART];
        loop {
            if let Some(packet) = self.reader.next()? {
                return Ok(Some(packet));
            }
            let length = self.stream.read_part(&mut part)?;
            if length == 0 {
                self.reader.end()?;
                return Ok(None);
            }
            self.reader.add(part.get(..length).unwrap_or_default());
        }
    }
}

impl CaptureStream {
    /// When the capture began, and on which interfaces.
    pub fn opened(&self) -> &CaptureOpened {
        &self.opened
    }

    /// The number of packets so far, also after the end.
    pub fn stats(&self) -> Result<CaptureStats> {
        self.broker.run(operation::capture_stats(self.opened.handle))
    }

    /// Ends the capture after some time. What it has captured can still be read, if it fits into the stream.
    pub fn stop(&self, linger: Duration) -> Result<CaptureStats> {
        self.broker.run(operation::stop_capture(self.opened.handle, linger))
    }

    /// Waits for bytes of the file, and reads them into `buffer`. None are its end.
    ///
    /// # Errors
    ///
    /// Those of [`Read::read`], before their conversion.
    pub fn read_part(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let Some(descriptor) = &mut self.descriptor else {
            if buffer.is_empty() {
                return Ok(0);
            }
            return self.broker.run(operation::read_capture(self.opened.handle, buffer));
        };
        loop {
            match descriptor.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(|error| Error::native("read", &error)),
            }
        }
    }
}

impl Read for CaptureStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.read_part(buffer)?)
    }
}

impl Iterator for Capture {
    type Item = Result<CapturedPacket>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_ended {
            return None;
        }
        let packet = self.next_packet().transpose();
        self.is_ended = !matches!(packet, Some(Ok(_)));
        packet
    }
}

impl Drop for CaptureStream {
    fn drop(&mut self) {
        self.broker.close_without_waiting(self.opened.handle);
    }
}
