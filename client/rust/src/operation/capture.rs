//! Captures.

use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::Serialize;
use sockbroker_proto::api::capture::{
    CaptureOpened, CaptureOptions, CapturePart, CaptureStats, FilterReplaced, ReplayOptions,
    Replayed,
};
use sockbroker_proto::api::values::Netns as Selector;
use sockbroker_proto::bytes::Bytes;
use sockbroker_proto::handle::Handle;

use super::call::{Call, Operation, json};
use crate::capture::{CaptureRequest, READ_BYTES_MAX};
use crate::error::Result;
use crate::request::{PayloadEncoding, Request};
use crate::wire::response::Response;

fn program(filter: &[u8]) -> Option<Bytes> {
    (!filter.is_empty()).then(|| Bytes::Inline(filter.to_vec()))
}

/// Opens a capture. The result has the descriptor of its stream, if the connection can carry it.
pub(crate) fn open_capture(
    request: &CaptureRequest,
) -> impl Operation<Output = (CaptureOpened, Option<OwnedFd>)> + '_ {
    #[derive(Serialize)]
    struct Params<'a> {
        interfaces: Option<&'a [String]>,
        filter: Option<Bytes>,
        options: &'a CaptureOptions,
        netns: Option<Selector>,
    }
    fn read(response: &mut Response<'_>) -> Result<(CaptureOpened, Option<OwnedFd>)> {
        let opened: CaptureOpened = response.value()?;
        let stream = opened.fd.then(|| response.take_descriptor()).transpose()?;
        Ok((opened, stream))
    }
    let params = |netns| Params {
        interfaces: (!request.interfaces.is_empty()).then_some(&*request.interfaces),
        filter: program(&request.filter),
        options: &request.options,
        netns,
    };
    Call::in_netns("capture.open", request.netns.as_ref(), params, read)
}

pub(crate) fn capture_stats(handle: Handle) -> impl Operation<Output = CaptureStats> {
    Call::new("capture.stats", (handle,), json)
}

pub(crate) fn set_capture_filter(
    handle: Handle,
    filter: &[u8],
    text: Option<&str>,
) -> impl Operation<Output = FilterReplaced> {
    Call::new("capture.set_filter", (handle, program(filter), text), json)
}

pub(crate) fn stop_capture(
    handle: Handle,
    linger: Duration,
) -> impl Operation<Output = CaptureStats> {
    Call::new("capture.stop", (handle, linger.as_secs_f64()), json)
}

type ReadParams = (Handle, usize);

fn read_request(handle: Handle, size: usize) -> Request<'static, ReadParams> {
    Request::new("capture.read", (handle, size.min(READ_BYTES_MAX)))
}

/// Reads a part of the stream into `buffer`; how many bytes, none at its end.
pub(crate) fn read_capture(
    handle: Handle,
    buffer: &mut [u8],
) -> impl Operation<Output = usize> + '_ {
    struct ReadCapture<'a> {
        request: Request<'static, ReadParams>,
        buffer: &'a mut [u8],
    }
    impl Operation for ReadCapture<'_> {
        type Params = ReadParams;
        type Output = usize;

        fn request(&self) -> &Request<'_, ReadParams> {
            &self.request
        }

        fn read(&mut self, response: &mut Response<'_>) -> Result<usize> {
            let part: CapturePart = response.value()?;
            response.copy_bytes(&part.bytes, self.buffer)
        }
    }
    ReadCapture { request: read_request(handle, buffer.len()), buffer }
}

/// The request for a part of the stream.
#[cfg(feature = "tokio")]
pub(crate) fn capture_part_request(handle: Handle) -> Request<'static, impl Serialize> {
    read_request(handle, READ_BYTES_MAX)
}

/// The part in the result of [`capture_part_request`].
#[cfg(feature = "tokio")]
pub(crate) fn capture_part(response: &mut Response<'_>) -> Result<Vec<u8>> {
    let part: CapturePart = response.value()?;
    response.bytes(part.bytes)
}

/// Sends the packets of a file.
pub(crate) fn replay<'a>(
    encoding: PayloadEncoding,
    handle: Handle,
    file: &'a [u8],
    options: &'a ReplayOptions,
) -> impl Operation<Output = Replayed> + 'a {
    let (payload, attachments) = encoding.encode(file);
    let request = Request::new("capture.replay", (handle, payload, options));
    Call::of(request.with_attachments(attachments), json)
}
