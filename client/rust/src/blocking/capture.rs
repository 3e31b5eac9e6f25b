//! A capture: an iterator of packets.

use std::io::Read as _;
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
    broker: Broker,
    opened: CaptureOpened,
    stream: UnixStream,
    reader: PacketReader,
    is_ended: bool,
}

impl Broker {
    /// Opens a capture. It is live when this returns: every packet that the kernel receives afterwards is captured.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] if the policy does not grant it, [`Error::Os`] with `ENODEV` for an unknown interface,
    /// [`Error::Descriptor`] if the connection cannot carry descriptors, [`Error::Limit`] for too many captures.
    pub fn capture(&self, request: &CaptureRequest) -> Result<Capture> {
        let (opened, stream) = self.run(operation::open_capture(request))?;
        let (stream, reader) = (UnixStream::from(stream), PacketReader::default());
        Ok(Capture { broker: self.clone(), opened, stream, reader, is_ended: false })
    }
}

impl Capture {
    /// When the capture began, and on which interfaces.
    pub fn opened(&self) -> &CaptureOpened {
        &self.opened
    }

    /// The number of packets so far, also after the end.
    pub fn stats(&self) -> Result<CaptureStats> {
        self.broker.run(operation::capture_stats(self.opened.handle))
    }

    /// Replaces the filter. No packet of the earlier one has a later time than the second of the result.
    pub fn set_filter(&self, filter: &[u8]) -> Result<FilterReplaced> {
        self.broker.run(operation::set_capture_filter(self.opened.handle, filter))
    }

    /// Ends the capture after some time. The packets that it has captured can still be read, if they fit into the
    /// stream: another thread can read meanwhile.
    pub fn stop(&self, linger: Duration) -> Result<CaptureStats> {
        self.broker.run(operation::stop_capture(self.opened.handle, linger))
    }

    /// The next packet; `None` at the end of the capture.
    fn next_packet(&mut self) -> Result<Option<CapturedPacket>> {
        let mut part = vec![0; PacketReader::PART];
        loop {
            if let Some(packet) = self.reader.next()? {
                return Ok(Some(packet));
            }
            let length = read(&mut self.stream, &mut part)?;
            if length == 0 {
                self.reader.end()?;
                return Ok(None);
            }
            self.reader.add(part.get(..length).unwrap_or_default());
        }
    }
}

fn read(stream: &mut UnixStream, part: &mut [u8]) -> Result<usize> {
    loop {
        match stream.read(part) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result.map_err(|error| Error::native("read", &error)),
        }
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

impl Drop for Capture {
    fn drop(&mut self) {
        self.broker.close_without_waiting(self.opened.handle);
    }
}
