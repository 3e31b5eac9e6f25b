//! Ends what a new policy no longer grants.

use crate::session::Session;
use crate::session::broker::Broker;
use crate::table::Resource;
use crate::table::channel::ChannelEnd;
use sockbroker_policy::Policy;
use sockbroker_policy::action::Create;
use sockbroker_policy::question::Question;
use sockbroker_policy::rights::Rights;
use sockbroker_policy::verb::Verb;

impl Broker {
    /// Closes the sockets and streams that the policy in force does not grant.
    pub(super) fn revoke(&self) {
        let (policy, _) = self.policy.current();
        self.revoke_persistence(&policy);
        for session in self.sessions() {
            let closed = session.revoke(&policy);
            if closed > 0 {
                let (session, uid) = (session.number(), session.uid());
                tracing::info!(session, uid, closed, "closed handles that are no longer granted");
            }
        }
    }
}

impl Session {
    /// Ends the sockets and streams that a policy does not grant, and the calls that wait on them. Returns
    /// how many it ended.
    pub fn revoke(&self, policy: &Policy) -> usize {
        let rights = policy.select(self.principal.subject(), self.restrictions());
        let resources = self.table().resources().into_iter();
        let gone: Vec<_> =
            resources.filter(|(_, resource)| !is_granted(&rights, resource)).collect();
        for (handle, resource) in &gone {
            match resource {
                Resource::Socket(entry) => {
                    entry.channels.end(ChannelEnd::Revoked);
                    entry.end();
                }
                Resource::Stream(stream) => stream.revoke(),
            }
            // A call may have removed it meanwhile.
            drop(self.remove(*handle));
        }
        gone.len()
    }
}

fn is_granted(rights: &Rights, resource: &Resource) -> bool {
    match resource {
        Resource::Socket(entry) => {
            let socket = entry.actual();
            let adopt = Question::about(Verb::Adopt, socket);
            let rights = rights.within(entry.namespace());
            rights.authorize(Create { socket }).is_ok() || rights.grants(&adopt)
        }
        Resource::Stream(stream) => stream.is_granted(rights),
    }
}
