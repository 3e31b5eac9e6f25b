//! The name of the rule that decided.

use std::fmt;
use std::sync::Arc;

/// The rule about root and the broker's own user, the last of all.
pub(crate) const OWNER_RULE: &str = "built-in: root and the broker's own user";
/// The rule about whoever has been granted anything.
pub(crate) const HOLDER_RULE: &str = "built-in: sessions and the state of one's own sockets";
/// What decides when `session.restrict` has given a right up.
pub(crate) const RESTRICTED: &str = "session.restrict";
/// What keeps the broker's own control socket from being a destination.
pub(crate) const CONTROL_SOCKET: &str =
    "built-in: the broker's own control socket is no destination";
/// What decides when no rule matches.
pub(crate) const NO_RULE: &str = "no rule";

/// The name of the rule that decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleName {
    /// A rule of the broker's own.
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
