//! Rules that the holder of a passed descriptor escapes: rules about addresses, interfaces and paths,
//! which apply to calls through the broker only.

use crate::language::operand::Operand;
use crate::language::rule::{Effect, Rule};
use crate::language::verb::Verb;

/// Verbs that the holder of a descriptor exercises without the broker.
pub(crate) const HOLDER: [Verb; 9] = [
    Verb::Bind,
    Verb::Listen,
    Verb::Accept,
    Verb::Connect,
    Verb::Send,
    Verb::Receive,
    Verb::Option,
    Verb::Capture,
    Verb::Inject,
];

/// Whether a rule that denies could be about descriptors that another rule passes without deciding on
/// `unchecked`.
pub(crate) fn escapes(deny: &Rule, allow: &Rule) -> bool {
    let about = deny.effect == Effect::Deny && HOLDER.iter().any(|verb| deny.has_verb(*verb));
    let passes = allow.effect == Effect::Allow && allow.has_verb(Verb::Handover);
    let families = [libc::AF_INET, libc::AF_INET6, libc::AF_PACKET, libc::AF_CAN, libc::AF_UNIX];
    let named = |rule: &Rule, family| {
        rule.fields.family.is_empty() || rule.fields.family.iter().any(|own| own.0 == family)
    };
    let mut families = families.into_iter();
    let meet = families
        .any(|family| named(deny, family) && named(allow, family) && deny.binds_calls_of(family));
    about
        && passes
        && allow.fields.unchecked.is_none()
        && meet
        && deny.fields.netns.is_empty() == allow.fields.netns.is_empty()
        && overlap(&deny.fields.ty, &allow.fields.ty)
        && overlap(&deny.fields.protocol, &allow.fields.protocol)
}

/// Whether something is in both lists. An empty list means everything.
fn overlap<T: PartialEq>(one: &[T], other: &[T]) -> bool {
    one.is_empty() || other.is_empty() || one.iter().any(|item| other.contains(item))
}

impl Rule {
    /// Whether it is about this family by operands that differ from call to call.
    pub(crate) fn binds_calls_of(&self, family: i32) -> bool {
        self.fields.present().any(|operand| differs_by_call(operand, family))
    }
}

/// Whether calls on one socket of a family differ by an operand.
fn differs_by_call(operand: Operand, family: i32) -> bool {
    let internet = [libc::AF_INET, libc::AF_INET6].contains(&family);
    match operand {
        Operand::Local | Operand::LocalPorts | Operand::Remote | Operand::RemotePorts => internet,
        Operand::Interface => internet || [libc::AF_PACKET, libc::AF_CAN].contains(&family),
        Operand::Path => family == libc::AF_UNIX,
        Operand::Family
        | Operand::Type
        | Operand::Protocol
        | Operand::Netns
        | Operand::Option
        | Operand::Netlink
        | Operand::Snaplen
        | Operand::Handover
        | Operand::Unchecked
        | Operand::Paths
        | Operand::Lookup
        | Operand::LookupSeconds => false,
    }
}
