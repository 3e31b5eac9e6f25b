//! Requests to the opener about captures.

use std::sync::Arc;

use sockbroker_monitor::request::{Answer, CaptureLimit, OpenerRequest, Request};
use sockbroker_policy::namespace::Namespace;

use crate::config::limits::Limits;
use crate::descriptor::Descriptor;
use crate::error::netns::Reason;
use crate::error::{During, LimitExceeded, OpError, OpResult};
use crate::network::caller_identity::CallerIdentity;
use crate::network::opener::as_selected;
use crate::network::other_namespace;

/// Asks the opener for something about a capture in a network namespace, whose descriptor the client may have passed.
pub(super) async fn ask(
    caller: &CallerIdentity,
    (namespace, passed): (&Namespace, Option<Arc<Descriptor>>),
    request: Request,
    limits: &Limits,
) -> OpResult<()> {
    let call = request.call();
    let opener_request = OpenerRequest { network: as_selected(namespace), request };
    let Some(answered) = caller.privileged().ask_slow_without_socket(opener_request, passed).await
    else {
        return Err(OpError::Os { call, errno: libc::ECONNRESET });
    };
    match answered.during(call)? {
        Answer::Done => Ok(()),
        Answer::Limit(limit) => Err(exceeded(limit, limits).into()),
        Answer::Failed(errno) => Err(OpError::Os { call, errno }),
        Answer::Refused(errno) if *namespace == Namespace::Broker => {
            Err(OpError::Os { call, errno })
        }
        Answer::Refused(errno) => {
            Err(other_namespace::error(call, namespace, Reason::Refused(errno)))
        }
        Answer::Unreachable(why) => {
            Err(other_namespace::error(call, namespace, Reason::Unreachable(why)))
        }
        Answer::HungUp => Err(OpError::Os { call, errno: libc::ECONNRESET }),
        Answer::NotServed => Err(OpError::Os { call, errno: libc::EPERM }),
        Answer::Socket | Answer::Made | Answer::Sent(_) | Answer::Interfaces(_) => Err(lost()),
    }
}

fn exceeded(limit: CaptureLimit, limits: &Limits) -> LimitExceeded {
    let (name, value) = match limit {
        CaptureLimit::OfUser => ("captures_per_user", limits.captures_per_user),
        CaptureLimit::InAll => ("captures_in_all", limits.captures_in_all),
        CaptureLimit::BytesOfUser => ("capture_bytes_per_user", limits.capture_bytes_per_user),
        CaptureLimit::BytesInAll => ("capture_bytes_in_all", limits.capture_bytes_in_all),
    };
    LimitExceeded { name, value }
}

pub(super) fn lost() -> OpError {
    OpError::Plain("capture: the process that reads captures has ended".to_owned())
}
