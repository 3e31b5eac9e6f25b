//! The subjects of a rule.

use crate::language::name::{PathPrefix, Pattern};

/// The subjects whose requests a rule is about: each field that is not empty must hold. With `certificates` or `tokens` it
/// is about remote principals, and one of the two must hold.
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
    /// Names of client certificates, such as `uri:spiffe://lab/*`.
    pub certificates: Vec<Pattern>,
    /// Names of tokens.
    pub tokens: Vec<Pattern>,
    /// Whether it names users or groups that this host does not know: `uids` or `gids` lack them.
    pub incomplete: bool,
}

impl Subjects {
    /// Whether the rule is about remote principals.
    pub fn are_remote(&self) -> bool {
        !self.certificates.is_empty() || !self.tokens.is_empty()
    }

    /// Whether the rule is about everyone.
    pub(crate) fn are_everyone(&self) -> bool {
        *self == Self::default()
    }
}
