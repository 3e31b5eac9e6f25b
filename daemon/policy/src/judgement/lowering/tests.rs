//! Programs of rules, compared with a predicate over the bytes of random packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sockbroker_bpf::opcode::{LD, LDX, LEN, MEM, ST};
use sockbroker_test_support::bpf::{Frame, run};
use sockbroker_test_support::counts::PACKETS;

use super::*;
use crate::fixture::{OWNER, capture_rule as rule, rules};
use crate::judgement::policy::Policy;
use crate::judgement::subject::Subject;
use crate::language::value::{Network, Ports};

const FORCED: Forced = Forced {
    start: PacketStart::Ethernet,
    interface: None,
    direction: Direction::Both,
    snaplen: 100,
};

/// Accepts every packet.
fn everything() -> Program {
    Program(vec![Instruction::new(RET, 262_144)])
}

fn scope(text: &str) -> CaptureScope {
    let rules = rules(text);
    let rights = Policy::new(OWNER, rules, false).select(&Subject::new(1000, 1000), Vec::new());
    rights.capture(Some("eth0"), 100).unwrap().1
}

/// What the bytes of a packet show.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Facts {
    /// `None` if tags are cut off.
    ty: Option<i32>,
    /// `None` if it is not IP.
    ip: Option<Ip>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Ip {
    Incomplete,
    Whole { ends: [IpAddr; 2], protocol: Option<u8>, ports: Seen },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Seen {
    None,
    Known([u16; 2]),
    Unknown,
}

fn facts(frame: &[u8], start: PacketStart) -> Facts {
    let mut rest = frame;
    let ty = match start {
        PacketStart::Ip => match frame.first().map(|byte| byte >> 4) {
            Some(4) => 0x0800,
            Some(6) => 0x86DD,
            _ => return Facts { ty: Some(0), ip: None },
        },
        PacketStart::Other => return Facts { ty: None, ip: Some(Ip::Incomplete) },
        PacketStart::Ethernet => {
            rest = frame.get(12..).unwrap_or_default();
            let mut tags = 0;
            loop {
                let Some((ty, behind)) = rest.split_first_chunk::<2>() else {
                    return Facts { ty: None, ip: Some(Ip::Incomplete) };
                };
                let ty = u16::from_be_bytes(*ty);
                rest = behind;
                if ![0x8100, 0x88A8, 0x9100].contains(&ty) {
                    break i32::from(ty);
                }
                tags += 1;
                let Some(behind) = rest.get(2..).filter(|_| tags < 3) else {
                    return Facts { ty: None, ip: Some(Ip::Incomplete) };
                };
                rest = behind;
            }
        }
    };
    let ip = match ty {
        0x0800 => Some(ipv4(rest).unwrap_or(Ip::Incomplete)),
        0x86DD => Some(ipv6(rest).unwrap_or(Ip::Incomplete)),
        _ => None,
    };
    Facts { ty: Some(ty), ip }
}

fn ipv4(packet: &[u8]) -> Option<Ip> {
    let header = packet.first_chunk::<20>()?;
    let length = usize::from(header[0] & 0xF) * 4;
    if header[0] >> 4 != 4 || length < 20 {
        return None;
    }
    let address = |start: usize| -> IpAddr {
        Ipv4Addr::from(<[u8; 4]>::try_from(&header[start..start + 4]).unwrap()).into()
    };
    let later = u16::from_be_bytes([header[6], header[7]]) & 0x1FFF != 0;
    let transport = if later { None } else { Some(packet.get(length..).unwrap_or_default()) };
    let protocol = header[9];
    let ports = ports(protocol, transport);
    Some(Ip::Whole { ends: [address(12), address(16)], protocol: Some(protocol), ports })
}

fn ipv6(packet: &[u8]) -> Option<Ip> {
    let header = packet.first_chunk::<40>()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let address = |start: usize| -> IpAddr {
        Ipv6Addr::from(<[u8; 16]>::try_from(&header[start..start + 16]).unwrap()).into()
    };
    let ends = [address(8), address(24)];
    let is_extension = |protocol: u8| [0, 43, 44, 51, 60, 135, 139, 140].contains(&protocol);
    let (mut protocol, mut rest, mut extensions) = (header[6], &packet[40..], 0);
    while is_extension(protocol) {
        let unknown = Ip::Whole { ends, protocol: None, ports: Seen::Unknown };
        extensions += 1;
        let Some(extension) = rest.first_chunk::<8>().filter(|_| extensions <= 8) else {
            return Some(unknown);
        };
        let length = match protocol {
            44 => {
                if u16::from_be_bytes([extension[2], extension[3]]) & 0xFFF8 != 0 {
                    let next = extension[0];
                    if is_extension(next) {
                        return Some(unknown);
                    }
                    let ports = ports(next, None);
                    return Some(Ip::Whole { ends, protocol: Some(next), ports });
                }
                8
            }
            51 => (usize::from(extension[1]) + 2) * 4,
            _ => (usize::from(extension[1]) + 1) * 8,
        };
        protocol = extension[0];
        rest = rest.get(length..).unwrap_or_default();
    }
    Some(Ip::Whole { ends, protocol: Some(protocol), ports: ports(protocol, Some(rest)) })
}

fn ports(protocol: u8, transport: Option<&[u8]>) -> Seen {
    if ![6, 17, 33, 132, 136].contains(&protocol) {
        return Seen::None;
    }
    match transport.and_then(|bytes| bytes.first_chunk::<4>()) {
        Some([a, b, c, d]) => {
            Seen::Known([u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])])
        }
        None => Seen::Unknown,
    }
}

