//! Compares both ends of a packet with the addresses and ports of a rule.

use ipnet::IpNet;
use sockbroker_bpf::Label;
use sockbroker_bpf::opcode::{ALU, AND, IND, JEQ, JGE, JGT, JMP, K, LD, LDX, MEM};

use super::{INCOMPLETE, KNOWN_PORTS, Lowering, PacketRule, UNKNOWN_PORTS, word};
use crate::language::value::{Network, Ports};

/// An end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Source,
    Destination,
}

impl Lowering {
    /// Goes to `matched` if the ends of the packet are those of a rule in one of the two directions.
    pub(super) fn ends(&mut self, rule: &PacketRule, deny: bool, matched: Label, next: Label) {
        if deny {
            self.load(word::FAMILY);
            self.code.jump(JMP | JEQ | K, INCOMPLETE, Some(matched), None);
        }
        for (local, remote) in [(End::Source, End::Destination), (End::Destination, End::Source)] {
            let fails = self.code.label();
            self.addresses(&rule.local, local, fails);
            self.addresses(&rule.remote, remote, fails);
            self.end_ports(&rule.local_ports, local, deny, fails);
            self.end_ports(&rule.remote_ports, remote, deny, fails);
            self.code.go(matched);
            self.code.place(fails);
        }
        self.code.go(next);
    }

    fn addresses(&mut self, networks: &[Network], end: End, fails: Label) {
        if networks.is_empty() {
            return;
        }
        let (four, six, found) = (self.code.label(), self.code.label(), self.code.label());
        self.load(word::FAMILY);
        self.code.jump(JMP | JEQ | K, 4, Some(four), None);
        self.code.jump(JMP | JEQ | K, 6, Some(six), Some(fails));
        let any = networks.contains(&Network::Any);
        self.code.place(four);
        if any {
            self.code.go(found);
        } else {
            self.ranges(&ranges(networks), end, found, fails);
        }
        self.code.place(six);
        if any {
            self.code.go(found);
        } else {
            self.prefixes(networks, end, found, fails);
        }
        self.code.place(found);
    }

    fn ranges(&mut self, ranges: &[(u32, u32)], end: End, found: Label, fails: Label) {
        if !ranges.is_empty() {
            self.code.add(LDX | MEM, word::NETWORK);
            self.code.add(LD | IND, if end == End::Source { 12 } else { 16 });
        }
        self.search(ranges, found, fails);
    }

    /// Searches A in sorted ranges by halves. A stays as it is.
    fn search(&mut self, ranges: &[(u32, u32)], found: Label, fails: Label) {
        match ranges {
            [] => self.code.go(fails),
            [(first, last)] => {
                self.code.jump(JMP | JGE | K, *first, None, Some(fails));
                self.code.jump(JMP | JGT | K, *last, Some(fails), Some(found));
            }
            _ => {
                let (lower, upper) = ranges.split_at(ranges.len() / 2);
                let above = self.code.label();
                let middle = upper.first().map_or(0, |(first, _)| *first);
                self.code.jump(JMP | JGE | K, middle, Some(above), None);
                self.search(lower, found, fails);
                self.code.place(above);
                self.search(upper, found, fails);
            }
        }
    }

    fn prefixes(&mut self, networks: &[Network], end: End, found: Label, fails: Label) {
        let start = if end == End::Source { 8 } else { 24 };
        self.code.add(LDX | MEM, word::NETWORK);
        for network in networks {
            let Network::Net(IpNet::V6(net)) = network else { continue };
            let other = self.code.label();
            let bits = net.addr().to_bits();
            let mask = u128::MAX.checked_shl(128 - u32::from(net.prefix_len())).unwrap_or(0);
            for index in 0..u32::from(net.prefix_len()).div_ceil(32) {
                let part = |number: u128| {
                    u32::try_from(number >> (96 - 32 * index) & u128::from(u32::MAX)).unwrap_or(0)
                };
                self.code.add(LD | IND, start + 4 * index);
                if part(mask) != u32::MAX {
                    self.code.add(ALU | AND | K, part(mask));
                }
                self.code.jump(JMP | JEQ | K, part(bits), None, Some(other));
            }
            self.code.go(found);
            self.code.place(other);
        }
        self.code.go(fails);
    }

    fn end_ports(&mut self, ports: &[Ports], end: End, deny: bool, fails: Label) {
        if ports.is_empty() {
            return;
        }
        let found = self.code.label();
        self.load(word::PORTS);
        if deny {
            self.code.jump(JMP | JEQ | K, UNKNOWN_PORTS, Some(found), None);
        }
        self.code.jump(JMP | JEQ | K, KNOWN_PORTS, None, Some(fails));
        self.load(if end == End::Source { word::SOURCE_PORT } else { word::DESTINATION_PORT });
        let ranges = ports.iter().map(|ports| (ports.first.into(), ports.last.into()));
        self.search(&merged(ranges.collect()), found, fails);
        self.code.place(found);
    }
}

/// The IPv4 networks as sorted ranges.
fn ranges(networks: &[Network]) -> Vec<(u32, u32)> {
    let ranges = networks.iter().filter_map(|network| match network {
        Network::Net(IpNet::V4(net)) => Some((net.network().to_bits(), net.broadcast().to_bits())),
        Network::Net(IpNet::V6(_)) | Network::Any => None,
    });
    merged(ranges.collect())
}

/// Sorts ranges, and joins those that overlap or follow each other.
fn merged(mut ranges: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            Some(_) | None => merged.push((first, last)),
        }
    }
    merged
}
