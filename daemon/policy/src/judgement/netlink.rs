//! Netlink messages by what they do. The kernel checks the sender as well as who opened the socket, and
//! both are the broker. So a rule grants classes of messages by name.

use std::iter;

pub use crate::language::message_class::MessageClass;

/// `struct nlmsghdr`: length, type, flags, sequence, port id.
const HEADER: usize = 16;
/// Types below are for the protocol itself (`NLMSG_NOOP`, `NLMSG_DONE` ...).
const FIRST_TYPE: u16 = 0x10;
/// `GENL_ID_CTRL` and `CTRL_CMD_GETFAMILY`, `CTRL_CMD_GETPOLICY` of `linux/genetlink.h`.
const GENERIC_CONTROL: u16 = 0x10;
const GENERIC_READS: [u8; 2] = [3, 10];
/// `TCPDIAG_GETSOCK`, `DCCPDIAG_GETSOCK`, `SOCK_DIAG_BY_FAMILY`, `SOCK_DESTROY`.
const DIAG_READS: [u16; 3] = [18, 19, 20];
const DIAG_DESTROY: u16 = 21;
/// `RTM_GETNSID` of `linux/rtnetlink.h`: ids of other network namespaces.
const GET_NSID: u16 = 90;
/// The attributes of an interface that name another network namespace, or a descriptor, of `linux/if_link.h`:
/// `IFLA_NET_NS_PID`, `IFLA_NET_NS_FD`, `IFLA_LINK_NETNSID`, `IFLA_XDP`, `IFLA_NEW_NETNSID`, `IFLA_TARGET_NETNSID`.
const LINK_ELSEWHERE: [u16; 6] = [19, 28, 37, 43, 45, 46];
/// `IFLA_LINKINFO`, `IFLA_INFO_DATA`, and the other end of a pair: `VETH_INFO_PEER`, `VXCAN_INFO_PEER`, `IFLA_NETKIT_PEER_INFO`.
const LINK_INFO: u16 = 18;
const INFO_DATA: u16 = 2;
const INFO_PEER: u16 = 1;
/// `IFA_TARGET_NETNSID` of `linux/if_addr.h`.
const ADDRESS_ELSEWHERE: [u16; 1] = [10];
/// `NLA_TYPE_MASK`.
const TYPE_MASK: u16 = 0x3fff;
/// The lengths of `struct rtgenmsg` with its padding, `struct ifinfomsg`, and `struct ifaddrmsg`.
const GENERAL: usize = 4;
const LINK: usize = 16;
const ADDRESS: usize = 8;

/// The classes of the messages in a buffer that goes to the kernel, each once. Data that cannot be
/// read as messages is unknown: the kernel might read it differently.
pub fn classes_of(protocol: i32, data: &[u8]) -> Vec<MessageClass> {
    let mut classes = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        let (class, length) = first(protocol, rest);
        if !classes.contains(&class) {
            classes.push(class);
        }
        // NLMSG_ALIGN
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    if classes.is_empty() {
        classes.push(MessageClass::Unknown);
    }
    classes
}

/// The class of the first message, and how long it is.
fn first(protocol: i32, data: &[u8]) -> (MessageClass, usize) {
    let unknown = (MessageClass::Unknown, data.len());
    let (Some(length), Some(kind)) = (data.first_chunk::<4>(), data.get(4..6)) else {
        return unknown;
    };
    let Ok(length) = usize::try_from(u32::from_ne_bytes(*length)) else { return unknown };
    let (Some(body), [low, high]) = (data.get(HEADER..length), kind) else { return unknown };
    let kind = u16::from_ne_bytes([*low, *high]);
    (class_of(protocol, kind, body), length)
}

fn class_of(protocol: i32, kind: u16, body: &[u8]) -> MessageClass {
    if kind < FIRST_TYPE {
        return MessageClass::Unknown;
    }
    match protocol {
        libc::NETLINK_ROUTE if leaves_namespace(kind, body) => MessageClass::Unknown,
        libc::NETLINK_ROUTE => route_class(kind),
        libc::NETLINK_SOCK_DIAG if DIAG_READS.contains(&kind) => MessageClass::Get,
        libc::NETLINK_SOCK_DIAG if kind == DIAG_DESTROY => MessageClass::Destroy,
        libc::NETLINK_GENERIC
            if kind == GENERIC_CONTROL
                && body.first().is_some_and(|command| GENERIC_READS.contains(command)) =>
        {
            MessageClass::Get
        }
        _ => MessageClass::Unknown,
    }
}

