//! What the kernel will ask the broker's own process for, so that it can give up everything else.
//!
//! The table says which requests ask for a privilege; the source of each row is named beside it, by
//! function of the kernel. What is not in it asks for none: options of packet sockets, filters,
//! `IP_HDRINCL`, or a multicast group, on a socket that the broker has made.

use super::Policy;
use super::netlink::MessageClass;
use super::option::OptionClass;
use super::rule::{Effect, Rule};
use super::verb::Verb;

/// A privilege of the process that a rule can be of use with only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Need {
    /// Raw and packet sockets, headers of routing, the change of a device.
    Raw,
    /// Marks, high priorities, foreign addresses: [`Need::Raw`] or [`Need::Administration`] will do.
    RawOrAdministration,
    /// Options and netlink messages that change the host.
    Administration,
    /// Netlink messages of all network namespaces.
    Broadcast,
    /// Local ports below 1024, and what other families have in their place.
    LowPorts,
    /// Another user's identity for `AF_UNIX` addresses.
    Identity,
    /// The name of the host, other network namespaces.
    System,
    /// The groups of the kernel's audit.
    Audit,
}

impl Need {
    /// Every one.
    pub const ALL: [Self; 8] = [
        Self::Raw,
        Self::RawOrAdministration,
        Self::Administration,
        Self::Broadcast,
        Self::LowPorts,
        Self::Identity,
        Self::System,
        Self::Audit,
    ];
}

impl Policy {
    /// Whether a rule that grants something would be of no use without this. A policy without rules
    /// grants everything to root and the broker's own user, and so needs everything.
    pub fn needs(&self, need: Need) -> bool {
        let granting = self.rules.iter().filter(|rule| rule.effect == Effect::Allow);
        self.rules.is_empty() || granting.into_iter().any(|rule| rule.needs(need))
    }
}

impl Rule {
    fn needs(&self, need: Need) -> bool {
        let messages = self.netlink.iter().any(|class| *class != MessageClass::Get);
        // netlink_ns_capable() in the handler of each message; tried on Linux 6.18.
        (need == Administration && messages)
            || TABLE.iter().any(|row| row.need == need && row.is_granted_by(self))
    }
}

/// The families that a row is about.
#[derive(Debug, Clone, Copy)]
enum Families {
    /// Every one.
    All,
    /// These; a rule that names no family is about them too.
    These(&'static [i32]),
    /// This one, where a rule names it. A rule that names no family is seldom meant for it, and
    /// keeping the privilege for that would be more dangerous than its refusal.
    Named(i32),
}

/// The addresses that a row is about.
#[derive(Debug, Clone, Copy)]
enum Addresses {
    /// Every one.
    All,
    /// IP addresses with a port below 1024.
    LowPorts,
    /// Of another kind, which no field of a rule names.
    Others,
}

/// One kind of request that the kernel refuses without a privilege.
#[derive(Debug, Clone, Copy)]
struct Row {
    need: Need,
    verb: Verb,
    /// For [`Verb::Option`].
    class: Option<OptionClass>,
    families: Families,
    /// Types; none for all.
    kinds: &'static [i32],
    /// Protocols; none for all.
    protocols: &'static [i32],
    addresses: Addresses,
}

impl Row {
    const fn families(mut self, families: &'static [i32]) -> Self {
        self.families = Families::These(families);
        self
    }

    const fn named(mut self, family: i32) -> Self {
        self.families = Families::Named(family);
        self
    }

    const fn kinds(mut self, kinds: &'static [i32]) -> Self {
        self.kinds = kinds;
        self
    }

    const fn protocols(mut self, protocols: &'static [i32]) -> Self {
        self.protocols = protocols;
        self
    }

    const fn addresses(mut self, addresses: Addresses) -> Self {
        self.addresses = addresses;
        self
    }