/// Whether a rule is about a packet.
fn is_about(rule: &PacketRule, deny: bool, facts: Facts) -> bool {
    let has_protocol = |number: &i32| {
        if *number >= FIRST_FRAME_TYPE {
            return facts.ty.map_or(deny, |ty| ty == *number);
        }
        match facts.ip {
            None => false,
            Some(Ip::Incomplete | Ip::Whole { protocol: None, .. }) => deny,
            Some(Ip::Whole { protocol: Some(protocol), .. }) => i32::from(protocol) == *number,
        }
    };
    if !rule.protocols.is_empty() && !rule.protocols.iter().any(has_protocol) {
        return false;
    }
    if !rule.names_ends() {
        return true;
    }
    let (ends, ports) = match facts.ip {
        None => return false,
        Some(Ip::Incomplete) => return deny,
        Some(Ip::Whole { ends, ports, .. }) => (ends, ports),
    };
    let has_address = |networks: &[Network], end: usize| {
        networks.is_empty() || networks.iter().any(|network| network.contains(ends[end]))
    };
    let has_port = |list: &[Ports], end: usize| match ports {
        _ if list.is_empty() => true,
        Seen::None => false,
        Seen::Unknown => deny,
        Seen::Known(ports) => {
            list.iter().any(|range| (range.first..=range.last).contains(&ports[end]))
        }
    };
    [(0, 1), (1, 0)].into_iter().any(|(local, remote)| {
        has_address(&rule.local, local)
            && has_address(&rule.remote, remote)
            && has_port(&rule.local_ports, local)
            && has_port(&rule.remote_ports, remote)
    })
}

fn admits(scope: &CaptureScope, facts: Facts) -> bool {
    scope.layers.iter().all(|layer| layer.iter().any(|rule| is_about(rule, false, facts)))
        && !scope.deny.iter().any(|rule| is_about(rule, true, facts))
}

/// Numbers by xorshift, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn one<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}

const PROTOCOLS: [u8; 12] = [6, 17, 17, 6, 1, 58, 132, 47, 50, 136, 0, 60];
const PORTS: [[u8; 2]; 7] = [[0, 67], [0, 68], [0, 80], [0, 22], [1, 187], [4, 0], [255, 255]];

