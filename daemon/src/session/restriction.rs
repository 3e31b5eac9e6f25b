//! What a session gave up by `session.restrict`: as it was written, as rules, and the memory that both take.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sockbroker_proto::api::policy::Filter;

use crate::config::limits::{Limits, size};
use crate::error::{OpError, OpResult};
use crate::quota::{Reservation, Share, User};
use sockbroker_policy::file::RuleText;
use sockbroker_policy::rights::Restriction;
use sockbroker_policy::rule::Rule;

/// The longest name of a rule in bytes, here and in the policy file.
const NAME_MAX: usize = 255;
/// The memory of one item of a list without its text: its slot and its allocation.
const ITEM: usize = 64;

/// One restriction as text. A session keeps what matches one of its filters or is granted by one of its
/// rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestrictionText {
    /// Names of rules of the policy.
    pub rules: Vec<String>,
    /// Filters, each as a JSON object.
    pub filters: Vec<String>,
}

/// A restriction in force. Sessions that were cloned from one another share it.
#[derive(Debug, Clone)]
pub struct SessionRestriction(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    text: RestrictionText,
    rules: Arc<Restriction>,
    _memory: Reservation,
}

impl RestrictionText {
    /// The text of a request. Fails with the name of a limit that it exceeds.
    pub fn new(rules: Vec<String>, filters: &[Filter], limits: &Limits) -> OpResult<Self> {
        let limit = limits.restriction_items;
        if rules.len() + filters.len() > size(limit) {
            return Err(OpError::Limit { name: "restriction_items", value: limit });
        }
        if rules.iter().any(|name| name.len() > NAME_MAX) {
            return Err(OpError::value(format!("the name of a rule has at most {NAME_MAX} bytes")));
        }
        let text = |filter: &Filter| serde_json::to_string(filter);
        let filters = filters.iter().map(text).collect::<Result<_, _>>();
        Ok(Self { rules, filters: filters.map_err(|error| OpError::value(error.to_string()))? })
    }

    /// The memory of the text and of the rules made from it.
    fn memory(&self) -> u64 {
        // Every item of a list but its first follows a comma.
        let filter = |text: &String| {
            size_of::<Rule>() + 2 * text.len() + ITEM * (1 + text.matches(',').count())
        };
        let rules = self.rules.iter().map(|name| 2 * (ITEM + name.len()));
        (rules.sum::<usize>() + self.filters.iter().map(filter).sum::<usize>()) as u64
    }

    fn read(&self) -> OpResult<Restriction> {
        let filter = |text: &String| {
            let read = serde_json::from_str::<RuleText>(text).map_err(|error| error.to_string());
            read.and_then(RuleText::filter).map_err(OpError::value)
        };
        Ok(Restriction {
            filters: self.filters.iter().map(filter).collect::<OpResult<_>>()?,
            rules: self.rules.iter().map(|name| Arc::from(name.as_str())).collect(),
        })
    }
}

impl SessionRestriction {
    /// Reads a restriction of a user, within its limits.
    pub fn new(text: RestrictionText, user: &Arc<User>) -> OpResult<Self> {
        let memory = user.take(Share::Restrictions, text.memory())?;
        Self::with_memory(text, memory)
    }

    /// Reads a restriction that was in force before; no limit refuses it.
    pub(super) fn restore(text: RestrictionText, user: &Arc<User>) -> OpResult<Self> {
        let memory = user.take_back(Share::Restrictions, text.memory());
        Self::with_memory(text, memory)
    }

    fn with_memory(text: RestrictionText, memory: Reservation) -> OpResult<Self> {
        let rules = Arc::new(text.read()?);
        Ok(Self(Arc::new(Inner { text, rules, _memory: memory })))
    }

    pub fn text(&self) -> &RestrictionText {
        &self.0.text
    }

    pub(super) fn rules(&self) -> Arc<Restriction> {
        self.0.rules.clone()
    }
}