    /// Whether a rule that allows grants such a request.
    fn is_granted_by(&self, rule: &Rule) -> bool {
        let family = rule.family.iter().map(|family| family.0);
        let families = match self.families {
            Families::All => true,
            Families::These(families) => {
                rule.family.is_empty() || family.into_iter().any(|own| families.contains(&own))
            }
            Families::Named(named) => family.into_iter().any(|own| own == named),
        };
        // A class that is not known is granted by name alone.
        let class = self.class.is_none_or(|class| {
            rule.option.contains(&class) || rule.option.is_empty() && class != OptionClass::Unknown
        });
        let kinds = rule.kind.iter().map(|kind| kind.0);
        let protocols = rule.protocol.iter().map(|protocol| protocol.0);
        rule.verbs.has(self.verb)
            && families
            && class
            && meets(self.kinds, kinds)
            && meets(self.protocols, protocols)
            && self.addresses.are_granted_by(rule)
    }
}

impl Addresses {
    fn are_granted_by(self, rule: &Rule) -> bool {
        match self {
            Self::All => true,
            Self::LowPorts => {
                let mut ports = rule.local_ports.iter();
                rule.path.is_empty()
                    && (rule.local_ports.is_empty()
                        || ports.any(|ports| ports.first < 1024 && ports.last > 0))
            }
            Self::Others => {
                rule.local.is_empty() && rule.local_ports.is_empty() && rule.path.is_empty()
            }
        }
    }
}

/// Whether a row and a rule have a value in common; an empty list has all.
fn meets(row: &[i32], rule: impl ExactSizeIterator<Item = i32>) -> bool {
    let mut rule = rule;
    row.is_empty() || rule.len() == 0 || rule.any(|own| row.contains(&own))
}

const fn on(need: Need, verb: Verb) -> Row {
    Row {
        need,
        verb,
        class: None,
        families: Families::All,
        kinds: &[],
        protocols: &[],
        addresses: Addresses::All,
    }
}

const fn option(need: Need, class: OptionClass) -> Row {
    Row { class: Some(class), ..on(need, Verb::Option) }
}

use Need::{
    Administration, Audit, Broadcast, Identity, LowPorts, Raw, RawOrAdministration, System,
};
use Verb::{Bind, Capture, Connect, Create, Netns, Send, SetHostname, Transparent};

const INTERNET: &[i32] = &[libc::AF_INET, libc::AF_INET6];
const RAW: &[i32] = &[libc::SOCK_RAW];
/// `linux/socket.h`, `linux/can.h`, `net/bluetooth/bluetooth.h`; the libc crate lacks them, or has
/// them for other systems.
const AF_QIPCRTR: i32 = 42;
const AF_MCTP: i32 = 45;
const CAN_J1939: &[i32] = &[7];
const L2CAP: &[i32] = &[0];
const HCI: &[i32] = &[1];
const SOCK_DCCP: i32 = 6;
/// Types and protocols that have ports: TCP, UDP, DCCP, SCTP, UDP-Lite, SMC, MPTCP.
const WITH_PORTS: &[i32] = &[libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET, SOCK_DCCP];
const PORT_PROTOCOLS: &[i32] = &[6, 17, 33, 132, 136, 256, 262];
const ADMINISTRATION_GROUPS: &[i32] = &[
    libc::NETLINK_NETFILTER,
    libc::NETLINK_XFRM,
    libc::NETLINK_USERSOCK,
    libc::NETLINK_FIB_LOOKUP,
];
/// Of the netlink protocols only `NETLINK_USERSOCK` lets every process address others.
const CLOSED_NETLINK: &[i32] =
    &[0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 19, 20, 21, 22];

/// Rows marked `tried` were tried with each capability alone, on Linux 6.18 or 6.1.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    // Sockets that only a privileged process can make.
    on(Raw, Create).families(INTERNET).kinds(RAW), // inet_create(), inet6_create(); tried
    on(Raw, Create).families(&[libc::AF_PACKET]), // packet_create(); tried
    on(Raw, Create).families(&[libc::AF_XDP]), // xsk_create(); tried, no CAP_IPC_LOCK
    on(Raw, Create).named(libc::AF_BLUETOOTH).kinds(RAW).protocols(L2CAP), // l2cap_sock_create(); tried
    on(Raw, Create).named(libc::AF_LLC), // llc_ui_create(), whatever its type; tried
    on(Raw, Create).named(libc::AF_IEEE802154).kinds(RAW), // ieee802154_create(); tried
    on(Raw, Create).named(libc::AF_NFC).kinds(RAW), // rawsock_create(), llcp_sock_create(); tried
    on(Raw, Create).named(libc::AF_APPLETALK).kinds(RAW), // atalk_create(); tried
    on(Administration, Create).named(libc::AF_KEY), // pfkey_create(); tried
    on(System, Create).named(libc::AF_PHONET), // pn_socket_create(); tried
    // The sniffer makes a packet socket where it is switched on.
    on(Raw, Capture), // packet_create(); tried