/// A packet with tags, fragments, options and extension headers, often cut off.
fn packet(random: &mut Random, start: PacketStart) -> Vec<u8> {
    let mut frame = Vec::new();
    let four = random.below(2) == 0;
    if start == PacketStart::Ethernet {
        frame.extend([2; 12]);
        for _ in 0..random.one(&[0, 0, 0, 1, 1, 2, 3]) {
            frame.extend(random.one(&[[0x81, 0, 0, 100], [0x88, 0xA8, 0, 7], [0x91, 0, 0, 0]]));
        }
        let other = random.one(&[[8, 6], [0x88, 0xCC], [0x86, 0xDE]]);
        let ip = if four { [8, 0] } else { [0x86, 0xDD] };
        frame.extend(if random.below(10) == 0 { other } else { ip });
    }
    let protocol = random.one(&PROTOCOLS);
    if four {
        let options = random.one(&[0, 0, 0, 4, 40]);
        let words = if random.below(30) == 0 { random.byte() & 0xF } else { 5 + options / 4 };
        let version = if random.below(40) == 0 { random.byte() & 0xF0 } else { 0x40 };
        let fragment = random.one(&[[0, 0], [0, 0], [0x40, 0], [0x20, 0], [0, 9], [0x20, 1]]);
        frame.extend([
            version | words,
            0,
            0,
            40,
            0,
            1,
            fragment[0],
            fragment[1],
            64,
            protocol,
            0,
            0,
        ]);
        for _ in 0..2 {
            frame.extend(random.one(&[
                [10, 0, 0, 1],
                [10, 9, 9, 9],
                [192, 0, 2, 7],
                [11, 0, 0, 0],
            ]));
        }
        frame.extend(vec![1; usize::from(options)]);
    } else {
        let version = if random.below(40) == 0 { random.byte() & 0xF0 } else { 0x60 };
        frame.extend([version, 0, 0, 0, 0, 40]);
        let place = frame.len();
        frame.extend([protocol, 64]);
        for _ in 0..2 {
            let first = random.one(&[[0x20, 1, 0x0D, 0xB8], [0xFD, 0, 0, 0], [0xFE, 0x80, 0, 0]]);
            frame.extend(first);
            frame.extend([0; 11]);
            frame.push(random.one(&[1, 2, 200]));
        }
        extensions(random, &mut frame, place, protocol);
    }
    frame.extend(random.one(&PORTS));
    frame.extend(random.one(&PORTS));
    frame.extend([0; 16]);
    if random.below(5) == 0 {
        frame.truncate(random.below(frame.len()));
    }
    frame
}

/// Appends extension headers. `place` is where the number of the next header stands.
fn extensions(random: &mut Random, frame: &mut Vec<u8>, mut place: usize, protocol: u8) {
    for _ in 0..random.one(&[0, 0, 0, 1, 2, 3, 8, 9]) {
        frame[place] = random.one(&[0, 43, 44, 51, 60, 135, 139, 140]);
        let kind = frame[place];
        place = frame.len();
        let units = random.one(&[0u8, 0, 1, 2]);
        let fragment = if random.below(4) == 0 { [0, 8] } else { [0, 1] };
        frame.extend([protocol, units, fragment[0], fragment[1], 0, 0, 0, 0]);
        let length = match kind {
            44 => 8,
            51 => (usize::from(units) + 2) * 4,
            _ => (usize::from(units) + 1) * 8,
        };
        frame.resize(place + length.max(8), 0);
    }
    frame[place] = protocol;
}

