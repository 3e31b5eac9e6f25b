//! A call that the process makes, and how it ends.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use sockbroker_monitor::caller::message::UnixAnswer;
use sockbroker_monitor::message::CallerRefusal;
use sockbroker_policy::target::CarriedDescriptor;

/// The descriptors of a call, which stay open until its answer.
pub(crate) type Descriptors = Vec<Arc<dyn CarriedDescriptor>>;
/// What a call returned.
pub(crate) type Reply = (UnixAnswer, Vec<OwnedFd>);

/// Why a call has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    Refused(CallerRefusal),
    /// The process did not get the call.
    NotSent,
    /// The process has ended, or sent nonsense. Whether it made the call is unknown.
    Ended,
    /// The call cannot be sent, with this error number.
    Failed(i32),
}
