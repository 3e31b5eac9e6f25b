//! What this worker answers to an administrator whom another worker serves.

use sockbroker_monitor::message::Query;
use sockbroker_policy::action::Administer;
use sockbroker_policy::subject::Subject;

use crate::handlers::{admin, metrics};
use crate::rpc::methods::MethodTable;
use crate::session::broker::Broker;

/// Reads what the answer to a query needs and other processes know.
pub async fn prepare(broker: &Broker, query: &Query) {
    if matches!(query, Query::Metrics) {
        metrics::refresh(broker).await;
    }
}

/// What this worker answers to an administrator whom another worker serves. The monitor asks only for
/// principals that the policy lets administer the broker.
pub fn answer(broker: &Broker, methods: &MethodTable, query: Query) -> Vec<u8> {
    let (policy, _) = broker.policy.current();
    let root = policy.select(&Subject::new(0, 0), Vec::new());
    let encoded = match query {
        Query::Sessions => serde_json::to_vec(&admin::summaries(broker)),
        Query::Handles(session) => {
            let permit = root.authorize(Administer).ok();
            let infos = permit.and_then(|permit| admin::handles_of(broker, &permit, session));
            serde_json::to_vec(&infos)
        }
        Query::Metrics => Ok(metrics::describe(broker, methods).into_bytes()),
    };
    // These values have no map with keys that are not text, which is all that cannot be encoded.
    encoded.unwrap_or_default()
}
