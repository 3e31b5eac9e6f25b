//! The values of a rule's fields, and how a policy file and a filter of `session.restrict` write them.

use std::time::Duration;

use serde::de::{Deserialize, MapAccess};

use crate::language::line::{list, quoted};
use crate::language::list::NonEmpty;
use crate::language::message_class::MessageClass;
use crate::language::name::{PathPrefix, Pattern};
use crate::language::netns::NetnsPattern;
use crate::language::operand::Operand;
use crate::language::option_class::OptionClass;
use crate::language::qualifier::{Handover, Lookup, Paths};
use crate::language::value::{Family, Network, Ports, Protocol, SocketType, protocol_name};

/// The age of a look-up in seconds that a rule accepts if it does not name one.
const LOOKUP_SECONDS: u64 = 300;

/// The fields of a rule. An empty list and `None` mean that the rule does not have the field, which admits
/// any value, with the exceptions named here.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "the fields are those of the rule language: sockbroker-policy(5)")]
pub struct Fields {
    pub family: Vec<Family>,
    pub ty: Vec<SocketType>,
    pub protocol: Vec<Protocol>,
    pub local: Vec<Network>,
    pub local_ports: Vec<Ports>,
    pub remote: Vec<Network>,
    pub remote_ports: Vec<Ports>,
    pub interface: Vec<Pattern>,
    /// A rule without it is about the broker's own network namespace.
    pub netns: Vec<NetnsPattern>,
    pub path: Vec<PathPrefix>,
    /// An `allow` without it grants every class but `unknown`.
    pub option: Vec<OptionClass>,
    /// An `allow` without it grants none.
    pub netlink: Vec<MessageClass>,
    /// In bytes of each packet.
    pub snaplen: Option<u64>,
    /// Without it: `ordinary` in an `allow`, everything in a `deny`.
    pub handover: Option<Handover>,
    /// An `allow` without it passes no descriptor that escapes a `deny`.
    pub unchecked: Option<bool>,
    /// An `allow` without it grants no path as text.
    pub paths: Option<Paths>,
    pub lookup: Option<Lookup>,
    pub lookup_seconds: Option<u64>,
}

impl Fields {
    /// Reads the value of a field, which comes next in the map.
    pub(crate) fn read<'de, A>(&mut self, operand: Operand, map: &mut A) -> Result<(), A::Error>
    where
        A: MapAccess<'de>,
    {
        match operand {
            Operand::Family => self.family = values(operand, map)?,
            Operand::Type => self.ty = values(operand, map)?,
            Operand::Protocol => self.protocol = values(operand, map)?,
            Operand::Local => self.local = values(operand, map)?,
            Operand::LocalPorts => self.local_ports = values(operand, map)?,
            Operand::Remote => self.remote = values(operand, map)?,
            Operand::RemotePorts => self.remote_ports = values(operand, map)?,
            Operand::Interface => self.interface = values(operand, map)?,
            Operand::Netns => self.netns = values(operand, map)?,
            Operand::Path => self.path = values(operand, map)?,
            Operand::Option => self.option = values(operand, map)?,
            Operand::Netlink => self.netlink = values(operand, map)?,
            Operand::Snaplen => self.snaplen = map.next_value()?,
            Operand::Handover => self.handover = map.next_value()?,
            Operand::Unchecked => self.unchecked = map.next_value()?,
            Operand::Paths => self.paths = map.next_value()?,
            Operand::Lookup => self.lookup = map.next_value()?,
            Operand::LookupSeconds => self.lookup_seconds = map.next_value()?,
        }
        Ok(())
    }

    /// Whether the rule has a field.
    pub fn has(&self, operand: Operand) -> bool {
        match operand {
            Operand::Family => !self.family.is_empty(),
            Operand::Type => !self.ty.is_empty(),
            Operand::Protocol => !self.protocol.is_empty(),
            Operand::Local => !self.local.is_empty(),
            Operand::LocalPorts => !self.local_ports.is_empty(),
            Operand::Remote => !self.remote.is_empty(),
            Operand::RemotePorts => !self.remote_ports.is_empty(),
            Operand::Interface => !self.interface.is_empty(),
            Operand::Netns => !self.netns.is_empty(),
            Operand::Path => !self.path.is_empty(),
            Operand::Option => !self.option.is_empty(),
            Operand::Netlink => !self.netlink.is_empty(),
            Operand::Snaplen => self.snaplen.is_some(),
            Operand::Handover => self.handover.is_some(),
            Operand::Unchecked => self.unchecked.is_some(),
            Operand::Paths => self.paths.is_some(),
            Operand::Lookup => self.lookup.is_some(),
            Operand::LookupSeconds => self.lookup_seconds.is_some(),
        }
    }

    /// The fields that the rule has, in the order of the rule language.
    pub fn present(&self) -> impl Iterator<Item = Operand> {
        Operand::ALL.iter().copied().filter(|operand| self.has(*operand))
    }

    /// The value of a field as a policy file writes it.
    pub(crate) fn text(&self, operand: Operand) -> Option<String> {
        match operand {
            Operand::Family => list(&self.family),
            Operand::Type => list(&self.ty),
            Operand::Protocol => {
                let family = self.family.first().map(|family| family.0);
                list(self.protocol.iter().map(|protocol| protocol_name(family, protocol.0)))
            }
            Operand::Local => list(&self.local),
            Operand::LocalPorts => list(&self.local_ports),
            Operand::Remote => list(&self.remote),
            Operand::RemotePorts => list(&self.remote_ports),
            Operand::Interface => list(&self.interface),
            Operand::Netns => list(&self.netns),
            Operand::Path => list(&self.path),
            Operand::Option => list(self.option.iter().map(|class| class.word())),
            Operand::Netlink => list(self.netlink.iter().map(|class| class.word())),
            Operand::Snaplen => self.snaplen.map(|snaplen| snaplen.to_string()),
            Operand::Handover => self.handover.map(|handover| quoted(handover.word())),
            Operand::Unchecked => self.unchecked.map(|unchecked| unchecked.to_string()),
            Operand::Paths => self.paths.map(|paths| quoted(paths.word())),
            Operand::Lookup => self.lookup.map(|lookup| quoted(lookup.word())),
            Operand::LookupSeconds => self.lookup_limit().map(|limit| limit.as_secs().to_string()),
        }
    }

    /// The greatest age of the look-up that a destination must come from; `None` if it needs none.
    pub(crate) fn lookup_limit(&self) -> Option<Duration> {
        let seconds = self.lookup_seconds.unwrap_or(LOOKUP_SECONDS);
        self.lookup.map(|Lookup::Required| Duration::from_secs(seconds))
    }
}

/// The list of a field, which comes next in the map.
fn values<'de, T, A>(operand: Operand, map: &mut A) -> Result<Vec<T>, A::Error>
where
    T: Deserialize<'de>,
    A: MapAccess<'de>,
{
    map.next_value_seed(NonEmpty::field(operand.word()))
}
