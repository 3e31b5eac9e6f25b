//! Describes what IP packets carry: TCP, UDP and ICMP.

use etherparse::IpNumber;

use super::{dhcp, dns};

/// Bytes of the header of TCP without options, of UDP, and of ICMP with its identifier and number.
const TCP: usize = 20;
const UDP: usize = 8;
const ICMP: usize = 8;
/// The bits of the header of TCP and their letters, in the order of tcpdump.
const FLAGS: [(u8, char); 8] = [
    (0x01, 'F'),
    (0x02, 'S'),
    (0x04, 'R'),
    (0x08, 'P'),
    (0x10, '.'),
    (0x20, 'U'),
    (0x40, 'E'),
    (0x80, 'W'),
];
/// The bit that says that an acknowledgement number is present.
const ACK: u8 = 0x10;

/// The ports that a segment or datagram begins with, source first.
pub(super) fn ports(protocol: IpNumber, data: &[u8]) -> Option<(u16, u16)> {
    let has_ports = protocol == IpNumber::TCP || protocol == IpNumber::UDP;
    let [s0, s1, d0, d1] = *data.first_chunk()?;
    has_ports.then(|| (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
}

/// Describes the payload of an IP packet, without its ports. `data` are the captured bytes of this length. `None` for
/// a protocol without a decoder.
pub(super) fn describe(
    protocol: IpNumber,
    data: &[u8],
    length: usize,
    brief: bool,
) -> Option<String> {
    Some(match protocol {
        IpNumber::TCP => tcp(data, length, brief),
        IpNumber::UDP => udp(data, length, brief),
        IpNumber::ICMP => icmp("ICMP", data, length, icmpv4),
        IpNumber::IPV6_ICMP => icmp("ICMPv6", data, length, icmpv6),
        _ => return None,
    })
}

fn tcp(data: &[u8], length: usize, brief: bool) -> String {
    let Some(header) = data.first_chunk::<TCP>() else {
        return format!("TCP cut off length {length}");
    };
    let [_, _, _, _, q0, q1, q2, q3, a0, a1, a2, a3, offset, flags, w0, w1, ..] = *header;
    let offset = usize::from(offset >> 4) * 4;
    let length = length.saturating_sub(offset);
    if brief {
        return format!("TCP length {length}");
    }
    let letters: String =
        FLAGS.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, letter)| letter).collect();
    let sequence = u32::from_be_bytes([q0, q1, q2, q3]);
    let ack = (flags & ACK != 0).then(|| format!(" ack {}", u32::from_be_bytes([a0, a1, a2, a3])));
    let window = u16::from_be_bytes([w0, w1]);
    let ports = ports(IpNumber::TCP, data).unwrap_or_default();
    let message = data.get(offset..).and_then(|payload| over_tcp(ports, payload));
    let message = message.map(|message| format!(" {message}")).unwrap_or_default();
    let ack = ack.unwrap_or_default();
    format!("TCP [{letters}] seq {sequence}{ack} win {window} length {length}{message}")
}

/// A message of DNS that is a whole segment, behind its length.
fn over_tcp((source, destination): (u16, u16), payload: &[u8]) -> Option<String> {
    let (length, message) = payload.split_first_chunk::<2>()?;
    let is_dns =
        dns::uses(source, destination) && usize::from(u16::from_be_bytes(*length)) == message.len();
    is_dns.then(|| dns::describe(message)).flatten()
}

fn udp(data: &[u8], length: usize, brief: bool) -> String {
    let (Some((header, rest)), Some((source, destination))) =
        (data.split_first_chunk::<UDP>(), ports(IpNumber::UDP, data))
    else {
        return format!("UDP cut off length {length}");
    };
    let [_, _, _, _, l0, l1, ..] = *header;
    // The header of a datagram that the interface divides later can have no length.
    let own = usize::from(u16::from_be_bytes([l0, l1]));
    let size = if own == 0 { length } else { own }.saturating_sub(UDP);
    let payload = rest.get(..size).unwrap_or(rest);
    let message = if brief {
        None
    } else if dns::uses(source, destination) {
        dns::describe(payload)
    } else if dhcp::uses(source, destination) {
        dhcp::describe(payload)
    } else {
        None
    };
    format!("{} length {size}", message.as_deref().unwrap_or("UDP"))
}

/// Describes a message of ICMP. `name` returns the name of a type, and whether it is an echo.
fn icmp(
    protocol: &str,
    data: &[u8],
    length: usize,
    name: fn(u8) -> (&'static str, bool),
) -> String {
    let Some([kind, code]) = data.first_chunk::<2>() else {
        return format!("{protocol} cut off length {length}");
    };
    let (name, is_echo) = name(*kind);
    match data.first_chunk::<ICMP>() {
        Some([_, _, _, _, i0, i1, n0, n1]) if is_echo => {
            let (id, number) = (u16::from_be_bytes([*i0, *i1]), u16::from_be_bytes([*n0, *n1]));
            format!("{protocol} {name} id {id} seq {number} length {length}")
        }
        None if is_echo => format!("{protocol} {name} cut off length {length}"),
        _ => format!("{protocol} {name} {kind}/{code} length {length}"),
    }
}

fn icmpv4(kind: u8) -> (&'static str, bool) {
    match kind {
        0 => ("echo reply", true),
        8 => ("echo request", true),
        3 => ("destination unreachable", false),
        5 => ("redirect", false),
        11 => ("time exceeded", false),
        _ => ("type", false),
    }
}

fn icmpv6(kind: u8) -> (&'static str, bool) {
    match kind {
        128 => ("echo request", true),
        129 => ("echo reply", true),
        1 => ("destination unreachable", false),
        2 => ("packet too big", false),
        3 => ("time exceeded", false),
        133 => ("router solicitation", false),
        134 => ("router advertisement", false),
        135 => ("neighbour solicitation", false),
        136 => ("neighbour advertisement", false),
        143 => ("multicast listener report", false),
        _ => ("type", false),
    }
}
