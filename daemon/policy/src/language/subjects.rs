//! Whom a rule is about.

use crate::language::name::{PathPrefix, Pattern};

/// Whose requests a rule is about: each field that is not empty must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subjects {
    /// User ids; `None` for every user. An unknown name leaves the list empty, which nobody is in.
    pub uids: Option<Vec<u32>>,
    /// Group ids; the same.
    pub gids: Option<Vec<u32>>,
    /// Units; empty for any.
    pub units: Vec<Pattern>,
    /// Control groups with what is below them; empty for any.
    pub cgroups: Vec<PathPrefix>,
    /// Whether it names users or groups that this host does not know: `uids` or `gids` lack them.
    pub incomplete: bool,
}
