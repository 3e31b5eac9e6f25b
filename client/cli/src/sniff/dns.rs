//! Messages of DNS and mDNS (RFC 1035) on one line, with the marks of tcpdump: `+` recursion is desired, `-` it is not
//! available, `*` the answer is authoritative, `|` the message is truncated by the server, `$` the data is authentic.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::text::escaped;

/// The port of DNS, and the one of mDNS.
const PORTS: [u16; 2] = [53, 5353];
/// The length of the header.
const HEADER: usize = 12;
/// How many questions and answers are printed.
const RECORDS_MAX: usize = 24;
/// The most bytes of a name (RFC 1035, 2.3.4).
const NAME_MAX: usize = 255;
/// The most bytes of a text that are printed.
const TEXT_MAX: usize = 100;
/// What follows if the message ends before a record does.
const CUT: &str = " [|domain]";

/// Whether one of the ports is that of DNS or mDNS.
pub(super) fn uses(source: u16, destination: u16) -> bool {
    PORTS.contains(&source) || PORTS.contains(&destination)
}

/// Describes a message; `None` if it is shorter than a header.
pub(super) fn describe(message: &[u8]) -> Option<String> {
    let [i0, i1, flags, more, counts @ ..] = *message.first_chunk::<HEADER>()?;
    let (id, records) = (u16::from_be_bytes([i0, i1]), Cursor { message, at: HEADER });
    let (pairs, _) = counts.as_chunks::<2>();
    let count = |place: usize| pairs.get(place).map_or(0, |pair| u16::from_be_bytes(*pair).into());
    let counts = [count(0), count(1), count(2), count(3)];
    let operation = match flags >> 3 & 15 {
        0 => "",
        1 => " inv_q",
        2 => " stat",
        4 => " notify",
        5 => " update",
        6 => " stateful",
        _ => " op",
    };
    let rest = if flags & 0x80 == 0 {
        query(flags, more, counts, records)
    } else {
        response(flags, more, counts, records)
    };
    Some(format!("DNS {id}{operation}{rest}"))
}

