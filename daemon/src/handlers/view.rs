//! What the other workers answer to an administrator.

use serde::de::DeserializeOwned;
use sockbroker_monitor::message::View;

use crate::error::{OpError, OpResult};
use crate::session::broker::Broker;
use crate::session::monitor_link::Seen;

/// What the other workers answer; nothing if this process serves every principal.
pub(super) async fn seen(broker: &Broker, view: View) -> OpResult<Vec<Vec<u8>>> {
    let Some(monitor) = broker.monitor() else { return Ok(Vec::new()) };
    let Seen { parts, missing } = monitor.view(view).await?;
    if missing > 0 {
        tracing::warn!(missing, "workers did not answer in time: a view lacks them");
    }
    Ok(parts)
}

pub(super) fn decoded<T: DeserializeOwned>(part: &[u8]) -> OpResult<T> {
    let wrong = |error| OpError::Plain(format!("the answer of a worker cannot be read: {error}"));
    serde_json::from_slice(part).map_err(wrong)
}
