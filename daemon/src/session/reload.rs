//! Replaces the policy in force.

use std::sync::Arc;

use crate::error::{OpError, OpResult};
use crate::observe::audit::Record;
use crate::session::broker::Broker;
use crate::session::policy::NextPolicy;
use sockbroker_policy::Policy;

impl Broker {
    /// Reads the policy again and puts it in force; after any error the old one stays. Returns the
    /// generation in force.
    pub async fn reload(self: &Arc<Self>) -> OpResult<u64> {
        if let Some(monitor) = self.monitor() {
            return monitor.reload().await;
        }
        let broker = self.clone();
        // Files and the databases of users may block.
        let load = move || match &broker.policy.next {
            NextPolicy::Loader(load) => Some(load()),
            NextPolicy::Nowhere | NextPolicy::Monitor(_) => None,
        };
        let loaded = match tokio::task::spawn_blocking(load).await {
            Ok(Some(loaded)) => loaded,
            Ok(None) => return Ok(self.policy.generation()),
            Err(error) => std::panic::resume_unwind(Box::new(error.to_string())),
        };
        let policy = loaded.map_err(|reason| {
            tracing::error!(reason, "the new policy cannot be used: the old one stays in force");
            self.audit.report_own(|| {
                Record::new("policy").with("state", "kept").with("reason", &*reason)
            });
            OpError::Policy(reason)
        })?;
        let generation = self.policy.generation() + 1;
        self.put_in_force(policy, generation).await;
        tracing::info!(generation, "a new policy is in force");
        self.audit.report_own(|| {
            Record::new("policy").with("state", "loaded").with("number", generation)
        });
        Ok(generation)
    }

    /// Puts a policy in force, and closes what it revokes.
    pub async fn put_in_force(self: &Arc<Self>, policy: Policy, generation: u64) {
        let revokes = policy.revokes();
        self.policy.replace(policy, generation);
        if revokes {
            let broker = self.clone();
            // With many handles this takes long.
            let revoked = tokio::task::spawn_blocking(move || broker.revoke()).await;
            if let Err(error) = revoked {
                std::panic::resume_unwind(Box::new(error.to_string()));
            }
        }
    }
}
