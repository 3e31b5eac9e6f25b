//! Messages of DHCP (RFC 2131) on one line.

use std::net::Ipv4Addr;

use super::text::{escaped, mac};

/// The ports of servers and clients.
const PORTS: [u16; 2] = [67, 68];
/// The length of the fields before the options.
const FIELDS: usize = 236;
/// What the options begin with.
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// How many addresses of a list are printed.
const ADDRESSES_MAX: usize = 3;
/// The most bytes of a text that are printed.
const TEXT_MAX: usize = 64;
/// What follows if the message ends before its options do.
const CUT: &str = " [|dhcp]";

/// Whether both ports are those of DHCP.
pub(super) fn uses(source: u16, destination: u16) -> bool {
    PORTS.contains(&source) && PORTS.contains(&destination)
}

/// Describes a message; `None` if it is shorter than its fields, or not of DHCP or BOOTP.
pub(super) fn describe(message: &[u8]) -> Option<String> {
    let (fields, options) = message.split_first_chunk::<FIELDS>()?;
    let word = |at: usize| fields.get(at..at + 4).and_then(|word| <[u8; 4]>::try_from(word).ok());
    let options = options.strip_prefix(&COOKIE);
    let (facts, is_whole) = options.map_or((Facts::default(), true), Facts::of);
    let operation = match (facts.kind, fields.first()?) {
        (Some(kind), 1 | 2) => format!("DHCP {}", kind_name(kind)),
        (None, 1) => "BOOTP request".to_owned(),
        (None, 2) => "BOOTP reply".to_owned(),
        _ => return None,
    };
    let hardware = usize::from(*fields.get(2)?).min(16);
    let client = mac(fields.get(28..28 + hardware)?);
    let transaction = u32::from_be_bytes(word(4)?);
    let mut line = format!("{operation} client {client} xid 0x{transaction:08x}");
    for (name, at) in [("has", 12), ("your", 16), ("next server", 20), ("relay", 24)] {
        if let Some(address) = word(at).map(Ipv4Addr::from).filter(|found| !found.is_unspecified())
        {
            line.extend([" ", name, " ", &address.to_string()]);
        }
    }
    line += &facts.text;
    Some(if is_whole { line } else { line + CUT })
}

/// What options contain.
#[derive(Debug, Default)]
struct Facts {
    /// The type of the message.
    kind: Option<u8>,
    /// Other options of interest, each after a blank.
    text: String,
}

impl Facts {
    /// Reads options. Also returns whether they have an end.
    fn of(mut options: &[u8]) -> (Self, bool) {
        let mut facts = Self::default();
        loop {
            match options {
                [] | [1..=254] => return (facts, false),
                [255, ..] => return (facts, true),
                [0, rest @ ..] => options = rest,
                [code, length, rest @ ..] => {
                    let Some((value, rest)) = rest.split_at_checked((*length).into()) else {
                        return (facts, false);
                    };
                    facts.add(*code, value);
                    options = rest;
                }
            }
        }
    }

    fn add(&mut self, code: u8, value: &[u8]) {
        let text = match (code, value) {
            (53, [kind]) => {
                self.kind = Some(*kind);
                return;
            }
            (50, _) => addresses("requested", value),
            (54, _) => addresses("server", value),
            (1, _) => addresses("mask", value),
            (3, _) => addresses("router", value),
            (6, _) => addresses("dns", value),
            (51, [a, b, c, d]) => Some(format!("lease {} s", u32::from_be_bytes([*a, *b, *c, *d]))),
            (12, _) => Some(quoted("host", value)),
            (15, _) => Some(quoted("domain", value)),
            (56, _) => Some(quoted("message", value)),
            (60, _) => Some(quoted("vendor", value)),
            _ => None,
        };
        if let Some(text) = text {
            self.text.push(' ');
            self.text.push_str(&text);
        }
    }
}

fn addresses(name: &str, value: &[u8]) -> Option<String> {
    let (addresses, _) = value.as_chunks::<4>();
    let listed: Vec<_> = addresses
        .iter()
        .take(ADDRESSES_MAX)
        .map(|address| Ipv4Addr::from(*address).to_string())
        .collect();
    let more = if addresses.len() > ADDRESSES_MAX { ",..." } else { "" };
    (!listed.is_empty()).then(|| format!("{name} {}{more}", listed.join(",")))
}

fn quoted(name: &str, value: &[u8]) -> String {
    let shown = value.get(..TEXT_MAX).unwrap_or(value);
    let more = if shown.len() < value.len() { "..." } else { "" };
    format!("{name} \"{}\"{more}", escaped(shown))
}

