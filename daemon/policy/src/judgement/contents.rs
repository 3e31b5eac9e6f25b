//! Operands of a message that are in its data.

use std::iter;

use sockbroker_proto::address::Address;

use crate::judgement::membership::{header, route_of_extensions};
use crate::judgement::netlink::{MessageClass, classes_of};
use crate::judgement::socket_spec::JudgedSocket as _;
use crate::judgement::target::SocketName;
use crate::judgement::traffic::Send;

impl Send {
    /// Adds the source and the destinations in the header of a packet. They are unknown without data, which is a
    /// file.
    pub fn add_header(&mut self, data: Option<&[u8]>) {
        match data.map(|data| header(self.socket.domain, data)) {
            Some(Some((source, destination, route))) => {
                if !is_unspecified(&source) {
                    self.locals.push(SocketName::Address(source));
                }
                let ends = iter::once(destination).chain(route);
                self.remotes.extend(ends.map(SocketName::Address));
            }
            // The data is too short for a header. The kernel refuses it.
            Some(None) => {}
            None => {
                self.locals.push(SocketName::Unknown);
                self.remotes.push(SocketName::Unknown);
            }
        }
    }

    /// Adds the hosts of a source route, where the data begins with an extension header of IPv6. The protocol of the
    /// socket is the type of that header.
    pub fn add_route(&mut self, data: Option<&[u8]>) {
        if !self.socket.sends_extensions() {
            return;
        }
        match data {
            Some(data) => {
                let route = route_of_extensions(self.socket.protocol, data);
                self.remotes.extend(route.into_iter().map(SocketName::Address));
            }
            None => self.remotes.push(SocketName::Unknown),
        }
    }

    /// Adds the classes of netlink messages to this port and these groups.
    pub fn add_netlink_messages(&mut self, (pid, groups): (u32, u32), data: Option<&[u8]>) {
        // Port 0 is the kernel. Messages to other ports have no class: their receiver defines them.
        if pid == 0 {
            self.messages = classes_of(self.socket.protocol, data.unwrap_or_default());
        }
        // A message to groups also goes to the kernel (`netlink_sendmsg`).
        if pid != 0 || groups != 0 {
            self.messages.push(MessageClass::Peer);
        }
    }
}

fn is_unspecified(address: &Address) -> bool {
    #[expect(clippy::wildcard_enum_match_arm, reason = "only headers of IP have a source")]
    match address {
        Address::Inet { host, .. } => host.is_unspecified(),
        Address::Inet6 { host, .. } => host.is_unspecified(),
        _ => false,
    }
}
