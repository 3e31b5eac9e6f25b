//! Requests to the opener about captures.

use sockbroker_monitor::request::{CaptureLimit, Request};

use crate::config::limits::Limits;
use crate::error::{LimitExceeded, OpError, OpResult};
use crate::network::caller_identity::CallerIdentity;
use crate::network::opener::Done;

/// Asks the opener for something about a capture.
pub(super) async fn ask(
    caller: &CallerIdentity,
    request: Request,
    limits: &Limits,
) -> OpResult<()> {
    let call = request.call();
    let exceeded = |name, value| OpError::from(LimitExceeded { name, value });
    match caller.privileged().ask_apart(request.into()).await {
        Some(Ok(Done::Nothing)) => Ok(()),
        Some(Ok(Done::Limit(limit))) => Err(match limit {
            CaptureLimit::OfUser => exceeded("captures_per_user", limits.captures_per_user),
            CaptureLimit::InAll => exceeded("captures_in_all", limits.captures_in_all),
            CaptureLimit::BytesOfUser => {
                exceeded("capture_bytes_per_user", limits.capture_bytes_per_user)
            }
            CaptureLimit::BytesInAll => {
                exceeded("capture_bytes_in_all", limits.capture_bytes_in_all)
            }
        }),
        Some(Ok(Done::Socket(_) | Done::Sent(_))) => Err(lost()),
        Some(Err(error)) => Err(OpError::os(call, error)),
        None => Err(OpError::Os { call, errno: libc::EPERM }),
    }
}

pub(super) fn lost() -> OpError {
    OpError::Plain("capture: the process that reads captures has ended".to_owned())
}