fn mark(is_set: bool, mark: &'static str) -> &'static str {
    if is_set { mark } else { "" }
}

fn query(flags: u8, more: u8, counts: [usize; 4], mut records: Cursor<'_>) -> String {
    let marks = [mark(flags & 1 != 0, "+"), mark(more & 0x10 != 0, "%")].concat();
    let [questions, answers, authorities, additional] = counts;
    let units = [(answers, "a"), (authorities, "n"), (additional, "au")];
    let units = units.iter().filter(|(count, _)| *count > 0);
    let units: Vec<_> = units.map(|(count, unit)| format!("[{count}{unit}]")).collect();
    let units = units.concat();
    let blank = mark(!units.is_empty(), " ");
    let asked = records.list(questions, Cursor::question);
    format!("{marks}{blank}{units}{asked}")
}

fn response(flags: u8, more: u8, counts: [usize; 4], mut records: Cursor<'_>) -> String {
    let code = match more & 15 {
        0 => "",
        1 => " FormErr",
        2 => " ServFail",
        3 => " NXDomain",
        4 => " NotImp",
        5 => " Refused",
        6 => " YXDomain",
        7 => " YXRRSet",
        8 => " NXRRSet",
        9 => " NotAuth",
        10 => " NotZone",
        _ => " error",
    };
    let marks = [
        mark(flags & 4 != 0, "*"),
        mark(more & 0x80 == 0, "-"),
        mark(flags & 2 != 0, "|"),
        mark(more & 0x20 != 0, "$"),
    ];
    let [questions, answers, authorities, additional] = counts;
    // The questions of a response are those of the query, and are not printed.
    let skipped = (0..questions).all(|_| records.question().is_some());
    let list = if skipped { records.list(answers, Cursor::record) } else { CUT.to_owned() };
    format!("{code}{} {answers}/{authorities}/{additional}{list}", marks.concat())
}

/// Reads a message.
#[derive(Debug, Clone, Copy)]
struct Cursor<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Records, each after a blank, until the message ends or many are printed.
    fn list(&mut self, count: usize, record: fn(&mut Self) -> Option<String>) -> String {
        let mut records = Vec::new();
        for number in 0..count {
            if number == RECORDS_MAX {
                records.push(format!(" and {} more", count - number));
                break;
            }
            match record(self) {
                Some(record) => records.push(format!(" {record}")),
                None => return records.join(",") + CUT,
            }
        }
        records.join(",")
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let bytes = self.message.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn number(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// A name. A pointer leads to an earlier place than the part of the name before it began: a loop would be malformed.
    fn name(&mut self) -> Option<String> {
        let (mut labels, mut length) = (String::new(), 0);
        // Where the name continues behind a pointer, and where the part began that contains it.
        let (mut reading, mut start, mut is_elsewhere) = (*self, self.at, false);
        loop {
            let [size] = reading.array()?;
            match size {
                0 => break,
                1..=63 => {
                    let label = reading.bytes(size.into())?;
                    length += label.len() + 1;
                    if length > NAME_MAX {
                        return None;
                    }
                    labels.push_str(&escaped(label).replace('.', "\\."));
                    labels.push('.');
                }
                64..=191 => return None,
                192.. => {
                    let [low] = reading.array()?;
                    if !is_elsewhere {
                        self.at = reading.at;
                        is_elsewhere = true;
                    }
                    let target = usize::from(u16::from_be_bytes([size & 63, low]));
                    if target >= start {
                        return None;
                    }
                    reading.at = target;
                    start = target;
                }
            }
        }
        if !is_elsewhere {
            self.at = reading.at;
        }
        Some(if labels.is_empty() { ".".to_owned() } else { labels })
    }

    fn question(&mut self) -> Option<String> {
        let name = self.name()?;
        let (kind, class) = (self.number()?, self.number()?);
        // The upper bit asks for a unicast answer (RFC 6762).
        let unicast = if class & 0x8000 != 0 { " (QU)" } else { "" };
        Some(format!("{}{}?{unicast} {name}", class_mark(class & 0x7fff), kind_name(kind)))
    }

    fn record(&mut self) -> Option<String> {
        self.name()?;
        let (kind, class) = (self.number()?, self.number()?);
        let _time_to_live: [u8; 4] = self.array()?;
        let length = usize::from(self.number()?);
        let data = Cursor { message: self.message.get(..self.at.checked_add(length)?)?, ..*self };
        self.at = data.message.len();
        if kind == OPT {
            return Some("OPT".to_owned());
        }
        let value = match data.value(kind) {
            Some(value) if value.is_empty() => value,
            Some(value) => format!(" {value}"),
            None => " malformed".to_owned(),
        };
        Some(format!("{}{}{value}", class_mark(class & 0x7fff), kind_name(kind)))
    }

    /// The data of a record; empty for kinds whose data is not printed.
    fn value(mut self, kind: u16) -> Option<String> {
        Some(match kind {
            1 => Ipv4Addr::from(self.array::<4>()?).to_string(),
            28 => Ipv6Addr::from(self.array::<16>()?).to_string(),
            NS | CNAME | PTR | 39 => self.name()?,
            15 => {
                let preference = self.number()?;
                format!("{} {preference}", self.name()?)
            }
            33 => {
                let (priority, weight, port) = (self.number()?, self.number()?, self.number()?);
                format!("{}:{port} {priority} {weight}", self.name()?)
            }
            16 => {
                let [length] = self.array()?;
                let text = self.bytes(length.into())?;
                let shown = text.get(..TEXT_MAX).unwrap_or(text);
                let more = if shown.len() < text.len() { "..." } else { "" };
                format!("\"{}\"{more}", escaped(shown))
            }
            _ => String::new(),
        })
    }
}

const NS: u16 = 2;
const CNAME: u16 = 5;
const PTR: u16 = 12;
const OPT: u16 = 41;

/// The mark of a class other than the Internet.
fn class_mark(class: u16) -> String {
    match class {
        1 => String::new(),
        3 => "CHAOS ".to_owned(),
        255 => "ANY ".to_owned(),
        other => format!("CLASS{other} "),
    }
}

fn kind_name(kind: u16) -> String {
    let name = match kind {
        1 => "A",
        NS => "NS",
        CNAME => "CNAME",
        6 => "SOA",
        PTR => "PTR",
        13 => "HINFO",
        15 => "MX",
        16 => "TXT",
        28 => "AAAA",
        33 => "SRV",
        35 => "NAPTR",
        39 => "DNAME",
        OPT => "OPT",
        43 => "DS",
        44 => "SSHFP",
        46 => "RRSIG",
        47 => "NSEC",
        48 => "DNSKEY",
        50 => "NSEC3",
        52 => "TLSA",
        64 => "SVCB",
        65 => "HTTPS",
        99 => "SPF",
        251 => "IXFR",
        252 => "AXFR",
        255 => "ANY",
        257 => "CAA",
        other => return format!("TYPE{other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A query for the addresses of `example.com`, as `dig` sends it, with an option record.
    const QUERY: &[u8] = b"\x1a\x2b\x01\x20\x00\x01\x00\x00\x00\x00\x00\x01\
        \x07example\x03com\x00\x00\x01\x00\x01\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";

    /// Its response: an alias and an address, with compressed names.
    const RESPONSE: &[u8] = b"\x1a\x2b\x81\x80\x00\x01\x00\x02\x00\x00\x00\x00\
        \x03www\x07example\x03com\x00\x00\x01\x00\x01\
        \xc0\x0c\x00\x05\x00\x01\x00\x00\x01\x2c\x00\x06\x03web\xc0\x10\
        \xc0\x2d\x00\x01\x00\x01\x00\x00\x01\x2c\x00\x04\x5d\xb8\xd8\x22";

    fn message(flags: [u8; 2], counts: [u8; 4], rest: &[u8]) -> Vec<u8> {
        let [questions, answers, authorities, additional] = counts;
        let counts = [0, questions, 0, answers, 0, authorities, 0, additional];
        [&[0, 7], &flags[..], &counts, rest].concat()
    }

    fn answer(kind: u16, data: &[u8]) -> String {
        let length = u16::try_from(data.len()).unwrap().to_be_bytes();
        let kind = kind.to_be_bytes();
        let record =
            [&b"\x01x\x00"[..], &kind, b"\x00\x01\x00\x00\x00\x05", &length, data].concat();
        let line = describe(&message([0x80, 0x80], [0, 1, 0, 0], &record)).unwrap();
        line.strip_prefix("DNS 7 1/0/0 ").unwrap().to_owned()
    }

    #[test]
    fn queries_and_responses_are_described_as_by_tcpdump() {
        assert_eq!(describe(QUERY).unwrap(), "DNS 6699+ [1au] A? example.com.");
        let line = "DNS 6699 2/0/0 CNAME web.example.com., A 93.184.216.34";
        assert_eq!(describe(RESPONSE).unwrap(), line);
        let refused = message([0x84, 0x03], [0, 0, 1, 0], b"");
        assert_eq!(describe(&refused).unwrap(), "DNS 7 NXDomain*- 0/1/0");
        let multicast = message([0, 0], [1, 0, 0, 0], b"\x05_ssh.\x00\x00\x0c\x80\x01");
        assert_eq!(describe(&multicast).unwrap(), "DNS 7 PTR? (QU) _ssh\\..");
        let root = message([0x28, 0x10], [1, 0, 0, 0], b"\x00\x00\x02\x00\x03");
        assert_eq!(describe(&root).unwrap(), "DNS 7 update% CHAOS NS? .");
    }

    #[test]
    fn data_of_records_is_printed_by_its_type() {
        assert_eq!(answer(28, &[0; 16]), "AAAA ::");
        assert_eq!(answer(15, b"\x00\x0a\x02mx\x00"), "MX mx. 10");
        assert_eq!(answer(33, b"\x00\x01\x00\x02\x00\x50\x01a\x00"), "SRV a.:80 1 2");
        assert_eq!(answer(16, b"\x05v=\n\"x"), "TXT \"v=\\010\\\"x\"");
        assert_eq!(
            answer(16, &[&[200][..], &[b'y'; 200]].concat()),
            format!("TXT \"{}\"...", "y".repeat(100))
        );
        assert_eq!(answer(65, b"anything"), "HTTPS");
        assert_eq!(answer(4711, b""), "TYPE4711");
        // The data ends before the address does: the record is whole.
        assert_eq!(answer(1, b"\x01\x02\x03"), "A malformed");
    }

    #[test]
    fn pointers_that_loop_or_lead_forward_end_the_line() {
        for name in [
            &b"\xc0\x0c"[..],    // to itself
            b"\x01a\xc0\x0c",    // to the start of its own name
            b"\xc0\x0e\xc0\x0c", // forward, and back
            b"\xff\xff",         // beyond the end
            b"\x40a",            // a label type that does not exist
            b"\x3fshort",        // a label that is cut
        ] {
            let line = describe(&message([1, 0], [1, 0, 0, 0], name)).unwrap();
            assert_eq!(line, "DNS 7+ [|domain]", "{name:?}");
        }
        // Each name points to the one before: as long as a message can be, and refused beyond 255 bytes.
        let mut chain = b"\x00".to_vec();
        for _ in 0..200 {
            let target = HEADER + chain.len() - if chain.len() == 1 { 1 } else { 4 };
            let [high, low] = (0xc000 | u16::try_from(target).unwrap()).to_be_bytes();
            chain.extend([1, b'a', high, low]);
        }
        let message = message([0, 0], [0; 4], &chain);
        let mut cursor = Cursor { message: &message, at: message.len() - 4 };
        assert_eq!(cursor.name(), None);
        cursor.at = HEADER + 1 + 99 * 4;
        assert_eq!(cursor.name().unwrap(), "a.".repeat(100));
    }

    #[test]
    fn a_message_that_is_cut_anywhere_is_described_as_far_as_possible() {
        for message in [QUERY, RESPONSE] {
            for length in 0..message.len() {
                let described = describe(&message[..length]);
                assert_eq!(described.is_some(), length >= HEADER);
                let whole = describe(message).unwrap();
                if let Some(line) = described.filter(|line| *line != whole) {
                    let known = line.strip_suffix(CUT).unwrap();
                    assert!(whole.starts_with(known), "{line}");
                }
            }
        }
    }

    #[test]
    fn many_records_are_counted_and_random_bytes_do_not_panic() {
        let question = b"\xc0\x00\x00\x01\x00\x01";
        let many = message([0, 0], [200, 0, 0, 0], &question.repeat(200));
        let line = describe(&many).unwrap();
        assert!(line.ends_with(" and 176 more") && line.len() < 8000, "{line}");
        let mut seed = 1_u64;
        for length in 0..400 {
            let mut random = |_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed.to_ne_bytes()[3]
            };
            let bytes: Vec<u8> = (0..length).map(&mut random).collect();
            for flags in [[0, 0], [0x80, 0]] {
                let line = describe(&message(flags, [9, 9, 9, 9], &bytes)).unwrap();
                assert!(line.chars().all(|char| (' '..='~').contains(&char)), "{line}");
            }
        }
    }
}
