//! The subjects of a rule.

use crate::language::name::{PathPrefix, Pattern};

/// The subjects whose requests a rule is about: each field that is not empty must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subjects {
    /// User ids; `None` for every user. A list of unknown names only is empty, and matches nobody.
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
