//! Paths of `AF_UNIX` sockets: the paths that rules name, and who is allowed to pass a path as text.

use crate::judgement::denial::Denial;
use crate::judgement::question::{Endpoint, Question};
use crate::judgement::rights::{ByVerb, Rights};
use crate::judgement::rule_name::{NO_RULE, RuleName};
use crate::judgement::socket_spec::JudgedSocket as _;
use crate::judgement::target::FileFacts;
use crate::language::qualifier::Paths;
use crate::language::rule::Rule;
use crate::language::verb::Verb;
use sockbroker_proto::socket_spec::SocketSpec;

impl Rights {
    /// The paths that the rules name. Those of all verbs: what the broker finds out about a file when a
    /// socket is bound or connected is judged again when it listens and sends.
    pub fn paths(&self) -> Vec<String> {
        let verbs = Verb::ALL.iter().filter_map(|verb| self.about(*verb));
        let rules = verbs.flat_map(ByVerb::rules).map(|rule| &**rule);
        let paths = rules.chain(self.filters()).flat_map(|rule| &rule.fields.path);
        let mut paths: Vec<_> = paths.filter_map(|path| path.path().map(str::to_owned)).collect();
        paths.sort_unstable();
        paths.dedup();
        paths
    }

    /// Whether a rule can grant a call on a file of such a socket, whatever the file is.
    pub fn can_grant(&self, verb: Verb, socket: SocketSpec) -> bool {
        let mut rules = self.about(verb).into_iter().flat_map(ByVerb::granting);
        self.is_owner()
            || rules.any(|rule| rule.admits_socket(socket.judged()) && rule.has_no_address())
    }

    /// Whether the broker is allowed to look up a path that this subject passes as text: for the owner, and
    /// where a rule about such sockets has `paths = "broker"`.
    pub fn lets_look_up(&self, verb: Verb, socket: SocketSpec) -> bool {
        let mut rules = self.about(verb).into_iter().flat_map(ByVerb::granting);
        self.is_owner() || rules.any(|rule| rule.grants_text(socket))
    }

    /// The denial of a path as text.
    pub fn refuse_text(&self, verb: Verb, socket: SocketSpec, facts: &FileFacts) -> Box<Denial> {
        let file = Some(Endpoint::File(facts));
        let question = Question::about(verb, socket);
        let question = if verb == Verb::Bind {
            Question { local: file, ..question }
        } else {
            Question { remote: file, ..question }
        };
        let rule = self.decide(&question).err().unwrap_or(RuleName::BuiltIn(NO_RULE));
        Box::new(self.denial(&question, rule))
    }
}

impl Rule {
    /// Whether it has no field that excludes it from every request about a file.
    pub(super) fn has_no_address(&self) -> bool {
        let fields = &self.fields;
        fields.local.is_empty()
            && fields.local_ports.is_empty()
            && fields.remote.is_empty()
            && fields.remote_ports.is_empty()
            && fields.interface.is_empty()
    }

    /// Whether it lets the broker look up paths for this kind of socket.
    fn grants_text(&self, socket: SocketSpec) -> bool {
        self.fields.paths == Some(Paths::Broker) && self.admits_socket(socket.judged())
    }
}
