//! Finds what became of a call of a connection that has ended (`call.resolve`).

use std::time::Duration;

use sockbroker_proto::api::session::RequestId;
use tokio::time::timeout;

use crate::error::{OpError, OpResult};
use crate::session::Session;
use crate::session::finished::{CallOutcome, KeptAnswer};

impl Session {
    /// What became of a call on another connection of this session. Waits for the connection's end.
    pub async fn call_outcome(
        &self,
        connection: u64,
        request: &RequestId,
        check: impl Fn(&KeptAnswer) -> OpResult<()>,
    ) -> OpResult<CallOutcome> {
        let value = self.limits.resolve_seconds;
        let wait = async {
            loop {
                // Registered before the connection is looked up, so that no end is missed between the two.
                let ended = self.ended.notified();
                {
                    let mut state = self.state();
                    if !state.connections.contains(&connection) {
                        return state.finished.take(connection, request, &check);
                    }
                }
                ended.await;
            }
        };
        let late = OpError::Limit { name: "resolve_seconds", value };
        timeout(Duration::from_secs(value), wait).await.map_err(|_elapsed| late)?
    }
}
