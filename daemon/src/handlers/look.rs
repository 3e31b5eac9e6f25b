//! What this worker answers to an administrator whom another worker serves.

use sockbroker_monitor::message::View;
use sockbroker_policy::action::Administer;
use sockbroker_policy::subject::Subject;

use crate::handlers::{admin, metrics};
use crate::rpc::methods::MethodTable;
use crate::session::broker::Broker;

/// What this worker answers to an administrator whom another worker serves. The monitor asks only for root and
/// for the broker's own user, whom the built-in rule allows everything.
pub fn look(broker: &Broker, methods: &MethodTable, view: View) -> Vec<u8> {
    let (policy, _) = broker.policy.current();
    let root = policy.select(&Subject::new(0, 0), Vec::new());
    let encoded = match view {
        View::Sessions => serde_json::to_vec(&admin::summaries(broker)),
        View::Handles(session) => {
            let permit = root.authorize(Administer).ok();
            let infos = permit.and_then(|permit| admin::handles_of(broker, &permit, session));
            serde_json::to_vec(&infos)
        }
        View::Metrics => Ok(metrics::describe(broker, methods).into_bytes()),
    };
    // These values have no map with keys that are not text, which is all that cannot be encoded.
    encoded.unwrap_or_default()
}
