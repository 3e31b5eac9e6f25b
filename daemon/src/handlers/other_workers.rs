//! What the other workers answer to the queries of an administrator.

use serde::de::DeserializeOwned;
use sockbroker_monitor::message::{Query, WaitingSession};

use crate::error::{OpError, OpResult};
use crate::session::broker::Broker;
use crate::session::monitor_link::QueryResults;

/// The answers of the other workers, each with the user of the worker; none if this process serves every principal.
pub(super) async fn query(broker: &Broker, query: Query) -> OpResult<Vec<(u32, Vec<u8>)>> {
    Ok(query_with_waiting(broker, query).await?.0)
}

/// The answers of the other workers, and the sessions that have no worker.
pub(super) async fn query_with_waiting(
    broker: &Broker,
    query: Query,
) -> OpResult<(Vec<(u32, Vec<u8>)>, Vec<WaitingSession>)> {
    let Some(monitor) = broker.monitor() else { return Ok((Vec::new(), Vec::new())) };
    let QueryResults { results, waiting, missing } = monitor.query_others(query).await?;
    match missing {
        Some(0) => {}
        Some(missing) => tracing::warn!(missing, "workers did not answer a query in time"),
        None => {
            let text = "the monitor knows a client by its user and groups only, and no rule that names these lets it \
                        administer the broker";
            return Err(OpError::Session(text));
        }
    }
    Ok((results, waiting))
}

/// Decodes the answer of a worker. One that cannot be read is logged and left out: a worker that was taken over must not
/// hide the others.
pub(super) fn decoded<T: DeserializeOwned>(uid: u32, result: &[u8]) -> Option<T> {
    serde_json::from_slice(result)
        .inspect_err(|error| tracing::warn!(uid, %error, "the answer of a worker cannot be read"))
        .ok()
}
