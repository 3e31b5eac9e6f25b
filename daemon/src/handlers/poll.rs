//! `socket.poll`: waits for events on many handles.

use std::time::Duration;

use sockbroker_proto::constant::Constant;
use sockbroker_proto::handle::Handle;

use crate::config::limits::size;
use crate::error::{OpError, OpResult};
use crate::ops::poll::{Watched, poll};
use crate::rpc::call::Call;
use crate::table::timeout::Timeout;

/// Waits for events on handles. Returns the handles with events, in the order of the request.
pub(super) async fn poll_handles(
    call: &Call,
    fds: &[(Handle, Constant)],
    timeout: Option<f64>,
) -> OpResult<Vec<(Handle, i32)>> {
    let limit = call.broker().limits.poll_handles;
    if fds.len() > size(limit) {
        return Err(OpError::Limit { name: "poll_handles", value: limit });
    }
    // As in select.poll: a negative timeout waits without end.
    let timeout = match Timeout::from_seconds(timeout.filter(|seconds| *seconds >= 0.0))? {
        Timeout::Blocking => None,
        Timeout::NonBlocking => Some(Duration::ZERO),
        Timeout::After(duration) => Some(duration),
    };
    let mut watched = Vec::with_capacity(fds.len());
    for (handle, events) in fds {
        let events = i16::try_from(events.0)
            .map_err(|_error| OpError::overflow("events do not fit into C short"))?;
        let socket = match call.entry(*handle) {
            Ok(entry) => Some(call.inspect(&entry)?),
            Err(_) => None,
        };
        watched.push(Watched { socket, events });
    }
    let found = poll(&watched, timeout, call.connection().user()).await?;
    let pairs = fds.iter().zip(found).filter(|(_, events)| *events != 0);
    // Results are unsigned, as in CPython.
    Ok(pairs.map(|((handle, _), events)| (*handle, events.cast_unsigned().into())).collect())
}
