//! Denials: the request that was refused, in words ("uid 1000 may not connect to 192.0.2.1:443"), and why.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use crate::judgement::question::{Endpoint, Question};
use crate::judgement::rule_name::{NO_RULE, RESTRICTED, RuleName};
use crate::judgement::socket_spec::JudgedSocket as _;
use crate::language::value::{Family, SocketType, protocol_name};
use crate::language::verb::Verb;
use sockbroker_proto::socket_spec::SocketSpec;

/// A refusal, with the grant that is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{caller} may not {what}: {}{}", why(rule, grant), hint_text(hint.as_deref()))]
pub struct Denial {
    /// The verb that was refused.
    pub verb: Verb,
    /// The verb in words, with its object.
    pub what: String,
    /// The subject: `uid 1000`, `token ci`.
    pub caller: Arc<str>,
    /// The error number that the kernel would give.
    pub errno: i32,
    /// The rule that decided, or `NO_RULE`.
    pub rule: RuleName,
    /// The missing grant, as fields of a rule.
    pub grant: String,
    /// What the caller can do instead.
    pub hint: Option<Cow<'static, str>>,
}

fn hint_text(hint: Option<&str>) -> String {
    hint.map(|hint| format!("; {hint}")).unwrap_or_default()
}

impl Question<'_> {
    /// The verb in words, with its object.
    pub fn what(&self) -> String {
        what(self)
    }

    /// The error number of the kernel without the privilege: `EPERM` for raw and packet sockets.
    pub(super) fn errno(&self) -> i32 {
        let strong = self.socket.is_some_and(SocketSpec::is_unrevocable);
        if self.verb == Verb::Create && strong { libc::EPERM } else { errno(self.verb) }
    }
}

/// The error number of the kernel for a process without the privilege.
fn errno(verb: Verb) -> i32 {
    match verb {
        Verb::Option
        | Verb::Ioctl
        | Verb::Capture
        | Verb::Inject
        | Verb::Spoof
        | Verb::Transparent
        | Verb::SetHostname
        // What a firewall answers on output.
        | Verb::Send => libc::EPERM,
        Verb::Create
        | Verb::Adopt
        | Verb::Bind
        | Verb::Listen
        | Verb::Accept
        | Verb::Connect
        | Verb::Receive
        | Verb::Inspect
        | Verb::Handover
        | Verb::Session
        | Verb::Persist
        | Verb::Resolve
        | Verb::Interfaces
        | Verb::Hostname
        | Verb::Admin => libc::EACCES,
    }
}

/// The verb in words, with its object.
fn what(question: &Question<'_>) -> String {
    let (local, remote) = (question.local.and_then(address), question.remote.and_then(address));
    // A socket is in the sentence where no address is.
    let to = match side(question.verb) {
        Some(Side::Local) => local.as_ref(),
        Some(Side::Remote) => remote.as_ref(),
        None => None,
    };
    // Writing to a string does not fail.
    let mut text = match to {
        Some(to) => format!("{} to {to}", question.verb.word()),
        None => phrase(question.verb).to_owned(),
    };
    if let Some(socket) = question.socket.filter(|_| to.is_none()) {
        let (family, kind) = (Family(socket.domain), SocketType(socket.ty));
        write!(text, " a socket {family} {kind}").ok();
        if socket.protocol != 0 {
            write!(text, " {}", protocol_name(Some(socket.domain), socket.protocol)).ok();
        }
    }
    if let Some(class) = question.option {
        write!(text, ", class {}", class.word()).ok();
    }
    if let Some(message) = question.message {
        write!(text, ", netlink message {}", message.word()).ok();
    }
    if let Some(local) = local.as_ref().filter(|_| question.verb != Verb::Bind) {
        write!(text, " from {local}").ok();
    }
    if let Some(remote) = remote.as_ref().filter(|_| to.is_none()) {
        write!(text, " to {remote}").ok();
    }
    if let Some(interface) = question.interface {
        write!(text, " by interface {}", interface.escape_default()).ok();
    }
    if let Some(words) = question.namespace.words() {
        write!(text, " {words}").ok();
    }
    text
}

fn phrase(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "create",
        Verb::Adopt => "adopt",
        Verb::Bind => "bind",
        Verb::Listen => "listen on",
        Verb::Accept => "accept a connection on",
        Verb::Connect => "connect",
        Verb::Send => "send on",
        Verb::Receive => "receive on",
        Verb::Option => "use an option of",
        Verb::Ioctl => "use ioctl on",
        Verb::Capture => "capture on",
        Verb::Inject => "inject frames on",
        Verb::Spoof => "spoof headers on",
        Verb::Transparent => "use addresses that are not the host's (transparent) on",
        Verb::Inspect => "inspect",
        Verb::Handover => "take the descriptor (handover) of",
        Verb::Session => "open or clone a session",
        Verb::Persist => "keep a session beyond the process that serves it (persist)",
        Verb::Resolve => "resolve a name",
        Verb::Interfaces => "list interfaces",
        Verb::Hostname => "read the hostname",
        Verb::SetHostname => "set the hostname (sethostname)",
        Verb::Admin => "administer the broker (admin)",
    }
}

