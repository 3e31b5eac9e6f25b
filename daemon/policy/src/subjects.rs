//! Whom a rule is about.

use super::name::{PathPrefix, Pattern};
use super::rule::{Effect, admits};
use super::subject::Subject;

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

impl Subjects {
    /// Whether a subject is meant by a rule of this effect. One whose control group the kernel does not
    /// tell may be in any: it is meant by every rule that refuses, and by none that grants.
    pub fn contains(&self, subject: &Subject, effect: Effect) -> bool {
        let placed = match subject.cgroup.as_deref() {
            Some(cgroup) => {
                admits(&self.units, subject.unit.as_deref(), Pattern::matches)
                    && admits(&self.cgroups, Some(cgroup), |prefix, path| {
                        prefix.contains_path(path.as_bytes())
                    })
            }
            None => effect == Effect::Deny || (self.units.is_empty() && self.cgroups.is_empty()),
        };
        placed
            && self.uids.as_ref().is_none_or(|uids| uids.contains(&subject.uid))
            && self.gids.as_ref().is_none_or(|g| g.iter().any(|gid| subject.is_in_group(*gid)))
    }
}
