//! What a descriptor that is passed escapes: rules about addresses, interfaces and paths, which only calls
//! through the broker are held to.

use super::action::SocketFacts;
use super::rights::{ByVerb, Rights};
use super::rule::Rule;
use super::verb::Verb;

/// What the holder of a descriptor does without the broker.
const HOLDER: [Verb; 9] = [
    Verb::Bind,
    Verb::Listen,
    Verb::Accept,
    Verb::Connect,
    Verb::Send,
    Verb::Receive,
    Verb::Option,
    Verb::Capture,
    Verb::Inject,
];

impl Rights {
    /// The name of the first rule that refuses something which the holder of this socket's descriptor could
    /// do all the same.
    pub fn escaped_by(&self, socket: SocketFacts) -> Option<&str> {
        let rules = HOLDER.into_iter().filter_map(|verb| self.about(verb));
        let mut refusing = rules.flat_map(ByVerb::refusing);
        refusing.find(|rule| rule.binds_calls(socket)).map(|rule| &*rule.name)
    }
}

impl Rule {
    /// Whether it is about this kind of socket by operands that differ from call to call.
    pub(super) fn binds_calls(&self, socket: SocketFacts) -> bool {
        let socket = socket.judged();
        let is = |families: &[i32]| families.contains(&socket.family);
        let internet = is(&[libc::AF_INET, libc::AF_INET6]);
        let addresses = !(self.local.is_empty()
            && self.local_ports.is_empty()
            && self.remote.is_empty()
            && self.remote_ports.is_empty());
        self.admits_socket(Some(socket))
            && (addresses && internet
                || !self.interface.is_empty() && (internet || is(&[libc::AF_PACKET, libc::AF_CAN]))
                || !self.path.is_empty() && is(&[libc::AF_UNIX]))
    }
}