    // Local addresses.
    on(LowPorts, Bind).families(INTERNET).kinds(WITH_PORTS).protocols(PORT_PROTOCOLS)
        .addresses(Addresses::LowPorts), // inet_bind_sk(): ip_unprivileged_port_start; tried
    on(LowPorts, Bind).named(libc::AF_VSOCK).addresses(Addresses::Others), // __vsock_bind_connectible(); tried
    on(LowPorts, Bind).named(libc::AF_BLUETOOTH).protocols(L2CAP)
        .addresses(Addresses::Others), // l2cap_validate_bredr_psm(): PSM below 0x1001; tried
    on(LowPorts, Bind).named(AF_MCTP).addresses(Addresses::Others), // mctp_bind()
    on(Administration, Bind).named(AF_QIPCRTR).addresses(Addresses::Others), // qrtr_port_assign(): below 0x4000; tried
    on(Administration, Bind).named(libc::AF_BLUETOOTH).protocols(HCI)
        .addresses(Addresses::Others), // hci_sock_bind(): channels user and logging; tried
    on(Raw, Bind).named(libc::AF_BLUETOOTH).protocols(HCI)
        .addresses(Addresses::Others), // hci_sock_bind(): channel monitor; tried

    // Destinations.
    on(Administration, Connect).named(libc::AF_NETLINK).protocols(CLOSED_NETLINK)
        .addresses(Addresses::Others), // netlink_connect(): NL_CFG_F_NONROOT_SEND; tried
    on(Raw, Send).named(libc::AF_BLUETOOTH).kinds(RAW).protocols(HCI), // hci_sock_sendmsg(): commands

    // AF_UNIX addresses, as the caller.
    on(Identity, Bind).families(&[libc::AF_UNIX]), // unix_bind_bsd(): inode_permission(); tried
    on(Identity, Connect).families(&[libc::AF_UNIX]), // unix_find_bsd(): path_permission(); tried
    on(Identity, Send).families(&[libc::AF_UNIX]), // scm_check_creds(); tried

    // Options; bind() to groups of netlink counts as the option that joins them.
    option(Administration, OptionClass::BuffersForce), // sk_setsockopt(): SO_RCVBUFFORCE, SO_SNDBUFFORCE; tried
    option(Administration, OptionClass::Scheduling), // sk_setsockopt(): SO_DEBUG, SO_PREFER_BUSY_POLL; tried
    option(RawOrAdministration, OptionClass::Scheduling), // sk_setsockopt(): SO_PRIORITY from 7 on; tried
    option(RawOrAdministration, OptionClass::Mark), // sk_setsockopt(): SO_MARK; tried
    option(Raw, OptionClass::BindToDevice), // sock_bindtoindex_locked(): once it is set; tried
    option(Raw, OptionClass::Routing), // __ip_options_compile(), ipv6_set_opt_hdr(); tried
    option(Administration, OptionClass::Ipsec), // do_ip_setsockopt(): IP_XFRM_POLICY; tried
    option(Administration, OptionClass::Modules), // tcp_set_congestion_control(); tried
    option(Administration, OptionClass::TcpRepair), // tcp_can_repair_sock(); tried
    option(Administration, OptionClass::Ordinary).named(libc::AF_CAN)
        .protocols(CAN_J1939), // j1939_sk_setsockopt(): priorities 0 and 1; tried
    option(Administration, OptionClass::Netlink).families(&[libc::AF_NETLINK])
        .protocols(ADMINISTRATION_GROUPS), // netlink_bind(), netlink_setsockopt(): NL_CFG_F_NONROOT_RECV; tried
    option(Audit, OptionClass::Netlink).families(&[libc::AF_NETLINK])
        .protocols(&[libc::NETLINK_AUDIT]), // audit_multicast_bind(); tried
    option(Broadcast, OptionClass::Netlink).families(&[libc::AF_NETLINK]), // NETLINK_LISTEN_ALL_NSID; tried
    option(Administration, OptionClass::Unknown), // what nobody knows may ask for it
    on(RawOrAdministration, Transparent), // do_ip_setsockopt(): IP_TRANSPARENT; tried

    // The host.
    on(System, SetHostname), // sethostname(2); tried
    on(System, Netns), // setns(2); tried
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::{Directory, read};

    struct Nobody;

    impl Directory for Nobody {
        fn user(&self, _name: &str) -> Option<u32> {
            None
        }

        fn group(&self, _name: &str) -> Option<u32> {
            None
        }
    }

