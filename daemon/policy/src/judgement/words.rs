//! An action in words, for `policy.check` and for people: `create AF_PACKET SOCK_RAW`.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use sockbroker_proto::address::Address;

use crate::judgement::action::Request;
use crate::judgement::question::Question;
use crate::judgement::rights::Rights;
use crate::judgement::target::{FileFacts, SocketName};
use crate::language::message_class::MessageClass;
use crate::language::option_class::OptionClass;
use crate::language::value::number;
use crate::language::verb::Verb;
use sockbroker_proto::socket_spec::SocketSpec;

/// An action that was described. What is not said of the socket is what `socket.socket()` makes.
#[derive(Debug, Clone)]
pub struct Described {
    verb: Verb,
    socket: Option<SocketSpec>,
    local: Option<SocketName>,
    remote: Option<SocketName>,
    interface: Option<String>,
    option: Option<OptionClass>,
    message: Option<MessageClass>,
    length: Option<u64>,
    looked_up: bool,
    escapes: Option<Arc<str>>,
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
        let mut described = Self {
            verb,
            socket: crate::language::check::has(verb, "family").then_some(stream),
            local: None,
            remote: None,
            interface: None,
            option: None,
            message: None,
            length: None,
            looked_up: false,
            escapes: None,
        };
        for word in words {
            match word.split_once('=') {
                Some((name, value)) => described.operand(name, value)?,
                None => described.constant(word)?,
            }
        }
        Ok(described)
    }
}

impl Described {
    /// With what follows from other rules: whether a descriptor that is passed escapes a `deny`.
    #[must_use]
    pub fn under(mut self, rights: &Rights) -> Self {
        let socket = self.socket.filter(|_| self.verb == Verb::Handover);
        self.escapes = socket.and_then(|socket| rights.escaped_by(socket).map(Arc::from));
        self
    }

    fn constant(&mut self, word: &str) -> Result<(), String> {
        let verb = self.verb.word();
        let Some(socket) = &mut self.socket else {
            return Err(format!("`{verb}` concerns no socket, so `{word}` says nothing"));
        };
        let protocols = ["IPPROTO_", "NETLINK_", "CAN_", "BTPROTO_"];
        let (place, prefixes): (&mut i32, &[&str]) = match word {
            _ if word.starts_with("AF_") => (&mut socket.domain, &["AF_"]),
            _ if word.starts_with("SOCK_") => (&mut socket.ty, &["SOCK_"]),
            _ => (&mut socket.protocol, &protocols),
        };
        *place = number(word, prefixes)
            .ok_or_else(|| format!("`{word}` is no constant of a family, type or protocol"))?;
        Ok(())
    }

    fn operand(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "local" => self.local = Some(SocketName::Address(address(value)?)),
            "remote" => self.remote = Some(SocketName::Address(address(value)?)),
            "path" => {
                let side = if self.verb == Verb::Bind { &mut self.local } else { &mut self.remote };
                *side = Some(match value.strip_prefix('@') {
                    Some(name) => {
                        SocketName::Address(Address::UnixAbstract(name.as_bytes().to_vec()))
                    }
                    None => SocketName::File(Arc::new(FileFacts {
                        names: vec![value.as_bytes().to_vec()],
                        visible: true,
                        ..FileFacts::default()
                    })),
                });
            }
            "interface" => self.interface = Some(value.to_owned()),
            "option" => {
                let known = OptionClass::ALL.iter().find(|class| class.word() == value);
                self.option =
                    Some(*known.ok_or_else(|| format!("`{value}` is no class of options"))?);
            }
            "netlink" => {
                let known = MessageClass::ALL.iter().find(|class| class.word() == value);
                self.message =
                    Some(*known.ok_or_else(|| format!("`{value}` is no class of messages"))?);
            }
            "snaplen" => {
                let length = value.parse().map_err(|_error| format!("`{value}` is no number"))?;
                self.length = Some(length);
            }
            "lookup" => self.looked_up = value == "required",
            _ => {
                return Err(format!(
                    "unknown operand `{name}`: local, remote, path, interface, option, netlink, \
                    , snaplen, lookup"
                ));
            }
        }
        Ok(())
    }
}

/// `192.0.2.1`, `192.0.2.1:80`, `::1` or `[::1]:80`.
fn address(text: &str) -> Result<Address, String> {
    let alone = || text.parse::<IpAddr>().map(|host| SocketAddr::new(host, 0));
    let both = text.parse::<SocketAddr>().or_else(|_| alone());
    match both
        .map_err(|_error| format!("`{text}` is no address: write 192.0.2.1:80 or [::1]:80"))?
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
        let described: Described = "resolve".parse().unwrap();
        assert_eq!(described.question().socket, None);
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for (text, part) in [
            ("", "begins with a verb"),
            ("creat", "the verbs are: create"),
            ("create AF_NOTHING", "no constant"),
            ("connect remote=here", "no address"),
            ("connect remot=::1", "unknown operand"),
            ("option option=all", "no class of options"),
            ("resolve AF_INET", "concerns no socket"),
        ] {
            let error = text.parse::<Described>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
