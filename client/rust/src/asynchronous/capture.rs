//! A capture: a stream of packets.

use std::os::unix::net::UnixStream as Plain;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use sockbroker_proto::api::capture::{CaptureOpened, CaptureStats, FilterReplaced};
use tokio::net::UnixStream;

use super::broker::Broker;
use crate::capture::{CaptureRequest, CapturedPacket, PacketReader};
use crate::error::{Error, Result};
use crate::operation;

/// A capture, and the packets that it has captured.
///
/// As a stream it waits for each packet, and ends when the capture has ended. A program that does not read loses
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
    pub async fn capture(&self, request: &CaptureRequest) -> Result<Capture> {
        let (opened, stream) = self.run(operation::open_capture(request)).await?;
        let stream = Plain::from(stream);
        let native = |error| Error::native("fcntl", &error);
        stream.set_nonblocking(true).map_err(native)?;
        let (stream, reader) =
            (UnixStream::from_std(stream).map_err(native)?, PacketReader::default());
        Ok(Capture { broker: self.clone(), opened, stream, reader, is_ended: false })
    }
}

impl Capture {
    /// When the capture began, and on which interfaces.
    pub fn opened(&self) -> &CaptureOpened {
        &self.opened
    }

    /// The number of packets so far, also after the end.
    pub async fn stats(&self) -> Result<CaptureStats> {
        self.broker.run(operation::capture_stats(self.opened.handle)).await
    }

    /// Replaces the filter. No packet of the earlier one has a later time than the second of the result.
    pub async fn set_filter(&self, filter: &[u8]) -> Result<FilterReplaced> {
        self.broker.run(operation::set_capture_filter(self.opened.handle, filter)).await
    }

    /// Ends the capture after some time. The packets that it has captured can still be read, if they fit into the
    /// stream: another task can read meanwhile.
    pub async fn stop(&self, linger: Duration) -> Result<CaptureStats> {
        self.broker.run(operation::stop_capture(self.opened.handle, linger)).await
    }

    /// The next packet; `None` at the end of the capture. A dropped future loses nothing.
    pub async fn next(&mut self) -> Option<Result<CapturedPacket>> {
        std::future::poll_fn(|context| self.poll_packet(context)).await
    }

    fn poll_packet(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<CapturedPacket>>> {
        if self.is_ended {
            return Poll::Ready(None);
        }
        let packet = ready!(self.poll_read(context)).transpose();
        self.is_ended = !matches!(packet, Some(Ok(_)));
        Poll::Ready(packet)
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<CapturedPacket>>> {
        loop {
            if let Some(packet) = self.reader.next()? {
                return Poll::Ready(Ok(Some(packet)));
            }
            let native = |error| Error::native("read", &error);
            ready!(self.stream.poll_read_ready(context)).map_err(native)?;
            let mut part = vec![0; PacketReader::PART];
            match self.stream.try_read(&mut part) {
                Ok(0) => {
                    self.reader.end()?;
                    return Poll::Ready(Ok(None));
                }
                Ok(length) => self.reader.add(part.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(native(error))),
            }
        }
    }
}

impl Stream for Capture {
    type Item = Result<CapturedPacket>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_packet(context)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.broker.close_without_waiting(self.opened.handle);
    }
}