    fn needs(rule: &str) -> Vec<Need> {
        let text = format!(
            "version = 1\n[[rule]]\nname = \"r\"\nsubject = {{ everyone = true }}\n{rule}\n"
        );
        let content = read("test", &text, &Nobody).unwrap();
        let rules = content.rules.into_iter().map(|(rule, _)| rule).collect();
        let policy = Policy::new(970, rules, false);
        Need::ALL.into_iter().filter(|need| policy.needs(*need)).collect()
    }

    #[test]
    fn without_rules_everything_is_needed() {
        let policy = Policy::built_in(970);
        assert!(Need::ALL.into_iter().all(|need| policy.needs(need)));
    }

    /// A rule as `verb family type protocol`, with `*` for a field that is absent, and what it needs.
    /// In the order of the table.
    const SOCKETS: &[(&str, &[Need])] = &[
        ("create AF_INET SOCK_RAW *", &[Raw]),
        ("create AF_INET6 SOCK_RAW IPPROTO_ICMPV6", &[Raw]),
        ("create AF_INET SOCK_STREAM *", &[]),
        ("create AF_PACKET * *", &[Raw]),
        ("create AF_PACKET SOCK_DGRAM *", &[Raw]),
        ("create 44 SOCK_RAW *", &[Raw]),
        ("create AF_BLUETOOTH SOCK_RAW BTPROTO_L2CAP", &[Raw]),
        ("create AF_BLUETOOTH SOCK_SEQPACKET BTPROTO_L2CAP", &[]),
        ("create AF_BLUETOOTH SOCK_RAW BTPROTO_HCI", &[]),
        ("create AF_LLC SOCK_DGRAM *", &[Raw]),
        ("create 36 SOCK_RAW *", &[Raw]),
        ("create 36 SOCK_DGRAM *", &[]),
        ("create 39 SOCK_RAW *", &[Raw]),
        ("create 39 SOCK_STREAM *", &[]),
        ("create AF_APPLETALK SOCK_RAW *", &[Raw]),
        ("create AF_APPLETALK SOCK_DGRAM *", &[]),
        ("create AF_KEY SOCK_RAW *", &[Administration]),
        ("create 35 SOCK_DGRAM *", &[System]),
        ("create AF_NETLINK SOCK_RAW *", &[]),
        ("create AF_CAN SOCK_RAW *", &[]),
        ("create * * *", &[Raw]),
        ("create * SOCK_STREAM *", &[Raw]),
        ("capture AF_INET SOCK_RAW *", &[Raw]),
        ("inject AF_PACKET * *", &[]),
        ("spoof AF_INET SOCK_RAW *", &[]),
        ("bind AF_INET SOCK_STREAM *", &[LowPorts]),
        ("bind AF_INET6 SOCK_DGRAM IPPROTO_UDP", &[LowPorts]),
        ("bind AF_INET SOCK_RAW *", &[]),
        ("bind AF_INET SOCK_DGRAM IPPROTO_ICMP", &[]),
        ("bind AF_VSOCK * *", &[LowPorts]),
        ("bind AF_BLUETOOTH * BTPROTO_L2CAP", &[LowPorts]),
        ("bind AF_BLUETOOTH * BTPROTO_RFCOMM", &[]),
        ("bind 45 SOCK_DGRAM *", &[LowPorts]),
        ("bind AF_QIPCRTR * *", &[Administration]),
        ("bind AF_BLUETOOTH SOCK_RAW BTPROTO_HCI", &[Raw, Administration]),
        ("bind AF_CAN * *", &[]),
        ("bind AF_PACKET * *", &[]),
        ("connect AF_NETLINK * NETLINK_ROUTE", &[Administration]),
        ("connect AF_NETLINK * NETLINK_USERSOCK", &[]),
        ("send AF_BLUETOOTH SOCK_RAW BTPROTO_HCI", &[Raw]),
        ("send AF_NETLINK * *", &[]),
        ("bind AF_UNIX * *", &[Identity]),
        ("connect AF_UNIX * *", &[Identity]),
        ("send AF_UNIX * *", &[Identity]),
        ("transparent AF_INET * *", &[RawOrAdministration]),
        ("sethostname * * *", &[System]),
        ("netns * * *", &[System]),
        ("ioctl * * *", &[]),
    ];

