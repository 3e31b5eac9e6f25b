//! The grant that a refused request lacks, as a line for the policy file.

use crate::judgement::question::{Endpoint, Question};
use crate::judgement::socket_spec::JudgedSocket as _;
use crate::language::line::field;
use crate::language::message_class::MessageClass;
use crate::language::option_class::OptionClass;
use crate::language::value::{Family, SocketType, protocol_name};
use crate::language::verb::Verb;
use sockbroker_proto::socket_spec::SocketSpec;

impl Question<'_> {
    /// The fields of a rule that would grant exactly this.
    pub fn grant(&self) -> String {
        lacking(self)
    }
}

fn lacking(question: &Question<'_>) -> String {
    let mut line = format!("allow = [\"{}\"]", question.verb.word());
    if let Some(socket) = question.socket {
        field(&mut line, "family", [Family(socket.domain)]);
        field(&mut line, "type", [SocketType(socket.ty)]);
        field(&mut line, "protocol", protocol(socket.domain, socket.protocol));
    }
    endpoint(&mut line, question.local, "local");
    endpoint(&mut line, question.remote, "remote");
    field(&mut line, "interface", question.interface);
    if question.verb == Verb::Option {
        field(&mut line, "option", question.option.map(OptionClass::word));
    }
    field(&mut line, "netlink", question.message.map(MessageClass::word));
    let strong = question.socket.is_some_and(SocketSpec::is_unrevocable);
    if question.verb == Verb::Handover && strong {
        line.push_str(" handover = \"unrevocable\"");
    }
    if question.escapes.is_some() {
        line.push_str(" unchecked = true");
    }
    if question.names_text() {
        line.push_str(" paths = \"broker\"");
    }
    line
}

/// The protocol where it says something: 0 is the family's own, except that netlink's has a name.
fn protocol(family: i32, proto: i32) -> Option<String> {
    (proto != 0 || family == libc::AF_NETLINK).then(|| protocol_name(Some(family), proto))
}

fn endpoint(line: &mut String, endpoint: Option<Endpoint<'_>>, side: &str) {
    match endpoint {
        Some(Endpoint::Ip(ip, port)) => {
            field(line, side, [ip]);
            field(line, &format!("{side}_ports"), port);
        }
        Some(Endpoint::Path(path)) => field(line, "path", [String::from_utf8_lossy(path)]),
        Some(Endpoint::Abstract(name)) => {
            field(line, "path", [format!("@{}", String::from_utf8_lossy(name))]);
        }
        Some(Endpoint::File(facts)) => {
            field(line, "path", facts.names.first().map(|name| String::from_utf8_lossy(name)));
        }
        Some(Endpoint::Other | Endpoint::Unknown) | None => {}
    }
}