/// An end of a socket.
enum Side {
    Local,
    Remote,
}

/// The end whose address is the object of the verb.
fn side(verb: Verb) -> Option<Side> {
    match verb {
        Verb::Bind => Some(Side::Local),
        Verb::Connect | Verb::Send => Some(Side::Remote),
        Verb::Create
        | Verb::Adopt
        | Verb::Listen
        | Verb::Accept
        | Verb::Receive
        | Verb::Option
        | Verb::Ioctl
        | Verb::Capture
        | Verb::Inject
        | Verb::Spoof
        | Verb::Transparent
        | Verb::Inspect
        | Verb::Handover
        | Verb::Session
        | Verb::Persist
        | Verb::Resolve
        | Verb::Interfaces
        | Verb::Hostname
        | Verb::SetHostname
        | Verb::Admin => None,
    }
}

fn address(endpoint: Endpoint<'_>) -> Option<String> {
    match endpoint {
        Endpoint::Ip(ip, None) => Some(ip.to_string()),
        Endpoint::Ip(IpAddr::V4(ip), Some(port)) => Some(format!("{ip}:{port}")),
        Endpoint::Ip(IpAddr::V6(ip), Some(port)) => Some(format!("[{ip}]:{port}")),
        Endpoint::Path(path) => Some(path.escape_ascii().to_string()),
        Endpoint::File(facts) => facts.names.first().map(|name| name.escape_ascii().to_string()),
        Endpoint::Unknown => Some("an unknown address".to_owned()),
        Endpoint::Abstract(name) => Some(format!("@{}", name.escape_ascii())),
        Endpoint::Other => None,
    }
}

/// The rule that decided, or the missing grant where no rule did.
fn why(rule: &RuleName, grant: &str) -> String {
    match rule {
        RuleName::Written(name) => format!("rule \"{}\" denies it", name.escape_debug()),
        RuleName::BuiltIn(RESTRICTED) => "session.restrict removed this right".to_owned(),
        RuleName::BuiltIn(NO_RULE) => format!("no rule allows it; missing grant: {grant}"),
        RuleName::BuiltIn(name) => (*name).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use sockbroker_proto::address::Address;

    use super::*;
    use crate::judgement::target::SocketName;
    use sockbroker_proto::socket_spec::SocketSpec;

    #[test]
    fn a_refusal_names_the_address_or_else_the_socket() {
        let tcp = SocketSpec { domain: 2, ty: 1, protocol: 6 };
        let remote = Address::Inet { host: Ipv4Addr::new(192, 0, 2, 1), port: 443 };
        let remote = SocketName::Address(remote);
        let question = Question::about(Verb::Connect, tcp).to(Some(&remote));
        assert_eq!(what(&question), "connect to 192.0.2.1:443");
        let own = Address::Inet { host: Ipv4Addr::LOCALHOST, port: 80 };
        let own = SocketName::Address(own);
        assert_eq!(what(&question.from(Some(&own))), "connect to 192.0.2.1:443 from 127.0.0.1:80");
        let question = Question::about(Verb::Create, tcp);
        assert_eq!(what(&question), "create a socket AF_INET SOCK_STREAM IPPROTO_TCP");
        let local = SocketName::Address(Address::UnixPath(b"/run/a\nb".to_vec()));
        let question = Question::new(Verb::Bind).from(Some(&local));
        assert_eq!(what(&question), "bind to /run/a\\nb");
    }

    #[test]
    fn the_sentence_of_each_verb_has_its_word() {
        for verb in Verb::ALL {
            let sentence = what(&Question::new(*verb)).replace("the hostname", "hostname");
            assert!(sentence.contains(verb.word()), "{sentence}");
        }
    }

    #[test]
    fn the_missing_grant_is_named_where_no_rule_decided() {
        let written = RuleName::Written("a \"b\"\n".into());
        assert_eq!(why(&written, "x"), "rule \"a \\\"b\\\"\\n\" denies it");
        let none = why(&RuleName::BuiltIn(NO_RULE), "allow = [\"resolve\"]");
        assert_eq!(none, "no rule allows it; missing grant: allow = [\"resolve\"]");
    }
}
