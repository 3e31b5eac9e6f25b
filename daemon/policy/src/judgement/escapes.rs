//! Rules that the holder of a passed descriptor escapes, for one subject.

use crate::judgement::namespace::Namespace;
use crate::judgement::rights::{ByVerb, Rights};
use crate::judgement::socket_spec::JudgedSocket as _;
use crate::language::descriptor::HOLDER;
use crate::language::rule::Rule;
use sockbroker_proto::socket_spec::SocketSpec;

impl Rights {
    /// The name of the first rule that denies what the holder of this socket's descriptor could still do.
    pub fn escaped_by(&self, socket: SocketSpec, namespace: &Namespace) -> Option<&str> {
        let rules = HOLDER.into_iter().filter_map(|verb| self.about(verb));
        let mut refusing = rules.flat_map(ByVerb::refusing);
        refusing
            .find(|rule| rule.admits_namespace(namespace) && rule.binds_calls(socket))
            .map(|rule| &*rule.name)
    }
}

impl Rule {
    /// Whether it is about this kind of socket by operands that differ from call to call.
    fn binds_calls(&self, socket: SocketSpec) -> bool {
        let socket = socket.judged();
        self.admits_socket(socket) && self.binds_calls_of(socket.domain)
    }
}
