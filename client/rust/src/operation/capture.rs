//! Captures.

use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::Serialize;
use sockbroker_proto::api::capture::{CaptureOpened, CaptureOptions, CaptureStats, FilterReplaced};
use sockbroker_proto::bytes::Bytes;
use sockbroker_proto::handle::Handle;

use super::call::{Call, Operation, json};
use crate::capture::CaptureRequest;
use crate::error::Result;
use crate::wire::response::Response;

fn program(filter: &[u8]) -> Option<Bytes> {
    (!filter.is_empty()).then(|| Bytes::Inline(filter.to_vec()))
}

/// Opens a capture. The result has the descriptor of its stream.
pub(crate) fn open_capture(
    request: &CaptureRequest,
) -> impl Operation<Output = (CaptureOpened, OwnedFd)> + '_ {
    #[derive(Serialize)]
    struct Params<'a> {
        interfaces: Option<&'a [String]>,
        filter: Option<Bytes>,
        options: &'a CaptureOptions,
        want_fd: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        netns: Option<&'a str>,
    }
    fn read(response: &mut Response<'_>) -> Result<(CaptureOpened, OwnedFd)> {
        Ok((response.value()?, response.take_descriptor()?))
    }
    let params = Params {
        interfaces: (!request.interfaces.is_empty()).then_some(&*request.interfaces),
        filter: program(&request.filter),
        options: &request.options,
        want_fd: true,
        netns: request.netns.as_deref(),
    };
    Call::new("capture.open", params, read)
}

pub(crate) fn capture_stats(handle: Handle) -> impl Operation<Output = CaptureStats> {
    Call::new("capture.stats", (handle,), json)
}

pub(crate) fn set_capture_filter(
    handle: Handle,
    filter: &[u8],
) -> impl Operation<Output = FilterReplaced> {
    Call::new("capture.set_filter", (handle, program(filter)), json)
}

pub(crate) fn stop_capture(
    handle: Handle,
    linger: Duration,
) -> impl Operation<Output = CaptureStats> {
    Call::new("capture.stop", (handle, linger.as_secs_f64()), json)
}
