//! The requests for which the kernel requires a privilege of the process. A comment at each row names the
//! function of the kernel. A request in no row needs none: options of packet sockets, filters,
//! `IP_HDRINCL`, or a multicast group, on a socket that the broker has made.

use crate::language::option_class::OptionClass;
use crate::language::verb::Verb;

/// A privilege of the process without which some rules have no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Need {
    /// Raw and packet sockets, headers of routing, the change of a device.
    Raw,
    /// Marks, high priorities, foreign addresses: [`Need::Raw`] or [`Need::Administration`] suffices.
    RawOrAdministration,
    /// Options and netlink messages that change the host, and the network namespaces of callers.
    Administration,
    /// Netlink messages of all network namespaces.
    Broadcast,
    /// Local ports below 1024, and their equivalents in other families.
    LowPorts,
    /// Another user's identity for `AF_UNIX` addresses.
    Identity,
    /// The name of the host, and sockets in other network namespaces.
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

/// The families that a row is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Families {
    /// Every one.
    All,
    /// These; a rule that names no family is about them too.
    These(&'static [i32]),
    /// This one, where a rule names it. A rule that names no family is seldom intended for it, and
    /// keeping the privilege for that would be more dangerous than its refusal.
    Named(i32),
}

/// The addresses that a row is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Addresses {
    /// Every one.
    All,
    /// IP addresses with a port below 1024.
    LowPorts,
    /// Of another kind, which no field of a rule names.
    Others,
}

/// One kind of request that the kernel refuses without a privilege.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) need: Need,
    pub(super) verb: Verb,
    /// For [`Verb::Option`].
    pub(super) class: Option<OptionClass>,
    pub(super) families: Families,
    /// Types; none for all.
    pub(super) types: &'static [i32],
    /// Protocols; none for all.
    pub(super) protocols: &'static [i32],
    pub(super) addresses: Addresses,
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

    const fn types(mut self, types: &'static [i32]) -> Self {
        self.types = types;
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
}

const fn on(need: Need, verb: Verb) -> Row {
    Row {
        need,
        verb,
        class: None,
        families: Families::All,
        types: &[],
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
use Verb::{Bind, Capture, Connect, Create, Send, SetHostname, Transparent};

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
pub(super) const TABLE: &[Row] = &[
    // Sockets that only a privileged process can make.
    on(Raw, Create).families(INTERNET).types(RAW), // inet_create(), inet6_create(); tried
    on(Raw, Create).families(&[libc::AF_PACKET]), // packet_create(); tried
    on(Raw, Create).families(&[libc::AF_XDP]), // xsk_create(); tried, no CAP_IPC_LOCK
    on(Raw, Create).named(libc::AF_BLUETOOTH).types(RAW).protocols(L2CAP), // l2cap_sock_create(); tried
    on(Raw, Create).named(libc::AF_LLC), // llc_ui_create(), whatever its type; tried
    on(Raw, Create).named(libc::AF_IEEE802154).types(RAW), // ieee802154_create(); tried
    on(Raw, Create).named(libc::AF_NFC).types(RAW), // rawsock_create(), llcp_sock_create(); tried
    on(Raw, Create).named(libc::AF_APPLETALK).types(RAW), // atalk_create(); tried
    on(Administration, Create).named(libc::AF_KEY), // pfkey_create(); tried
    on(System, Create).named(libc::AF_PHONET), // pn_socket_create(); tried
    // SIO_RCVALL makes a packet socket when it is switched on.
    on(Raw, Capture), // packet_create(); tried

    // Local addresses.
    on(LowPorts, Bind).families(INTERNET).types(WITH_PORTS).protocols(PORT_PROTOCOLS)
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
    on(Raw, Send).named(libc::AF_BLUETOOTH).types(RAW).protocols(HCI), // hci_sock_sendmsg(): commands

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
    option(Broadcast, OptionClass::Unknown).families(&[libc::AF_NETLINK]), // NETLINK_LISTEN_ALL_NSID; tried
    option(Administration, OptionClass::Unknown), // an unknown option can require it
    on(RawOrAdministration, Transparent), // do_ip_setsockopt(): IP_TRANSPARENT; tried

    // The host.
    on(System, SetHostname), // sethostname(2); tried
];