fn rule_sets() -> Vec<String> {
    let allow = |fields: &str| rule("a", "allow", fields);
    let networks: Vec<String> =
        (0..100).map(|number| format!("\"10.{}.0.0/16\"", number * 2)).collect();
    vec![
        allow("protocol = [\"IPPROTO_UDP\"]"),
        allow("protocol = [\"IPPROTO_UDP\"]\nlocal_ports = [\"67-68\"]\nremote_ports = [\"67-68\"]"),
        allow("local = [\"10.0.0.0/8\", \"fd00::/8\"]"),
        allow("remote = [\"10.0.0.1\", \"2001:db8::/33\", \"192.0.2.0/24\"]\nremote_ports = [\"22\", \"80-443\"]"),
        allow("local = [\"any\"]\nprotocol = [\"IPPROTO_ICMPV6\", \"IPPROTO_ICMP\", 47]"),
        allow("protocol = [2054, 35020]"),
        [
            allow("local = [\"10.0.0.0/8\"]\nremote = [\"192.0.2.0/24\"]\nprotocol = [\"IPPROTO_TCP\"]"),
            rule("b", "allow", "local = [\"fe80::/10\"]\nremote_ports = [\"22\", \"1024-65535\"]"),
        ]
        .concat(),
        [allow(""), rule("d", "deny", "remote_ports = [\"22\"]")].concat(),
        [allow(""), rule("d", "deny", "remote = [\"10.9.0.0/16\", \"fd00::1\"]\nprotocol = [17, 2054]")]
            .concat(),
        [allow("protocol = [6, 17]"), rule("d", "deny", "local = [\"::/0\"]")].concat(),
        allow(&format!("local = [{0}]\nremote = [{0}, \"192.0.0.0/8\"]", networks.join(", "))),
        allow("remote_ports = [\"0-65535\"]\nremote = [\"0.0.0.0/0\"]"),
    ]
}

#[test]
fn programs_admit_what_the_rules_admit_in_random_packets() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for text in rule_sets() {
        let scope = scope(&text);
        for (start, share) in [(PacketStart::Ethernet, 4), (PacketStart::Ip, 1)] {
            let forced = Forced { start, ..FORCED };
            let program = scope.join(&forced, &everything()).unwrap();
            program.check().unwrap();
            let (mut admitted, packets) = (0, PACKETS.get() * share / 5);
            for _ in 0..packets {
                let frame = packet(&mut random, start);
                let expected = admits(&scope, facts(&frame, start));
                let found = run(&program, Frame { data: &frame, ..Frame::default() });
                assert_eq!(found, if expected { 100 } else { 0 }, "{text}\n{frame:x?}");
                admitted += u32::from(expected);
            }
            // Both occur, so that the comparison has a meaning: frames of other types are only in Ethernet.
            let types = text.contains("2054, 35020") && start == PacketStart::Ip;
            assert!(types || (admitted > 0 && admitted < packets), "{text}: {admitted}");
        }
    }
}

