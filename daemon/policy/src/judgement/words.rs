//! An action in words, for `policy.check` and for people: `create AF_PACKET SOCK_RAW`.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use sockbroker_proto::address::Address;

use crate::judgement::action::Request;
use crate::judgement::capture_scope::CaptureScope;
use crate::judgement::denial::Denial;
use crate::judgement::namespace::Namespace;
use crate::judgement::question::Question;
use crate::judgement::rights::{Rights, RuleName};
use crate::judgement::socket_spec::CAPTURE_SOCKET;
use crate::judgement::target::{FileFacts, SocketName};
use crate::language::message_class::MessageClass;
use crate::language::operand::Operand;
use crate::language::option_class::OptionClass;
use crate::language::qualifier::Lookup;
use crate::language::rule::Rule;
use crate::language::value::number;
use crate::language::verb::Verb;
use sockbroker_proto::socket_spec::SocketSpec;

/// An action in words. The socket is that of `socket.socket()` where the words do not name another.
#[derive(Debug, Clone)]
pub struct Described {
    verb: Verb,
    socket: Option<SocketSpec>,
    local: Option<SocketName>,
    remote: Option<SocketName>,
    interface: Option<String>,
    namespace: Namespace,
    option: Option<OptionClass>,
    message: Option<MessageClass>,
    length: Option<u64>,
    looked_up: bool,
    escapes: Option<Arc<str>>,
    /// Whether it opens a capture: `capture eth0`, and `capture` for all interfaces.
    opens_capture: bool,
}

impl FromStr for Described {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let verb = words.next().ok_or("an action begins with a verb")?;
        let verb = Verb::from_word(verb).ok_or_else(|| {
            let known: Vec<_> = Verb::ALL.iter().map(|verb| verb.word()).collect();
            format!("unknown verb `{verb}`; the verbs are: {}", known.join(", "))
        })?;
        let stream = SocketSpec { domain: libc::AF_INET, ty: libc::SOCK_STREAM, protocol: 0 };
        // Only a capture that is opened has no socket that words name.
        let names_socket = words.clone().any(is_constant);
        let opens_capture = verb == Verb::Capture && !names_socket;
        // Frames are injected on packet sockets alone.
        let is_packet = opens_capture || verb == Verb::Inject && !names_socket;
        let socket = if is_packet { CAPTURE_SOCKET } else { stream };
        let mut described = Self {
            verb,
            socket: verb.concerns_socket().then_some(socket),
            local: None,
            remote: None,
            interface: None,
            namespace: Namespace::Broker,
            option: None,
            message: None,
            length: None,
            looked_up: false,
            escapes: None,
            opens_capture,
        };
        let mut named = None;
        for word in words {
            match word.split_once('=') {
                Some((name @ ("local" | "remote"), _)) if opens_capture => {
                    return Err(format!(
                        "a capture has no `{name}`: rules about it select packets, which the answer lists"
                    ));
                }
                Some((name, value)) => described.operand(name, value)?,
                None if verb == Verb::Capture && !is_constant(word) => {
                    if names_socket {
                        return Err(format!(
                            "`{word}` is not a constant of a family, type or protocol: write interface={word}, or leave the \
                             constants out"
                        ));
                    }
                    if let Some(first) = named.replace(word) {
                        return Err(format!(
                            "`{first}` and `{word}` are two interfaces: explain a capture on each of them"
                        ));
                    }
                    described.interface = Some(word.to_owned()).filter(|word| word != "any");
                }
                None => described.constant(word)?,
            }
        }
        Ok(described)
    }
}

impl Described {
    /// Adds what depends on the rules: whether a descriptor that is passed escapes a `deny`.
    #[must_use]
    pub fn under(mut self, rights: &Rights) -> Self {
        let socket = self.socket.filter(|_| self.verb == Verb::Handover);
        self.escapes =
            socket.and_then(|socket| rights.escaped_by(socket, &self.namespace).map(Arc::from));
        self
    }

