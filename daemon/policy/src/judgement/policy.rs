//! The policy in force: its rules and where they were read.

use std::sync::Arc;

use crate::language::rule::Rule;

/// The policy in force.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The broker's own user id.
    owner: u32,
    rules: Vec<Arc<Rule>>,
    revokes: bool,
    /// The files that it was read from, for reports.
    files: Vec<String>,
}

impl Policy {
    /// The policy of a broker that runs as `owner` and has no file.
    pub fn built_in(owner: u32) -> Self {
        Self::new(owner, Vec::new(), false)
    }

    /// A policy of rules. With `revokes`, loading it in place of another policy closes the sockets that it
    /// would not have granted.
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

    /// Whether loading it closes sockets that it would not have granted.
    pub fn revokes(&self) -> bool {
        self.revokes
    }

    /// Whether a user is allowed everything: root, and the broker's own user.
    pub fn is_owner(&self, uid: u32) -> bool {
        uid == 0 || uid == self.owner
    }
}
