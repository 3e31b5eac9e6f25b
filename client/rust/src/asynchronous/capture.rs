//! A capture: a stream of packets.

use std::os::unix::net::UnixStream as Plain;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use sockbroker_proto::api::capture::{CaptureOpened, CaptureStats, FilterReplaced};
use tokio::net::UnixStream;

use super::broker::Broker;
use super::dropped::DroppedCall;
use super::pending::PendingCall;
use super::stream_state::poll_call;
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
    source: Source,
    reader: PacketReader,
    is_ended: bool,
}

/// Where the stream is read.
#[derive(Debug)]
enum Source {
    Descriptor(UnixStream),
    /// The connection cannot carry descriptors: calls read it. The one that is in progress.
    Calls(Option<PendingCall>),
}

impl Broker {
    /// Opens a capture. It is live when this returns: every packet that the kernel receives afterwards is captured.
    ///
    /// Its packets are read from a descriptor, and by calls on connections that cannot carry one.
    ///
    /// # Errors
    ///
    /// [`Error::Denied`] if the policy does not grant it, [`Error::Os`] with `ENODEV` for an unknown interface,
    /// [`Error::Limit`] for too many captures.
    pub async fn capture(&self, request: &CaptureRequest) -> Result<Capture> {
        let (opened, stream) = self.run(operation::open_capture(request)).await?;
        let source = stream.map_or(Ok(Source::Calls(None)), |stream| {
            let stream = Plain::from(stream);
            let native = |error| Error::native("fcntl", &error);
            stream.set_nonblocking(true).map_err(native)?;
            UnixStream::from_std(stream).map(Source::Descriptor).map_err(native)
        })?;
        let (broker, reader) = (self.clone(), PacketReader::default());
        Ok(Capture { broker, opened, source, reader, is_ended: false })
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

    /// Replaces the filter, whose expression is for the audit. No packet of the earlier one has a later time than the second
    /// of the result.
    pub async fn set_filter(&self, filter: &[u8], text: Option<&str>) -> Result<FilterReplaced> {
        self.broker.run(operation::set_capture_filter(self.opened.handle, filter, text)).await
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
            let part = ready!(self.poll_part(context))?;
            if part.is_empty() {
                self.reader.end()?;
                return Poll::Ready(Ok(None));
            }
            self.reader.add(&part);
        }
    }

    /// Waits for a part of the stream; an empty one is its end.
    fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<Result<Vec<u8>>> {
        match &mut self.source {
            Source::Descriptor(stream) => poll_descriptor(stream, context),
            Source::Calls(pending) => {
                let handle = self.opened.handle;
                let begin = || {
                    let request = operation::capture_part_request(handle);
                    self.broker.begin(&request, DroppedCall::Discard)
                };
                let mut response = ready!(poll_call(pending, context, begin))?;
                let part = response.read(&mut operation::capture_part);
                self.broker.recycle(response);
                Poll::Ready(part)
            }
        }
    }
}

fn poll_descriptor(stream: &mut UnixStream, context: &mut Context<'_>) -> Poll<Result<Vec<u8>>> {
    let native = |error| Error::native("read", &error);
    loop {
        ready!(stream.poll_read_ready(context)).map_err(native)?;
        let mut part = vec![0; PacketReader::PART];
        match stream.try_read(&mut part) {
            Ok(length) => {
                part.truncate(length);
                return Poll::Ready(Ok(part));
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(native(error))),
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
