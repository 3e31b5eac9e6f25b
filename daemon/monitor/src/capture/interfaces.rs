//! The interfaces of a capture as the file describes them.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;

use sockbroker_pcapng::LinkType;
use sockbroker_sys::interface::of_socket;
use sockbroker_sys::ioctl::{self, InterfaceRequest, InterfaceValue};

use super::order::{Interface, InterfaceFacts, Live, Opened};

/// Hardware types (`linux/if_arp.h`) whose packets begin with an IP header.
pub(super) const BEGIN_WITH_IP: [u16; 6] = [
    libc::ARPHRD_NONE,
    libc::ARPHRD_TUNNEL,
    libc::ARPHRD_TUNNEL6,
    libc::ARPHRD_SIT,
    libc::ARPHRD_IPGRE,
    RAWIP,
];
const RAWIP: u16 = 519;
/// The link type of captures on hardware that is not known here.
pub const PRIVATE: LinkType = LinkType(147);

/// What packets of a hardware type begin with. A type that is not known here gets `LINKTYPE_USER0`.
pub fn link_type(hardware: u16) -> LinkType {
    match hardware {
        libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => LinkType::ETHERNET,
        libc::ARPHRD_IEEE80211 => LinkType::IEEE802_11,
        libc::ARPHRD_IEEE80211_RADIOTAP => LinkType::IEEE802_11_RADIOTAP,
        hardware if BEGIN_WITH_IP.contains(&hardware) => LinkType::RAW,
        _ => PRIVATE,
    }
}

impl Opened {
    /// What its client learns, by the names that its interfaces had at the start.
    pub fn live(&self) -> Live {
        let interfaces = self.order.interfaces.iter().zip(self.interfaces());
        let interfaces = interfaces.map(|(name, Interface { index, hardware })| InterfaceFacts {
            index,
            name: name.clone(),
            link_type: link_type(hardware).0,
        });
        let geometry = self.order.geometry(self.longest);
        Live {
            interfaces: interfaces.collect(),
            bind_began: self.bind_began,
            started: self.started,
            buffer_bytes: geometry.map_or(0, |geometry| geometry.bytes() as u64),
        }
    }
}

/// The facts of an interface of the socket's network.
pub(super) fn facts(socket: BorrowedFd<'_>, index: u32) -> io::Result<InterfaceFacts> {
    let name = of_socket::name_of(socket, index)?;
    let link_type = match ioctl::interface(socket, &name, InterfaceRequest::Hardware)? {
        InterfaceValue::Hardware { hatype, .. } => link_type(hatype),
        InterfaceValue::Int(_) | InterfaceValue::Address(_) => PRIVATE,
    };
    Ok(InterfaceFacts { index, name, link_type: link_type.0 })
}

/// The blocks that describe interfaces, by index and link type.
#[derive(Debug, Default)]
pub(super) struct Described {
    blocks: BTreeMap<(u32, u16), (u32, String)>,
}

impl Described {
    /// The number of the block of an interface.
    pub(super) fn number(&self, index: u32, link_type: u16) -> Option<u32> {
        self.blocks.get(&(index, link_type)).map(|(number, _)| *number)
    }

    /// Notes the block of an interface.
    pub(super) fn add(&mut self, interface: InterfaceFacts, number: u32) {
        let InterfaceFacts { index, name, link_type } = interface;
        self.blocks.insert((index, link_type), (number, name));
    }

    /// The interfaces that have other names now.
    pub(super) fn renamed(&self, socket: BorrowedFd<'_>) -> Vec<InterfaceFacts> {
        let changed = self.blocks.iter().filter_map(|((index, link_type), (_, known))| {
            let name = of_socket::name_of(socket, *index).ok().filter(|name| name != known)?;
            Some(InterfaceFacts { index: *index, name, link_type: *link_type })
        });
        changed.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_types_follow_the_hardware() {
        assert_eq!(link_type(1), LinkType::ETHERNET);
        assert_eq!(link_type(libc::ARPHRD_LOOPBACK), LinkType::ETHERNET);
        assert_eq!(link_type(libc::ARPHRD_NONE), LinkType::RAW);
        assert_eq!(link_type(0xabcd), PRIVATE);
    }
}