/// Whether a message is about another network namespace than that of its socket, or names a descriptor. The kernel checks
/// the sender there, and takes numbers of descriptors for the sender's; both are the broker.
fn leaves_namespace(kind: u16, body: &[u8]) -> bool {
    let behind = |header: usize| attributes(body.get(header..).unwrap_or_default());
    match kind / 4 * 4 {
        libc::RTM_NEWLINK | 108 => {
            // rtnl_dump_ifinfo() also takes the short header.
            let own = behind(if body.len() < LINK { GENERAL } else { LINK });
            let info = of_kind(behind(LINK), LINK_INFO).flat_map(attributes);
            let data = of_kind(info, INFO_DATA).flat_map(attributes);
            let peers = of_kind(data, INFO_PEER)
                .flat_map(|peer| attributes(peer.get(LINK..).unwrap_or_default()));
            own.chain(peers).any(|(kind, _)| LINK_ELSEWHERE.contains(&kind))
        }
        libc::RTM_NEWADDR => behind(ADDRESS).any(|(kind, _)| ADDRESS_ELSEWHERE.contains(&kind)),
        _ => kind == GET_NSID,
    }
}

/// Types and values of attributes (`struct nlattr`), as far as the kernel reads them.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    iter::from_fn(move || {
        let [short, long, low, high] = *rest.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([short, long]));
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([low, high]) & TYPE_MASK, value))
    })
}

