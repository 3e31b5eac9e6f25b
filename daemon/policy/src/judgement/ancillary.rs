//! Ancillary data that a message carries, by the classes of options. Its types are numbered apart from
//! options: an item of SCTP has the number of a harmless option, and adds destinations.

use crate::judgement::option::{Row, row};
use crate::language::option_class::OptionClass;

const SOL_SOCKET: i32 = libc::SOL_SOCKET;
const IP: i32 = libc::IPPROTO_IP;
const IPV6: i32 = libc::IPPROTO_IPV6;
const UDP: i32 = libc::IPPROTO_UDP;

/// The class of an item of ancillary data that is sent.
pub fn class_of_ancillary(level: i32, kind: i32, data: &[u8]) -> OptionClass {
    if level == libc::IPPROTO_SCTP && is_sent_by_address(kind, data) {
        return OptionClass::Ordinary;
    }
    let rows = ANCILLARY.iter().filter(|row| row.level == level);
    rows.filter(|row| row.names.contains(&kind))
        .map(|row| row.class)
        .next()
        .unwrap_or(OptionClass::Unknown)
}

/// Whether `SCTP_SNDRCV` or `SCTP_SNDINFO` leaves the destination to the address: it names no association, and
/// does not select all of them (`sctp_msghdr_parse`).
fn is_sent_by_address(kind: i32, data: &[u8]) -> bool {
    const TO_ALL: u16 = 1 << 6; // SCTP_SENDALL
    // struct sctp_sndrcvinfo, struct sctp_sndinfo: the offsets of flags and association.
    let (flags, association) = match kind {
        1 => (4, 28),
        2 => (2, 12),
        _ => return false,
    };
    let flags = data.get(flags..).and_then(<[u8]>::first_chunk).map(|two| u16::from_ne_bytes(*two));
    let association = data.get(association..).and_then(<[u8]>::first_chunk::<4>);
    flags.is_some_and(|flags| flags & TO_ALL == 0) && association == Some(&[0; 4])
}

/// Items that the kernel takes from a sender (`__sock_cmsg_send`, `ip_cmsg_send`,
/// `ip6_datagram_send_ctl`, `udp_cmsg_send`, `sctp_msghdr_parse`, `tls_process_cmsg`). An item in no row
/// is unknown.
#[rustfmt::skip]
const ANCILLARY: &[Row] = &[
    // Rights and credentials have separate checks.
    row(SOL_SOCKET, OptionClass::Ordinary, &[
        libc::SCM_RIGHTS, libc::SCM_CREDENTIALS, libc::SO_TIMESTAMPING, 65, 81, // SO_TIMESTAMPING_NEW, SCM_TS_OPT_ID
    ]),
    row(SOL_SOCKET, OptionClass::Mark, &[libc::SO_MARK]),
    row(SOL_SOCKET, OptionClass::Scheduling, &[libc::SO_PRIORITY, libc::SCM_TXTIME]),
    row(IP, OptionClass::Ordinary, &[libc::IP_TOS, libc::IP_TTL, libc::IP_PKTINFO, 52]), // IP_PROTOCOL
    // As an option it is a switch, as an item it holds the options themselves.
    row(IP, OptionClass::Routing, &[libc::IP_RETOPTS]),
    row(IPV6, OptionClass::Ordinary, &[
        8, 11, 50, 52, 62, 67, // IPV6_2292HOPLIMIT, FLOWINFO, PKTINFO, HOPLIMIT, DONTFRAG, TCLASS
    ]),
    row(IPV6, OptionClass::Routing, &[2, 3, 4, 5, 54, 55, 57, 59]), // IPV6_2292*, HOPOPTS, RTHDRDSTOPTS, RTHDR, DSTOPTS
    row(UDP, OptionClass::Ordinary, &[103]), // UDP_SEGMENT
    row(libc::IPPROTO_SCTP, OptionClass::Ordinary, &[0, 5]), // SCTP_INIT, SCTP_PRINFO; others name associations, addresses
    row(libc::SOL_ALG, OptionClass::Ordinary, &[1, 2, 3, 4, 5, 6]), // ALG_SET_*
    row(libc::SOL_TLS, OptionClass::Ordinary, &[1]), // TLS_SET_RECORD_TYPE
];
