//! Claims ports and fan-out groups, which the kernel would share between principals.

use crate::error::OpResult;
use crate::principal::PrincipalKey;
use crate::session::broker::Broker;
use crate::table::claims::{Claim, Claimed};

impl Broker {
    /// Claims a port or a group for a principal; `None` if another principal has it.
    pub async fn claim(&self, claim: Claim, principal: &PrincipalKey) -> OpResult<Option<Claimed>> {
        if let Some(monitor) = self.monitor() {
            // In one step: the last socket may be closed meanwhile, and the claim with it.
            if let Some(joined) = self.claims.join(claim, principal) {
                return Ok(Some(joined));
            }
            if !monitor.claim(claim).await? {
                return Ok(None);
            }
        }
        Ok(self.claims.take(claim, principal))
    }
}