    /// Judges the action: the rule that grants it, and the packets if it opens a capture; or why it is refused.
    pub fn judge(self, rights: &Rights) -> Result<(RuleName, Option<CaptureScope>), Box<Denial>> {
        if self.opens_capture {
            return rights.judge_capture(&self.question()).map(|(rule, scope)| (rule, Some(scope)));
        }
        rights.authorize(self).map(|permit| (permit.rule().clone(), None))
    }

    /// The rules about the verb, those that refuse first, and the field that keeps each from deciding the action.
    pub fn considered<'a>(&self, rights: &'a Rights) -> Vec<(&'a Rule, Option<Operand>)> {
        let question = self.question();
        let mut considered = rights.considered(&question);
        if self.opens_capture {
            for (rule, mismatch) in &mut considered {
                *mismatch = rule.mismatch_apart_from_packets(&question);
            }
        }
        considered
    }

    /// The most bytes of each packet that a capture which is opened can request; `None` if the rules do not limit them.
    pub fn snaplen_limit(&self, rights: &Rights) -> Option<u64> {
        let question = Question { length: None, ..self.question() };
        let limit =
            rights.snaplen(&question).filter(|_| self.opens_capture && self.length.is_none());
        limit.map(|(_, snaplen)| snaplen)
    }

    /// Whether a capture which is opened is refused in promiscuous mode.
    pub fn refused_in_promiscuous_mode(&self, rights: &Rights) -> Option<Denial> {
        let question = Question {
            verb: Verb::Option,
            option: Some(OptionClass::Packet),
            length: None,
            ..self.question()
        };
        // All interfaces are never promiscuous.
        let asks = self.opens_capture && self.interface.is_some();
        let refused = asks.then(|| rights.decide(&question).err()).flatten();
        refused.map(|rule| rights.denial(&question, rule))
    }

    /// Whether a rule that matches decides only about some packets of the capture that is opened.
    pub fn is_about_packets(&self, rule: &Rule) -> bool {
        self.opens_capture && rule.fields.present().any(Operand::is_of_packets)
    }

    fn constant(&mut self, word: &str) -> Result<(), String> {
        let verb = self.verb.word();
        let Some(socket) = &mut self.socket else {
            return Err(format!("`{verb}` does not concern a socket, so `{word}` has no meaning"));
        };
        let (number_of, prefixes): (&mut i32, &[&str]) = match word {
            _ if word.starts_with("AF_") => (&mut socket.domain, &["AF_"]),
            _ if word.starts_with("SOCK_") => (&mut socket.ty, &["SOCK_"]),
            _ => (&mut socket.protocol, &PROTOCOLS),
        };
        *number_of = number(word, prefixes)
            .ok_or_else(|| format!("`{word}` is not a constant of a family, type or protocol"))?;
        Ok(())
    }

    fn operand(&mut self, name: &str, value: &str) -> Result<(), String> {
        let read = Operand::from_word(name).and_then(reader).ok_or_else(|| {
            let known = Operand::ALL.iter().filter(|operand| reader(**operand).is_some());
            let known: Vec<_> = known.map(|operand| operand.word()).collect();
            format!("unknown operand `{name}`; the operands are: {}", known.join(", "))
        })?;
        read(self, value)
    }

    fn local(&mut self, value: &str) -> Result<(), String> {
        self.local = Some(SocketName::Address(address(value)?));
        Ok(())
    }

    fn remote(&mut self, value: &str) -> Result<(), String> {
        self.remote = Some(SocketName::Address(address(value)?));
        Ok(())
    }

    fn interface(&mut self, value: &str) -> Result<(), String> {
        self.interface = Some(not_empty("interface", value)?.to_owned());
        Ok(())
    }

    fn netns(&mut self, value: &str) -> Result<(), String> {
        self.namespace = Namespace::from(&value.parse()?);
        Ok(())
    }

    fn path(&mut self, value: &str) -> Result<(), String> {
        let name = match not_empty("path", value)?.strip_prefix('@') {
            Some(name) => SocketName::Address(Address::UnixAbstract(name.as_bytes().to_vec())),
            None => SocketName::File(Arc::new(FileFacts {
                names: vec![value.as_bytes().to_vec()],
                visible: true,
                ..FileFacts::default()
            })),
        };
        let side = if self.verb == Verb::Bind { &mut self.local } else { &mut self.remote };
        *side = Some(name);
        Ok(())
    }

    fn option(&mut self, value: &str) -> Result<(), String> {
        let known = OptionClass::ALL.iter().find(|class| class.word() == value);
        let known = known.ok_or_else(|| format!("`{value}` is not a class of options"))?;
        self.option = Some(*known);
        Ok(())
    }

    fn netlink(&mut self, value: &str) -> Result<(), String> {
        let known = MessageClass::ALL.iter().find(|class| class.word() == value);
        let known = known.ok_or_else(|| format!("`{value}` is not a class of netlink messages"))?;
        self.message = Some(*known);
        Ok(())
    }

    fn snaplen(&mut self, value: &str) -> Result<(), String> {
        let length = value.parse().map_err(|_error| format!("`{value}` is not a number"))?;
        self.length = Some(length);
        Ok(())
    }

    fn lookup(&mut self, value: &str) -> Result<(), String> {
        if value != Lookup::Required.word() {
            return Err(format!("`{value}` is not a value of lookup: write lookup=required"));
        }
        self.looked_up = true;
        Ok(())
    }
}

