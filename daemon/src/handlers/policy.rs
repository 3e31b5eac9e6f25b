//! `proto::api::policy`: verdicts without acts, and rights that only shrink.

use std::sync::Arc;

use sockbroker_proto::api::policy::{
    CheckParams, Considered, Effective, Filter, Generation, PolicyServer, RestrictParams,
    RestrictServer, RuleInfo, Verdict, WaitParams, WhoamiParams,
};

use crate::config::limits::size;
use crate::error::{OpError, OpResult};
use crate::handlers::Handlers;
use crate::quota::{Reservation, Share};
use crate::rpc::call::Call;
use sockbroker_policy::action::Request;
use sockbroker_policy::file::RuleText;
use sockbroker_policy::rights::Restriction;
use sockbroker_policy::rule::Rule;
use sockbroker_policy::words::Described;

impl PolicyServer for Handlers {
    type Call = Call;
    type Error = OpError;

    fn check(call: &Call, params: CheckParams) -> OpResult<Verdict> {
        let CheckParams { action } = params;
        let rights = call.rights();
        let described: Described = action.parse().map_err(OpError::value)?;
        let described = described.under(&rights);
        let considered = rights.considered(&described.question()).into_iter();
        let considered = considered.map(|(rule, mismatch)| Considered {
            rule: rule.name.to_string(),
            effect: rule.effect.word().to_owned(),
            mismatch: mismatch.map(str::to_owned),
        });
        let considered = considered.collect();
        Ok(match rights.ask(described) {
            Ok(permit) => Verdict {
                allowed: true,
                rule: permit.rule().to_string(),
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

    fn restrict(call: &Call, params: RestrictParams) -> OpResult<()> {
        let RestrictParams { rules, filters } = params;
        let (kept, share) = restriction(call, rules, filters)?;
        call.session().restrict(kept, share)
    }
}

/// The longest name of a rule in bytes, here and in the policy file.
const NAME_MAX: usize = 255;
/// The memory that one item of a list takes in addition to its text: its slot and its allocation.
const ITEM: usize = 64;

/// The memory of a filter.
fn memory(filter: &Filter) -> usize {
    let Filter { allow, family, kind, protocol, local, local_ports, .. } = filter;
    let Filter { remote, remote_ports, interface, path, option, netlink, .. } = filter;
    let lists = [family, kind, protocol, local, local_ports, remote, remote_ports];
    let lists = lists.into_iter().chain([interface, path, option, netlink]).flatten();
    size_of::<Rule>() + texts(allow) + lists.map(|list| texts(list)).sum::<usize>()
}

fn texts(list: &[String]) -> usize {
    list.iter().map(|text| ITEM + text.len()).sum()
}

/// What a session keeps, as its caller wrote it, and the memory it takes of its user's share.
pub(super) fn restriction(
    call: &Call,
    rules: Option<Vec<String>>,
    filters: Option<Vec<Filter>>,
) -> OpResult<(Restriction, Reservation)> {
    let (rules, filters) = (rules.unwrap_or_default(), filters.unwrap_or_default());
    let limit = call.broker().limits.restriction_items;
    if rules.len() + filters.len() > size(limit) {
        return Err(OpError::Limit { name: "restriction_items", value: limit });
    }
    if rules.iter().any(|name| name.len() > NAME_MAX) {
        return Err(OpError::value(format!("the name of a rule has at most {NAME_MAX} bytes")));
    }
    let memory = texts(&rules) + filters.iter().map(memory).sum::<usize>();
    let share = call.connection().user().take(Share::Restrictions, memory as u64)?;
    let read = |filter: Filter| {
        // The words are those of the file, and so is their reader.
        let text = serde_json::to_value(filter).map_err(|error| error.to_string());
        let text = text.and_then(|value| {
            serde_json::from_value::<RuleText>(value).map_err(|error| error.to_string())
        });
        text.and_then(RuleText::filter).map_err(OpError::value)
    };
    let kept = Restriction {
        filters: filters.into_iter().map(read).collect::<OpResult<_>>()?,
        rules: rules.into_iter().map(Arc::from).collect(),
    };
    Ok((kept, share))
}
