//! Operands that are found out only where a rule looks at them: finding one out is a system call.

use crate::language::rule::Rule;

/// Which operands some rule about a verb looks at: what need not be found out is not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set of five")]
pub struct Operands {
    /// The local address.
    pub local: bool,
    /// The address at the other end.
    pub remote: bool,
    /// The interface.
    pub interface: bool,
    /// The file of an `AF_UNIX` socket.
    pub path: bool,
    /// The age of a look-up.
    pub lookup: bool,
}

impl Operands {
    /// With those that a rule looks at.
    pub(super) fn add(&mut self, rule: &Rule) {
        let path = !rule.path.is_empty();
        self.path |= path;
        self.local |= path || !(rule.local.is_empty() && rule.local_ports.is_empty());
        self.remote |= path || !(rule.remote.is_empty() && rule.remote_ports.is_empty());
        self.interface |= !rule.interface.is_empty();
        self.lookup |= rule.lookup.is_some();
    }
}