fn kind_name(kind: u8) -> String {
    let name = match kind {
        1 => "Discover",
        2 => "Offer",
        3 => "Request",
        4 => "Decline",
        5 => "ACK",
        6 => "NAK",
        7 => "Release",
        8 => "Inform",
        9 => "ForceRenew",
        other => return format!("type {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(operation: u8, words: &[(usize, [u8; 4])], options: &[u8]) -> Vec<u8> {
        let mut fields = vec![0; FIELDS];
        fields[..4].copy_from_slice(&[operation, 1, 6, 0]);
        fields[4..8].copy_from_slice(&[0x3d, 0x1d, 0xbe, 0xef]);
        fields[28..34].copy_from_slice(&[0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        for (at, word) in words {
            fields[*at..at + 4].copy_from_slice(word);
        }
        [&fields[..], &COOKIE, options].concat()
    }

    /// As dhclient sends it: type, requested address, host name, list of parameters.
    fn discover() -> Vec<u8> {
        message(
            1,
            &[],
            b"\x35\x01\x01\x32\x04\x0a\x00\x00\x63\x0c\x03pc1\x37\x03\x01\x03\x06\xff\x00\x00\x00",
        )
    }

    /// As dnsmasq answers it.
    fn ack() -> Vec<u8> {
        message(
            2,
            &[(16, [10, 0, 0, 99]), (20, [10, 0, 0, 1])],
            b"\x35\x01\x05\x36\x04\x0a\x00\x00\x01\x33\x04\x00\x00\x0e\x10\x01\x04\xff\xff\xff\x00\
              \x03\x04\x0a\x00\x00\x01\x06\x08\x0a\x00\x00\x01\x08\x08\x08\x08\x0f\x03lab\xff",
        )
    }

    #[test]
    fn messages_have_type_client_addresses_and_options() {
        assert_eq!(
            describe(&discover()).unwrap(),
            "DHCP Discover client 52:54:00:12:34:56 xid 0x3d1dbeef requested 10.0.0.99 host \"pc1\""
        );
        assert_eq!(
            describe(&ack()).unwrap(),
            "DHCP ACK client 52:54:00:12:34:56 xid 0x3d1dbeef your 10.0.0.99 next server 10.0.0.1 server 10.0.0.1 \
             lease 3600 s mask 255.255.255.0 router 10.0.0.1 dns 10.0.0.1,8.8.8.8 domain \"lab\""
        );
        let refusal = message(2, &[(24, [1, 2, 3, 4])], b"\x35\x01\x06\x38\x03n\no\xff");
        let line = describe(&refusal).unwrap();
        assert!(line.ends_with(" relay 1.2.3.4 message \"n\\010o\""), "{line}");
        assert!(line.starts_with("DHCP NAK client "), "{line}");
    }

    #[test]
    fn messages_without_a_type_are_those_of_bootp() {
        let mut plain = message(1, &[], b"\xff");
        assert!(describe(&plain).unwrap().starts_with("BOOTP request client 52:"));
        plain[0] = 2;
        plain[FIELDS] = 0;
        assert!(describe(&plain).unwrap().starts_with("BOOTP reply client 52:"));
        plain[0] = 3;
        assert_eq!(describe(&plain), None);
    }

    #[test]
    fn a_message_that_is_cut_anywhere_is_described_as_far_as_possible() {
        for message in [discover(), ack()] {
            let end = message.iter().rposition(|byte| *byte == 255).unwrap();
            let whole = describe(&message).unwrap();
            for length in 0..=end {
                let described = describe(&message[..length]);
                assert_eq!(described.is_some(), length >= FIELDS, "{length}");
                // The type comes first among the options.
                if length >= FIELDS + COOKIE.len() + 3 {
                    let line = described.unwrap();
                    let known = line.strip_suffix(CUT).unwrap();
                    assert!(whole.starts_with(known), "{line}");
                }
            }
        }
    }

    #[test]
    fn hostile_options_do_not_panic_and_do_not_make_long_lines() {
        // A hardware address longer than its field, options of wrong lengths, and a long text and list.
        let mut hostile = message(
            1,
            &[],
            b"\x35\x02\x01\x01\x33\x03\x00\x00\x01\x32\x03\x01\x02\x03\x01\x00\xff",
        );
        hostile[2] = 255;
        assert!(describe(&hostile).unwrap().starts_with("BOOTP request client "));
        let long =
            [&b"\x35\x01\x01\x0c\xff"[..], &[b'h'; 255], b"\x06\xfc", &[8; 252], b"\xff"].concat();
        let line = describe(&message(1, &[], &long)).unwrap();
        assert!(
            line.ends_with(&format!(
                "host \"{}\"... dns 8.8.8.8,8.8.8.8,8.8.8.8,...",
                "h".repeat(64)
            )),
            "{line}"
        );
        let mut seed = 1_u64;
        for length in 0..300 {
            let mut random = |_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed.to_ne_bytes()[3]
            };
            let bytes: Vec<u8> = (0..length).map(&mut random).collect();
            let line = describe(&message(1, &[], &bytes)).unwrap();
            assert!(line.chars().all(|char| (' '..='~').contains(&char)), "{line}");
        }
    }
}