impl Described {
    /// The network namespace that the words name.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }
}

/// The beginnings of the names of protocols.
const PROTOCOLS: [&str; 4] = ["IPPROTO_", "NETLINK_", "CAN_", "BTPROTO_"];

/// Whether a word is written as a constant of a family, type or protocol.
fn is_constant(word: &str) -> bool {
    let mut prefixes = PROTOCOLS.iter().chain(&["AF_", "SOCK_"]);
    prefixes.any(|prefix| word.starts_with(prefix))
}

/// Reads the value of an operand of an action.
type Reader = fn(&mut Described, &str) -> Result<(), String>;

/// What reads an operand of an action; `None` for a field of rules that no action has by its name.
fn reader(operand: Operand) -> Option<Reader> {
    match operand {
        Operand::Local => Some(Described::local),
        Operand::Remote => Some(Described::remote),
        Operand::Interface => Some(Described::interface),
        Operand::Netns => Some(Described::netns),
        Operand::Path => Some(Described::path),
        Operand::Option => Some(Described::option),
        Operand::Netlink => Some(Described::netlink),
        Operand::Snaplen => Some(Described::snaplen),
        Operand::Lookup => Some(Described::lookup),
        // Constants have no name, and ports are part of the address. The others are only about rules.
        Operand::Family
        | Operand::Type
        | Operand::Protocol
        | Operand::LocalPorts
        | Operand::RemotePorts
        | Operand::Handover
        | Operand::Unchecked
        | Operand::Paths
        | Operand::LookupSeconds => None,
    }
}

fn not_empty<'a>(name: &str, value: &'a str) -> Result<&'a str, String> {
    if value.is_empty() { Err(format!("`{name}=` has no value")) } else { Ok(value) }
}

/// `192.0.2.1`, `192.0.2.1:80`, `::1` or `[::1]:80`.
fn address(text: &str) -> Result<Address, String> {
    let alone = || text.parse::<IpAddr>().map(|host| SocketAddr::new(host, 0));
    let both = text.parse::<SocketAddr>().or_else(|_| alone());
    match both
        .map_err(|_error| format!("`{text}` is not an address: write 192.0.2.1:80 or [::1]:80"))?
    {
        SocketAddr::V4(found) => Ok(Address::Inet { host: *found.ip(), port: found.port() }),
        SocketAddr::V6(found) => {
            let (host, port) = (*found.ip(), found.port());
            Ok(Address::Inet6 { host, port, flowinfo: 0, scope_id: 0 })
        }
    }
}

