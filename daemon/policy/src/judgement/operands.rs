//! Operands that require a system call. The broker determines them only if a rule names them.

use crate::language::operand::Operand;
use crate::language::rule::Rule;

/// The operands that the rules about a verb depend on. The broker does not determine the others.
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
    /// Adds those that a rule depends on.
    pub(super) fn add(&mut self, rule: &Rule) {
        rule.fields.present().for_each(|operand| self.add_field(operand));
    }

    fn add_field(&mut self, operand: Operand) {
        match operand {
            Operand::Local | Operand::LocalPorts => self.local = true,
            Operand::Remote | Operand::RemotePorts => self.remote = true,
            Operand::Interface => self.interface = true,
            // The file of either end.
            Operand::Path => (self.path, self.local, self.remote) = (true, true, true),
            Operand::Lookup | Operand::LookupSeconds => self.lookup = true,
            // The request has these, or the table of handles.
            Operand::Family
            | Operand::Type
            | Operand::Protocol
            | Operand::Netns
            | Operand::Option
            | Operand::Netlink
            | Operand::Snaplen
            | Operand::Handover
            | Operand::Unchecked
            | Operand::Paths => {}
        }
    }
}