fn of_kind<'a>(
    attributes: impl Iterator<Item = (u16, &'a [u8])>,
    wanted: u16,
) -> impl Iterator<Item = &'a [u8]> {
    attributes.filter(move |(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// Types of `linux/rtnetlink.h` come in groups of four: new, delete, get, set.
fn route_class(kind: u16) -> MessageClass {
    const GET: u16 = 2;
    if kind % 4 == GET {
        return MessageClass::Get;
    }
    match kind / 4 * 4 {
        libc::RTM_NEWLINK | 108 => MessageClass::Link, // RTM_NEWLINKPROP
        libc::RTM_NEWADDR | libc::RTM_NEWADDRLABEL => MessageClass::Address,
        libc::RTM_NEWROUTE | libc::RTM_NEWRULE | 104 | 116 => MessageClass::Route, // next hops
        libc::RTM_NEWNEIGH | libc::RTM_NEWNEIGHTBL => MessageClass::Neighbour,
        libc::RTM_NEWQDISC
        | libc::RTM_NEWTCLASS
        | libc::RTM_NEWTFILTER
        | libc::RTM_NEWACTION
        | 100 => MessageClass::Traffic, // RTM_NEWCHAIN
        _ => MessageClass::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn classes(protocol: i32, messages: &[Vec<u8>]) -> Vec<MessageClass> {
        classes_of(protocol, &messages.concat())
    }

    #[test]
    fn every_message_of_a_buffer_is_classified() {
        let (get, delete) =
            (message(libc::RTM_GETLINK, &[0; 17]), message(libc::RTM_DELROUTE, &[]));
        assert_eq!(classes(libc::NETLINK_ROUTE, std::slice::from_ref(&get)), [MessageClass::Get]);
        assert_eq!(
            classes(libc::NETLINK_ROUTE, &[get.clone(), delete, get]),
            [MessageClass::Get, MessageClass::Route]
        );
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn messages_about_other_namespaces_are_unknown() {
        let class =
            |kind, parts: &[&[u8]]| classes(libc::NETLINK_ROUTE, &[message(kind, &parts.concat())]);
        let name = attribute(3, b"x\0");
        for flags in [0, 1 << 15] {
            for number in LINK_ELSEWHERE {
                let elsewhere = attribute(number | flags, &[0; 4]);
                for kind in [libc::RTM_NEWLINK, libc::RTM_DELLINK, libc::RTM_GETLINK, 108] {
                    let found = class(kind, &[&[0; LINK], &name, &elsewhere]);
                    assert_eq!(found, [MessageClass::Unknown], "{kind} {number}");
                }
                let peer = attribute(INFO_PEER, &[&[0; LINK][..], &name, &elsewhere].concat());
                let data = attribute(INFO_DATA | flags, &peer);
                let info = attribute(LINK_INFO, &[attribute(1, b"veth\0"), data].concat());
                let found = class(libc::RTM_NEWLINK, &[&[0; LINK], &info]);
                assert_eq!(found, [MessageClass::Unknown], "the peer: {number}");
                let found = class(libc::RTM_GETLINK, &[&[0; GENERAL], &elsewhere]);
                assert_eq!(found, [MessageClass::Unknown], "a short header: {number}");
            }
        }
        let elsewhere = attribute(10, &[0; 4]);
        let found = class(libc::RTM_GETADDR, &[&[0; ADDRESS], &elsewhere]);
        assert_eq!(found, [MessageClass::Unknown]);
        assert_eq!(class(GET_NSID, &[&[0; GENERAL]]), [MessageClass::Unknown]);
        // The same numbers elsewhere, and a pair of interfaces in one namespace.
        let peer = attribute(INFO_PEER, &[&[0; LINK][..], &name].concat());
        let pair = attribute(LINK_INFO, &attribute(INFO_DATA, &peer));
        assert_eq!(class(libc::RTM_NEWLINK, &[&[0; LINK], &name, &pair]), [MessageClass::Link]);
        assert_eq!(class(libc::RTM_NEWLINK, &[&[0; LINK], &elsewhere]), [MessageClass::Link]);
    }

    #[test]
    fn data_that_is_not_a_message_is_unknown() {
        let get = message(libc::RTM_GETLINK, &[0; 16]);
        for broken in [&[][..], &[1], &get[..15], &get[..20]] {
            assert_eq!(classes_of(libc::NETLINK_ROUTE, broken), [MessageClass::Unknown]);
        }
        let mut tail = get.clone();
        tail.push(0);
        assert_eq!(
            classes_of(libc::NETLINK_ROUTE, &tail),
            [MessageClass::Get, MessageClass::Unknown]
        );
        let zero = [0; 32];
        assert_eq!(classes_of(libc::NETLINK_ROUTE, &zero), [MessageClass::Unknown]);
    }

    #[test]
    fn each_protocol_has_its_own_types() {
        for (protocol, kind, body, class) in [
            (libc::NETLINK_ROUTE, libc::RTM_NEWADDR, &[][..], MessageClass::Address),
            (libc::NETLINK_ROUTE, libc::RTM_SETLINK, &[], MessageClass::Link),
            (libc::NETLINK_ROUTE, libc::RTM_NEWNEIGH, &[], MessageClass::Neighbour),
            (libc::NETLINK_ROUTE, libc::RTM_NEWQDISC, &[], MessageClass::Traffic),
            (libc::NETLINK_ROUTE, libc::RTM_NEWRULE, &[], MessageClass::Route),
            (libc::NETLINK_ROUTE, 0, &[], MessageClass::Unknown),
            (libc::NETLINK_SOCK_DIAG, 20, &[], MessageClass::Get),
            (libc::NETLINK_SOCK_DIAG, 21, &[], MessageClass::Destroy),
            (libc::NETLINK_SOCK_DIAG, libc::RTM_GETLINK, &[], MessageClass::Get),
            (libc::NETLINK_GENERIC, 16, &[3, 1], MessageClass::Get),
            (libc::NETLINK_GENERIC, 16, &[1, 1], MessageClass::Unknown),
            (libc::NETLINK_GENERIC, 26, &[3, 1], MessageClass::Unknown),
            (libc::NETLINK_AUDIT, 1001, &[], MessageClass::Unknown),
        ] {
            assert_eq!(classes(protocol, &[message(kind, body)]), [class], "{protocol} {kind}");
        }
    }
}
