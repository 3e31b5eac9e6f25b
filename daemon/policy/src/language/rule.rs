//! A rule as data.

use std::sync::Arc;

use crate::language::fields::Fields;
use crate::language::line::line;
use crate::language::subjects::Subjects;
use crate::language::value::{Family, SocketType};
use crate::language::verb::{Verb, VerbSet};
use sockbroker_proto::socket_spec::SocketSpec;

pub use crate::language::verb::Effect;

/// A rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its name; no two rules of a policy have the same.
    pub name: Arc<str>,
    /// Whether it grants or refuses.
    pub effect: Effect,
    /// The subjects whose requests it is about.
    pub subject: Subjects,
    /// Which of their requests it is about, except for the verbs.
    pub fields: Fields,
    pub(crate) verbs: VerbSet,
    pub(crate) sockets: Sockets,
}

impl Rule {
    /// A rule about verbs.
    pub(crate) fn new(
        name: Arc<str>,
        effect: Effect,
        verbs: VerbSet,
        subject: Subjects,
        fields: Fields,
    ) -> Self {
        let sockets = Sockets::new(&fields.family, &fields.ty);
        Self { name, effect, subject, fields, verbs, sockets }
    }

    /// Its verbs and fields as a line of the rule language, without name and subject.
    pub fn line(&self) -> String {
        line(self.effect, self.verbs(), |operand| self.fields.text(operand))
    }

    /// The verbs it is about.
    pub fn verbs(&self) -> impl Iterator<Item = Verb> {
        self.verbs.iter()
    }

    /// Whether it is about a verb.
    pub(crate) fn has_verb(&self, verb: Verb) -> bool {
        self.verbs.has(verb)
    }
}

/// The families and types of a rule as bits, since every request about a socket is compared with them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sockets {
    families: Numbers,
    types: Numbers,
}

impl Sockets {
    fn new(families: &[Family], types: &[SocketType]) -> Self {
        Self {
            families: Numbers::new(families.iter().map(|family| family.0)),
            types: Numbers::new(types.iter().map(|ty| ty.0)),
        }
    }

    /// Whether the family of a socket is one that the rule is about.
    #[inline]
    pub(crate) fn admit_family(self, socket: Option<SocketSpec>) -> bool {
        self.families.admit(socket.map(|socket| socket.domain))
    }

    /// Whether the type of a socket is one that the rule is about.
    #[inline]
    pub(crate) fn admit_type(self, socket: Option<SocketSpec>) -> bool {
        self.types.admit(socket.map(|socket| socket.ty))
    }
}

/// Some small numbers, or any.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    any: bool,
    bits: u64,
}

impl Numbers {
    /// Those of a list. An empty list means any.
    fn new(numbers: impl ExactSizeIterator<Item = i32>) -> Self {
        Self { any: numbers.len() == 0, bits: numbers.fold(0, |bits, number| bits | bit(number)) }
    }

    #[inline]
    fn admit(self, number: Option<i32>) -> bool {
        self.any || number.is_some_and(|number| self.bits & bit(number) != 0)
    }
}

/// The bit of a family or type; Linux has families up to 45. None for what cannot be one.
fn bit(number: i32) -> u64 {
    u32::try_from(number).ok().and_then(|number| 1_u64.checked_shl(number)).unwrap_or(0)
}

/// Whether an operand is in a list. An empty list admits everything; any other list admits nothing if the
/// operand is absent.
pub(crate) fn admits<T, V>(list: &[T], operand: Option<V>, holds: impl Fn(&T, V) -> bool) -> bool
where
    V: Copy,
{
    list.is_empty() || operand.is_some_and(|operand| list.iter().any(|item| holds(item, operand)))
}
