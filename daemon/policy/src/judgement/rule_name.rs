//! The name of the rule that decided.

use std::fmt;
use std::sync::Arc;

/// The rule about root and the broker's own user, the last of all.
pub(crate) const OWNER_RULE: &str = "built-in: root and the broker's own user";
/// The rule about every subject that has been granted anything.
pub(crate) const HOLDER_RULE: &str = "built-in: sessions and the state of your own sockets";
/// The name that stands for a right given up by `session.restrict`.
pub(crate) const RESTRICTED: &str = "session.restrict";
/// The rule that refuses the broker's control socket as a destination.
pub(crate) const CONTROL_SOCKET: &str =
    "built-in: the broker's control socket is not a destination";
/// The name for the case that no rule matches.
pub(crate) const NO_RULE: &str = "no rule";

/// The name of the rule that decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleName {
    /// A rule that is built in.
    BuiltIn(&'static str),
    /// A rule of the policy file.
    Written(Arc<str>),
}

impl RuleName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::BuiltIn(name) => name,
            Self::Written(name) => name,
        }
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