    #[test]
    fn a_verb_on_a_socket_needs_what_the_kernel_asks_for_and_no_more() {
        for (rule, needed) in SOCKETS {
            let mut words = rule.split(' ');
            let mut lines = vec![format!("allow = [\"{}\"]", words.next().unwrap())];
            for (field, word) in ["family", "type", "protocol"].into_iter().zip(words) {
                match (word, word.parse::<i32>()) {
                    ("*", _) => {}
                    (_, Ok(number)) => lines.push(format!("{field} = [{number}]")),
                    (_, Err(_)) => lines.push(format!("{field} = [\"{word}\"]")),
                }
            }
            assert_eq!(needs(&lines.join("\n")), *needed, "{rule}");
        }
    }

    #[test]
    fn a_class_of_options_needs_what_the_kernel_asks_for_and_no_more() {
        let tcp = "family = [\"AF_INET\"]\n";
        let netlink =
            |protocol: &str| format!("family = [\"AF_NETLINK\"]\nprotocol = [\"{protocol}\"]\n");
        let j1939 = "family = [\"AF_CAN\"]\nprotocol = [7]\n";
        for (socket, class, needed) in [
            (tcp, "ordinary", &[][..]),
            (tcp, "buffers-force", &[Administration]),
            (tcp, "scheduling", &[RawOrAdministration, Administration]),
            (tcp, "mark", &[RawOrAdministration]),
            (tcp, "bind-to-device", &[Raw]),
            (tcp, "multicast", &[]),
            (tcp, "filter", &[]),
            (tcp, "routing", &[Raw]),
            (tcp, "ipsec", &[Administration]),
            (tcp, "modules", &[Administration]),
            (tcp, "tcp-repair", &[Administration]),
            ("family = [\"AF_PACKET\"]\n", "packet", &[]),
            (tcp, "netlink", &[]),
            (tcp, "unknown", &[Administration]),
            (j1939, "ordinary", &[Administration]),
            ("family = [\"AF_CAN\"]\nprotocol = [1]\n", "ordinary", &[]),
            (&netlink("NETLINK_ROUTE"), "netlink", &[Broadcast]),
            (&netlink("NETLINK_NETFILTER"), "netlink", &[Administration, Broadcast]),
            (&netlink("NETLINK_XFRM"), "netlink", &[Administration, Broadcast]),
            (&netlink("NETLINK_USERSOCK"), "netlink", &[Administration, Broadcast]),
            (&netlink("NETLINK_FIB_LOOKUP"), "netlink", &[Administration, Broadcast]),
            (&netlink("NETLINK_AUDIT"), "netlink", &[Broadcast, Audit]),
        ] {
            // bind() to a group of netlink asks for the class as well.
            let rule = format!(
                "{socket}allow = [\"option\", \"bind\"]\noption = [\"{class}\"]\nlocal_ports = [\"1024-65535\"]"
            );
            assert_eq!(needs(&rule), needed, "{socket}{class}");
        }
        let all = "family = [\"AF_INET\"]\nallow = [\"option\"]";
        assert_eq!(needs(all), [Raw, RawOrAdministration, Administration]);
    }

    #[test]
    fn addresses_and_messages_decide_whether_a_privilege_is_needed() {
        let tcp = "family = [\"AF_INET\"]\ntype = [\"SOCK_STREAM\"]\n";
        let netlink = "family = [\"AF_NETLINK\"]\nallow = [\"send\"]\n";
        for (rule, needed) in [
            (format!("{tcp}allow = [\"bind\"]\nlocal_ports = [\"0\", \"1024-65535\"]"), &[][..]),
            (format!("{tcp}allow = [\"bind\"]\nlocal_ports = [\"0-1\"]"), &[LowPorts]),
            (format!("{tcp}allow = [\"bind\"]\nlocal_ports = [\"1023-2000\"]"), &[LowPorts]),
            ("family = [\"AF_VSOCK\", \"AF_INET\"]\nallow = [\"bind\"]\nlocal_ports = [\"1024-2000\"]".to_owned(), &[]),
            (format!("{netlink}netlink = [\"get\"]"), &[]),
            (format!("{netlink}netlink = [\"get\", \"route\"]"), &[Administration]),
            (format!("{netlink}netlink = [\"peer\"]"), &[Administration]),
            ("deny = [\"create\", \"sethostname\"]".to_owned(), &[]),
        ] {
            assert_eq!(needs(&rule), needed, "{rule}");
        }
    }

    #[test]
    fn no_row_of_the_table_stands_twice() {
        for (place, row) in TABLE.iter().enumerate() {
            let text = format!("{row:?}");
            assert!(TABLE[..place].iter().all(|other| format!("{other:?}") != text), "{text}");
        }
    }
}
