//! The grant that a refused request lacks, as a line for the policy file.

use super::socket_spec::JudgedSocket as _;
use std::fmt::Display;

use super::netlink::MessageClass;
use super::option::OptionClass;
use super::question::{Endpoint, Question};
use super::rule::{Handover, Rule};
use super::value::{Family, SocketType, name};
use super::verb::Verb;
use sockbroker_proto::socket_spec::SocketSpec;

/// The fields of a rule that would grant exactly this.
pub(super) fn lacking(question: &Question<'_>) -> String {
    let mut line = format!("allow = [\"{}\"]", question.verb.word());
    if let Some(socket) = question.socket {
        field(&mut line, "family", [Family(socket.domain)]);
        field(&mut line, "type", [SocketType(socket.ty)]);
        field(&mut line, "protocol", protocol(socket.domain, socket.protocol));
    }
    endpoint(&mut line, question.local, "local");
    endpoint(&mut line, question.remote, "remote");
    field(&mut line, "interface", question.interface);
    field(&mut line, "netns", question.netns);
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

/// The name of a protocol, which depends on the family.
pub(super) fn protocol_name(family: Option<i32>, proto: i32) -> String {
    let prefix = match family {
        Some(libc::AF_NETLINK) => "NETLINK_",
        Some(libc::AF_CAN) => "CAN_",
        Some(libc::AF_BLUETOOTH) => "BTPROTO_",
        Some(libc::AF_INET | libc::AF_INET6) | None => "IPPROTO_",
        Some(_) => return proto.to_string(),
    };
    name(proto, &[prefix])
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

/// Adds a field that has values; without any, nothing.
fn field<T: Display>(line: &mut String, name: &str, values: impl IntoIterator<Item = T>) {
    let values: Vec<_> = values.into_iter().map(|value| quoted(&value.to_string())).collect();
    if !values.is_empty() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend([name, " = [", &values.join(", "), "]"]);
    }
}

/// A TOML string.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.escape_default())
}

/// The fields of a rule but its name and its subject, for people.
pub(super) fn fields(rule: &Rule) -> String {
    let mut line = String::new();
    field(&mut line, rule.effect.word(), rule.verbs().map(Verb::word));
    field(&mut line, "family", &rule.family);
    field(&mut line, "type", &rule.kind);
    let family = rule.family.first().map(|family| family.0);
    field(&mut line, "protocol", rule.protocol.iter().map(|proto| protocol_name(family, proto.0)));
    field(&mut line, "local", &rule.local);
    field(&mut line, "local_ports", &rule.local_ports);
    field(&mut line, "remote", &rule.remote);
    field(&mut line, "remote_ports", &rule.remote_ports);
    field(&mut line, "interface", &rule.interface);
    field(&mut line, "path", &rule.path);
    field(&mut line, "netns", &rule.netns);
    field(&mut line, "option", rule.option.iter().map(|class| class.word()));
    field(&mut line, "netlink", rule.netlink.iter().map(|class| class.word()));
    let mut plain = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            line.extend([" ", name, " = ", &value]);
        }
    };
    plain("snaplen", rule.snaplen.map(|snaplen| snaplen.to_string()));
    plain("handover", rule.handover.map(|handover| quoted(Handover::word(handover))));
    plain("unchecked", rule.unchecked.map(|unchecked| unchecked.to_string()));
    plain("paths", rule.paths.map(|paths| quoted(paths.word())));
    plain("lookup", rule.lookup.map(|_| quoted("required")));
    plain("lookup_seconds", rule.lookup.map(|limit| limit.as_secs().to_string()));
    line
}
