//! The grant that a refused request lacks, as a line for the policy file.

use std::iter;
use std::net::IpAddr;

use crate::judgement::question::{Endpoint, Question};
use crate::judgement::socket_spec::JudgedSocket as _;
use crate::language::line::{line, list, quoted};
use crate::language::message_class::MessageClass;
use crate::language::operand::Operand;
use crate::language::option_class::OptionClass;
use crate::language::qualifier::{Handover, Paths};
use crate::language::value::{Family, SocketType, protocol_name};
use crate::language::verb::{Effect, Verb};
use sockbroker_proto::socket_spec::SocketSpec;

impl Question<'_> {
    /// The fields of a rule that would grant exactly this.
    pub fn grant(&self) -> String {
        line(Effect::Allow, iter::once(self.verb), |operand| self.granting(operand))
    }

    /// The value by which a field of a rule grants this; `None` where a rule without the field grants it.
    fn granting(&self, operand: Operand) -> Option<String> {
        let socket = self.socket;
        let strong = || socket.is_some_and(SocketSpec::is_unrevocable);
        match operand {
            Operand::Family => list(socket.map(|socket| Family(socket.domain))),
            Operand::Type => list(socket.map(|socket| SocketType(socket.ty))),
            Operand::Protocol => list(socket.and_then(protocol)),
            Operand::Local => list(ip(self.local).map(|(ip, _)| ip)),
            Operand::LocalPorts => list(ip(self.local).and_then(|(_, port)| port)),
            Operand::Remote => list(ip(self.remote).map(|(ip, _)| ip)),
            Operand::RemotePorts => list(ip(self.remote).and_then(|(_, port)| port)),
            Operand::Interface => list(self.interface),
            Operand::Netns => list(self.namespace.netns()),
            Operand::Path => list(self.path_end().and_then(path)),
            Operand::Option if self.verb == Verb::Option => {
                list(self.option.map(OptionClass::word))
            }
            Operand::Netlink => list(self.message.map(MessageClass::word)),
            Operand::Handover if self.verb == Verb::Handover && strong() => {
                Some(quoted(Handover::Unrevocable.word()))
            }
            Operand::Unchecked => self.escapes.map(|_| true.to_string()),
            Operand::Paths => self.names_text().then(|| quoted(Paths::Broker.word())),
            Operand::Option
            | Operand::Snaplen
            | Operand::Handover
            | Operand::Lookup
            | Operand::LookupSeconds => None,
        }
    }
}

/// The protocol, unless it is 0 for the family's default; netlink's 0 has a name.
fn protocol(socket: SocketSpec) -> Option<String> {
    let SocketSpec { domain, protocol, .. } = socket;
    (protocol != 0 || domain == libc::AF_NETLINK).then(|| protocol_name(Some(domain), protocol))
}

fn ip(endpoint: Option<Endpoint<'_>>) -> Option<(IpAddr, Option<u16>)> {
    match endpoint? {
        Endpoint::Ip(ip, port) => Some((ip, port)),
        Endpoint::Path(_)
        | Endpoint::File(_)
        | Endpoint::Abstract(_)
        | Endpoint::Other
        | Endpoint::Unknown => None,
    }
}

fn path(endpoint: Endpoint<'_>) -> Option<String> {
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    match endpoint {
        Endpoint::Path(path) => Some(text(path)),
        Endpoint::Abstract(name) => Some(format!("@{}", text(name))),
        Endpoint::File(facts) => facts.names.first().map(|name| text(name)),
        Endpoint::Ip(..) | Endpoint::Other | Endpoint::Unknown => None,
    }
}