impl Request for Described {
    fn question(&self) -> Question<'_> {
        let question = match self.socket {
            Some(socket) => Question::about(self.verb, socket),
            None => Question::new(self.verb),
        };
        let question = question.from(self.local.as_ref()).to(self.remote.as_ref());
        Question {
            option: self.option,
            message: self.message,
            length: self.length,
            looked_up: self.looked_up.then_some(std::time::Duration::ZERO),
            escapes: self.escapes.as_deref(),
            namespace: &self.namespace,
            ..question.on(self.interface.as_deref())
        }
    }

    fn further(&self, ask: &mut dyn FnMut(Question<'_>)) {
        if let (Verb::Create, Some(socket)) = (self.verb, self.socket) {
            crate::judgement::action::Create { socket }.further(ask);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judgement::question::Endpoint;

    #[test]
    fn words_are_read_in_any_order() {
        let described: Described = "create SOCK_RAW AF_PACKET".parse().unwrap();
        let socket = described.question().socket.unwrap();
        assert_eq!((socket.domain, socket.ty), (libc::AF_PACKET, libc::SOCK_RAW));
        let described: Described = "connect remote=[::ffff:10.0.0.1]:80".parse().unwrap();
        let remote = described.question().remote;
        assert_eq!(remote, Some(Endpoint::Ip([10, 0, 0, 1].into(), Some(80))));
        let described: Described = "inject interface=lo".parse().unwrap();
        assert_eq!(described.question().socket, Some(CAPTURE_SOCKET));
        let described: Described = "resolve".parse().unwrap();
        assert_eq!(described.question().socket, None);
    }

    #[test]
    fn capture_with_an_interface_opens_a_capture() {
        let described: Described = "capture eth0 snaplen=96".parse().unwrap();
        let question = described.question();
        let socket = question.socket.unwrap();
        assert_eq!((socket.domain, socket.ty), (libc::AF_PACKET, libc::SOCK_RAW));
        assert_eq!((question.interface, question.length), (Some("eth0"), Some(96)));
        assert!(described.opens_capture);
        let described: Described = "capture any".parse().unwrap();
        assert_eq!(described.question().interface, None);
        for words in ["capture", "capture snaplen=96", "capture netns=lab1"] {
            let described: Described = words.parse().unwrap();
            let question = described.question();
            assert_eq!(
                (question.socket, question.interface),
                (Some(CAPTURE_SOCKET), None),
                "{words}"
            );
            assert!(described.opens_capture, "{words}");
        }
        let described: Described = "capture interface=eth0".parse().unwrap();
        assert!(described.opens_capture && described.question().interface == Some("eth0"));
        // With constants, it is about a socket.
        let described: Described = "capture AF_PACKET SOCK_RAW interface=eth0".parse().unwrap();
        assert!(!described.opens_capture);
    }

    #[test]
    fn an_action_without_meaning_is_refused() {
        for (text, part) in [
            ("", "begins with a verb"),
            ("creat", "the verbs are: create"),
            ("create AF_NOTHING", "not a constant"),
            ("connect remote=here", "not an address"),
            ("connect remot=::1", "unknown operand"),
            ("connect lookup=yes", "write lookup=required"),
            ("connect path=", "has no value"),
            ("connect local_ports=80", "the operands are: local, remote, interface, netns, path"),
            ("option option=all", "not a class of options"),
            ("resolve AF_INET", "does not concern a socket"),
            ("capture lo0 eth0", "`lo0` and `eth0` are two interfaces"),
            ("capture AF_PACKET eth0", "write interface=eth0"),
            ("capture eth0 remote=10.0.0.1:80", "a capture has no `remote`"),
            ("connect netns=any", "it is the word of rules for all of them"),
        ] {
            let error = text.parse::<Described>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
