//! The policy: may this subject do this? Pure: no await, no I/O, no clock.
//!
//! [`Policy::select`] finds the rules about a subject once; [`Rights::ask`] is the only maker of a
//! [`Permit`], and every operation takes one by value. The permit holds the request it was given for,
//! so what is done is what was judged.
//!
//! Nothing is granted unless a rule says so, and a rule that refuses goes before all that grant. Two
//! rules are built in and come last: root and the broker's own user may do everything, and whoever has
//! been granted anything may keep sessions and look at its own sockets.

#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

mod vocabulary;
pub mod socket_spec;
pub mod verb;
pub mod action;
pub mod traffic;
pub mod target;
mod paths;
mod escape;
pub mod subject;
pub mod option;
pub mod netlink;
pub mod membership;
pub mod question;
pub mod value;
pub mod name;
pub mod subjects;
pub mod rule;
mod list;
mod place;
pub mod subject_text;
pub mod file;
pub mod operands;
pub mod rights;
mod contradiction;
pub mod check;
pub mod need;
pub mod words;
mod grant;
mod denial;
mod outline;

use std::sync::Arc;

use action::Request;
use rights::{Restriction, Rights, RuleName};
use rule::Rule;
use subject::Subject;
use verb::Verb;

/// The policy in force.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The broker's own user id.
    owner: u32,
    rules: Vec<Arc<Rule>>,
    revokes: bool,
    /// Where it was read, to be told.
    files: Vec<String>,
}

/// Proof that a request was allowed, with the request itself.
#[derive(Debug)]
#[must_use = "a permit is there to be spent on its operation"]
pub struct Permit<R> {
    request: R,
    rule: RuleName,
}

impl<R> Permit<R> {
    /// What was allowed.
    pub fn request(&self) -> &R {
        &self.request
    }

    /// Spends the permit.
    pub fn into_request(self) -> R {
        self.request
    }

    /// The rule that allowed it.
    pub fn rule(&self) -> &RuleName {
        &self.rule
    }
}

/// A refusal, with what would have to be granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("uid {uid} may not {what}: {}{}", denial::why(rule, grant), spell_hint(*hint))]
pub struct Denial {
    /// What was asked.
    pub verb: Verb,
    /// The same in words, with what it was to act on.
    pub what: String,
    /// The subject's user id.
    pub uid: u32,
    /// The error number that the kernel would give.
    pub errno: i32,
    /// The rule that decided, or [`rights::NO_RULE`].
    pub rule: RuleName,
    /// The grant it lacks, as fields of a rule.
    pub grant: String,
    /// What would do instead.
    pub hint: Option<&'static str>,
}

fn spell_hint(hint: Option<&str>) -> String {
    hint.map(|hint| format!("; {hint}")).unwrap_or_default()
}

impl Policy {
    /// The policy of a broker that runs as `owner` and has no file.
    pub fn built_in(owner: u32) -> Self {
        Self::new(owner, Vec::new(), false)
    }

    /// A policy of rules. `revokes` closes, when it is loaded in place of another, what it would not
    /// have granted.
    pub fn new(owner: u32, rules: Vec<Rule>, revokes: bool) -> Self {
        Self { owner, rules: rules.into_iter().map(Arc::new).collect(), revokes, files: Vec::new() }
    }

    /// The rules, in the order they were read.
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// The same, read from these files in this order.
    #[must_use]
    pub fn read_from(mut self, files: Vec<String>) -> Self {
        self.files = files;
        self
    }

    /// The files that it was read from, in order; none for the built-in one.
    pub fn files(&self) -> &[String] {
        &self.files
    }

    /// Whether loading it closes what it would not have granted.
    pub fn revokes(&self) -> bool {
        self.revokes
    }

    /// Whether a user may do everything: root, and the broker's own.
    pub fn is_owner(&self, uid: u32) -> bool {
        uid == 0 || uid == self.owner
    }

    /// What a subject may do, less what its session has given up.
    pub fn select(&self, subject: &Subject, restrictions: Vec<Arc<Restriction>>) -> Rights {
        Rights::select(self, subject, restrictions)
    }
}

impl Rights {
    /// Judges a request, and everything it brings with it.
    pub fn ask<R: Request>(&self, request: R) -> Result<Permit<R>, Box<Denial>> {
        let rule = self.judge(&request.question())?;
        let mut refused = None;
        request.further(&mut |question| {
            if refused.is_none() {
                refused = self.judge(&question).err();
            }
        });
        match refused {
            Some(denial) => Err(denial),
            None => Ok(Permit { request, rule }),
        }
    }
}

#[cfg(test)]
mod tests;