#[test]
fn filter_of_the_client_runs_behind_the_rules_and_is_limited() {
    let scope = scope(&rule("a", "allow", "protocol = [\"IPPROTO_UDP\"]"));
    // Accepts packets of 60 bytes and more, with a word of the memory that the rules use as well.
    let client = Program(vec![
        Instruction::new(LD | LEN, 0),
        Instruction::new(ST, 0),
        Instruction::new(LDX | MEM, 0),
        Instruction { code: JMP | 0x30, jump_true: 0, jump_false: 1, k: 60 },
        Instruction::new(RET, 50),
        Instruction::new(RET, 0),
    ]);
    let program = scope.join(&FORCED, &client).unwrap();
    program.check().unwrap();
    let udp = |bytes: usize, protocol: u8| {
        let ip = [0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let mut frame = [&[2; 12][..], &[8, 0], &ip].concat();
        frame.resize(bytes, 0);
        run(&program, Frame { data: &frame, ..Frame::default() })
    };
    assert_eq!((udp(60, 17), udp(59, 17), udp(60, 6)), (50, 0, 0));
    // The registers are zero, as at the start of a program.
    let registers = Program(vec![
        Instruction { code: JMP | JEQ | 0x08, jump_true: 0, jump_false: 1, k: 0 },
        Instruction { code: JMP | JEQ, jump_true: 1, jump_false: 0, k: 0 },
        Instruction::new(RET, 0),
        Instruction::new(RET, u32::MAX),
    ]);
    let program = scope.join(&FORCED, &registers).unwrap();
    let ip = [0x45, 0, 0, 40, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    let frame = [&[2; 12][..], &[8, 0], &ip].concat();
    assert_eq!(run(&program, Frame { data: &frame, ..Frame::default() }), 100);
}

#[test]
fn interface_and_loopback_are_forced() {
    let everything_allowed = scope(&rule("a", "allow", ""));
    assert!(everything_allowed.is_everything());
    let forced = Forced { interface: Some(7), direction: Direction::LoopbackOnce, ..FORCED };
    let program = everything_allowed.join(&forced, &everything()).unwrap();
    let sees = |interface, hardware, kind| {
        run(&program, Frame { data: &[0; 60], interface, hardware, kind, tag: None })
    };
    assert_eq!((sees(7, 1, 0), sees(8, 1, 0), sees(7, 1, 4)), (100, 0, 100));
    assert_eq!((sees(7, 772, 0), sees(7, 772, 4)), (100, 0));
    // Packets of another kind of link show no addresses: a rule that allows some does not admit them, and a rule that
    // denies some drops them.
    let forced = Forced { start: PacketStart::Other, ..FORCED };
    let sees = |rules: &str| {
        let program = scope(rules).join(&forced, &everything()).unwrap();
        run(&program, Frame { data: &[0x45; 60], ..Frame::default() })
    };
    let (all, some) = (rule("a", "allow", ""), "remote = [\"10.0.0.0/8\"]");
    assert_eq!(sees(&all), 100);
    assert_eq!(sees(&rule("a", "allow", some)), 0);
    assert_eq!(sees(&format!("{all}{}", rule("b", "deny", some))), 0);
}

#[test]
fn directions_are_forced() {
    let sees = |direction, kind| {
        let forced = Forced { direction, ..FORCED };
        let program = scope(&rule("a", "allow", "")).join(&forced, &everything()).unwrap();
        run(&program, Frame { data: &[0; 60], kind, ..Frame::default() })
    };
    let (received, sent) = (0, 4);
    assert_eq!((sees(Direction::Both, received), sees(Direction::Both, sent)), (100, 100));
    assert_eq!((sees(Direction::Received, received), sees(Direction::Received, sent)), (100, 0));
    assert_eq!((sees(Direction::Sent, received), sees(Direction::Sent, sent)), (0, 100));
}

#[test]
fn each_section_has_its_own_rules() {
    let all = scope(&rule("a", "allow", ""));
    let none = scope(&rule("a", "allow", "local = [\"10.0.0.0/8\"]"));
    let section = |packets, scope| Section { packets, start: PacketStart::Ethernet, scope };
    let joined =
        |sections: &[Section<'_>]| join(sections, Direction::Both, 100, &everything()).unwrap();
    let sees = |program: &Program, interface, hardware| {
        run(program, Frame { data: &[0; 60], interface, hardware, ..Frame::default() })
    };
    let program =
        joined(&[section(Packets::OfInterface(7), &none), section(Packets::OfInterface(8), &all)]);
    assert_eq!([7, 8, 9].map(|index| sees(&program, index, 1)), [0, 100, 0]);
    let program =
        joined(&[section(Packets::OfHardware(&[1, 772]), &all), section(Packets::Others, &none)]);
    assert_eq!([1, 772, 519].map(|hardware| sees(&program, 7, hardware)), [100, 100, 0]);
    let program =
        joined(&[section(Packets::OfHardware(&[1]), &none), section(Packets::Others, &all)]);
    assert_eq!([1, 519].map(|hardware| sees(&program, 7, hardware)), [0, 100]);
}

#[test]
fn filters_that_cannot_be_joined_are_refused() {
    let scope = scope(&rule("a", "allow", "protocol = [\"IPPROTO_UDP\"]"));
    let join = |client: Vec<Instruction>| scope.join(&FORCED, &Program(client));
    assert_eq!(join(Vec::new()), Err(LoweringError::Client(CheckError::Empty)));
    let accumulator = vec![Instruction::new(RET | A, 0)];
    assert_eq!(join(accumulator), Err(LoweringError::Accumulator { at: 0 }));
    // A word that only the rules have stored.
    let load = vec![Instruction::new(LD | MEM, 0), Instruction::new(RET, 0)];
    let not_stored = CheckError::NotStored { at: 0, word: 0 };
    assert_eq!(join(load), Err(LoweringError::Client(not_stored)));
    let rules = scope.instructions(&FORCED);
    let most = MAX_INSTRUCTIONS - rules;
    let returns = |count| vec![Instruction::new(RET, 1); count];
    assert_eq!(join(returns(most)).unwrap().check(), Ok(()));
    let too_long = LoweringError::TooLong { rules, client: most + 1 };
    assert_eq!(join(returns(most + 1)), Err(too_long));
}

#[test]
fn numbers_without_a_protocol_admit_no_packet() {
    let arp = [&[2; 12][..], &[8, 6], &[0; 46]].concat();
    let ip = [&[2; 12][..], &[8, 0], &[0x45; 46]].concat();
    // Neither IP, nor a complete header of IP, nor a type.
    let frames = [&arp, &ip, &ip[..20], &ip[..10]];
    let low: Vec<i32> = (256..FIRST_FRAME_TYPE).collect();
    for numbers in [&low[..], &[65_535, 65_536, 65_537, i32::MAX - 1, i32::MAX]] {
        let scope = scope(&rule("a", "allow", &format!("protocol = {numbers:?}")));
        let program = scope.join(&FORCED, &everything()).unwrap();
        for frame in frames {
            let found = run(&program, Frame { data: frame, ..Frame::default() });
            assert_eq!(found, 0, "{:?}: {frame:x?}", numbers.first());
        }
    }
}

#[test]
fn addresses_inside_other_protocols_are_not_compared() {
    let ip = |protocol| [0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2];
    let outer = [0x45, 0, 0, 60, 0, 0, 0, 0, 64, 4, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
    let tunnel = [&[2; 12][..], &[8, 0], &outer, &ip(17), &[0; 20]].concat();
    let mpls = [&[2; 12][..], &[0x88, 0x47, 0, 1, 0x01, 64], &ip(17), &[0; 20]].concat();
    let plain = [&[2; 12][..], &[8, 0], &ip(17), &[0; 20]].concat();
    let sees = |deny: &str| {
        let scope = scope(&[rule("a", "allow", ""), rule("d", "deny", deny)].concat());
        let program = scope.join(&FORCED, &everything()).unwrap();
        [&tunnel, &mpls, &plain]
            .map(|frame| run(&program, Frame { data: frame, ..Frame::default() }) != 0)
    };
    assert_eq!(sees("remote = [\"10.9.0.0/16\"]"), [true, true, false]);
    assert_eq!(sees("protocol = [4, 0x8847]"), [false, false, true]);
}

#[test]
fn rules_that_alone_exceed_the_limit_are_refused() {
    // Networks that do not follow each other, so that they stay as many ranges.
    let networks: Vec<String> = (0..2_000)
        .map(|number| format!("\"10.{}.{}.0/24\"", number / 100, number % 100 * 2))
        .collect();
    let scope = scope(&rule("a", "allow", &format!("local = [{}]", networks.join(", "))));
    let rules = scope.instructions(&FORCED);
    assert!(rules > MAX_INSTRUCTIONS, "{rules}");
    let error = scope.join(&FORCED, &everything()).unwrap_err();
    assert_eq!(error, LoweringError::TooLong { rules, client: 1 });
    assert!(error.to_string().contains("at most 4096"), "{error}");
}
