//! `proto::api::policy`: checks without effect, and restrictions of a session's rights.

use sockbroker_proto::api::policy::{
    CheckParams, Considered, Effective, Filter, Generation, PolicyServer, RestrictParams,
    RestrictServer, RuleInfo, Verdict, WaitParams, WhoamiParams,
};

use crate::error::{OpError, OpResult};
use crate::handlers::Handlers;
use crate::rpc::call::Call;
use crate::session::restriction::{RestrictionText, SessionRestriction};
use sockbroker_policy::words::Described;

impl PolicyServer for Handlers {
    type Call = Call;
    type Error = OpError;

    fn check(call: &Call, params: CheckParams) -> OpResult<Verdict> {
        let CheckParams { action } = params;
        let rights = call.rights();
        let described: Described = action.parse().map_err(OpError::value)?;
        let described = described.under(&rights);
        let considered = described.considered(&rights).into_iter();
        let considered = considered.map(|(rule, mismatch)| Considered {
            rule: rule.name.to_string(),
            effect: rule.effect.word().to_owned(),
            mismatch: mismatch.map(|operand| operand.word().to_owned()),
        });
        let considered = considered.collect();
        Ok(match described.judge(&rights) {
            Ok((rule, _packets)) => Verdict {
                allowed: true,
                rule: rule.to_string(),
                grant: None,
                errno: None,
                message: None,
                considered,
            },
            Err(denial) => Verdict {
                allowed: false,
                rule: denial.rule.to_string(),
                message: Some(denial.to_string()),
                errno: Some(denial.errno),
                grant: Some(denial.grant),
                considered,
            },
        })
    }

    fn whoami(call: &Call, _: WhoamiParams) -> OpResult<Effective> {
        let (rights, subject) = (call.rights(), call.connection().subject());
        let rules = rights.rules().into_iter();
        let rules = rules.map(|rule| RuleInfo { name: rule.name.to_string(), says: rule.line() });
        Ok(Effective {
            uid: subject.uid,
            principal: subject.remote.as_ref().map(ToString::to_string),
            gid: subject.gid,
            groups: subject.groups.to_vec(),
            pid: subject.pid,
            cgroup: subject.cgroup.as_deref().map(str::to_owned),
            unit: subject.unit.as_deref().map(str::to_owned),
            generation: call.broker().policy.generation(),
            owner: rights.is_owner(),
            restrictions: rights.restrictions() as u64,
            rules: rules.collect(),
        })
    }

    async fn wait(call: Call, params: WaitParams) -> OpResult<Generation> {
        let WaitParams { generation } = params;
        let generation = call.broker().policy.changed_from(generation).await;
        Ok(Generation { generation })
    }
}

impl RestrictServer for Handlers {
    type Call = Call;
    type Error = OpError;

    async fn restrict(call: Call, params: RestrictParams) -> OpResult<()> {
        let RestrictParams { rules, filters } = params;
        let restriction = restriction(&call, rules, filters)?;
        call.broker().restrict(call.session(), restriction).await
    }
}

/// Reads a restriction, within the limits of the caller.
pub(super) fn restriction(
    call: &Call,
    rules: Option<Vec<String>>,
    filters: Option<Vec<Filter>>,
) -> OpResult<SessionRestriction> {
    let (rules, filters) = (rules.unwrap_or_default(), filters.unwrap_or_default());
    let text = RestrictionText::new(rules, &filters, &call.broker().limits)?;
    SessionRestriction::new(text, call.connection().user())
}
