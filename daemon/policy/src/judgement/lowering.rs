//! Rules about packets as a program in front of the filter of a client.
//!
//! The program decides about each packet, then the filter of the client does. Both ends of a packet are compared: it is
//! from `local` to `remote` or the other way, and ports belong to their side. A later fragment has no ports, and a header
//! that is cut off has no protocol: no rule that allows admits what it cannot see, and every rule that denies drops it.
//!
//! A load beyond the packet would end the whole program, and hide what a later rule admits. So every load follows a
//! comparison with the length.

mod ends;
mod headers;

use sockbroker_bpf::opcode::{
    A, ABS, CLASS, HATYPE, IFINDEX, JEQ, JMP, K, LD, MEM, MISC, PKTTYPE, RET, TAX,
};
use sockbroker_bpf::{Assembler, CheckError, Instruction, Label, MAX_INSTRUCTIONS, Program};

use crate::judgement::capture_scope::{CaptureScope, FIRST_FRAME_TYPE, PacketRule};

/// What packets begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketStart {
    /// An Ethernet header.
    Ethernet,
    /// An IPv4 or IPv6 header.
    Ip,
    /// Another header, which the broker does not know: no rule that allows admits what it cannot see, and every rule that
    /// denies some packets drops all of them.
    Other,
}

/// What the broker adds to a filter.
#[derive(Debug, Clone, Copy)]
pub struct Forced {
    /// What packets begin with.
    pub start: PacketStart,
    /// The index of the only interface whose packets are let through.
    pub interface: Option<u32>,
    /// Which packets of the interface are let through.
    pub direction: Direction,
    /// The most bytes of a packet.
    pub snaplen: u32,
}

/// Packets by their direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// All of them. A loopback interface shows each packet twice.
    Both,
    /// All of them, those of a loopback interface once, as received.
    LoopbackOnce,
    /// Those that the interface receives.
    Received,
    /// Those that the interface sends.
    Sent,
}

/// The packets that a part of the rules is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packets<'a> {
    /// Those of the interface with this index.
    OfInterface(u32),
    /// Those of interfaces with these hardware types (`ARPHRD_`).
    OfHardware(&'a [u16]),
    /// All others.
    Others,
}

/// The rules about a part of the packets.
#[derive(Debug, Clone, Copy)]
pub struct Section<'a> {
    /// The packets.
    pub packets: Packets<'a>,
    /// What they begin with.
    pub start: PacketStart,
    /// Which of them are let through.
    pub scope: &'a CaptureScope,
}

/// Joins the rules about several interfaces and the filter of a client to a program that the kernel takes. The first
/// section that is about a packet decides, and what no section is about is dropped.
pub fn join(
    sections: &[Section<'_>],
    direction: Direction,
    snaplen: u32,
    client: &Program,
) -> Result<Program, LoweringError> {
    let mut lowering = Lowering::new();
    lowering.direction(direction);
    let admitted = lowering.code.label();
    for Section { packets, start, scope } in sections {
        let next = lowering.code.label();
        lowering.packets(*packets, next);
        lowering.scope(scope, *start);
        lowering.code.go(admitted);
        lowering.code.place(next);
    }
    let drop = lowering.drop;
    lowering.code.go(drop);
    lowering.code.place(admitted);
    append(lowering.finish(), snaplen, client)
}

/// Appends the filter of a client to a program for rules.
fn append(mut program: Program, snaplen: u32, client: &Program) -> Result<Program, LoweringError> {
    client.check().map_err(LoweringError::Client)?;
    let limited = limit(client, snaplen)?;
    let (rules, client) = (program.0.len(), limited.len());
    if rules + client > MAX_INSTRUCTIONS {
        return Err(LoweringError::TooLong { rules, client });
    }
    program.0.extend(limited);
    Ok(program)
}

/// A filter that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoweringError {
    /// The kernel would refuse the filter of the client.
    #[error("the kernel refuses the filter: {0}")]
    Client(#[source] CheckError),
    /// The filter of the client returns a number that it computes, which cannot be limited.
    #[error(
        "instruction {at} of the filter returns the accumulator, which cannot be limited to the \
         snapshot length: return a constant"
    )]
    Accumulator {
        /// The instruction, from 0.
        at: usize,
    },
    /// Both together have more instructions than the kernel takes.
    #[error(
        "the rules about captures need {rules} instructions and the filter {client}, but the kernel \
         accepts at most {MAX_INSTRUCTIONS} in total: use a shorter filter, or rules with fewer networks and ports"
    )]
    TooLong {
        /// The instructions for the rules.
        rules: usize,
        /// The instructions of the filter.
        client: usize,
    },
}

/// Words of the memory.
mod word {
    /// Where the IP header begins.
    pub(super) const NETWORK: u32 = 0;
    /// 4 or 6, or one of `family`.
    pub(super) const FAMILY: u32 = 1;
    /// The protocol of IP, or one of `protocol`.
    pub(super) const PROTOCOL: u32 = 2;
    /// One of `ports`.
    pub(super) const PORTS: u32 = 3;
    pub(super) const SOURCE_PORT: u32 = 4;
    pub(super) const DESTINATION_PORT: u32 = 5;
    /// Where the header behind that of IP begins.
    pub(super) const TRANSPORT: u32 = 6;
    /// For computations.
    pub(super) const SCRATCH: u32 = 7;
    /// The type of the frame, or [`super::UNKNOWN_TYPE`].
    pub(super) const TYPE: u32 = 8;
    pub(super) const COUNT: u32 = 9;
}

/// `FAMILY` of what is not IP, and of IP whose header is not complete.
const NOT_IP: u32 = 0;
const INCOMPLETE: u32 = 1;
/// `PROTOCOL` that cannot be found, and of what is not IP. No rule can name these numbers: those of rules are an `i32`.
const UNKNOWN_PROTOCOL: u32 = u32::MAX;
const NO_PROTOCOL: u32 = u32::MAX - 1;
/// `TYPE` of a frame whose tags are cut off or too many, which no rule can name either.
const UNKNOWN_TYPE: u32 = u32::MAX;
/// `PORTS` of protocols without ports, of known ports, and of ports that cannot be found.
const NO_PORTS: u32 = 0;
const KNOWN_PORTS: u32 = 1;
const UNKNOWN_PORTS: u32 = 2;

/// `ARPHRD_LOOPBACK` and `PACKET_OUTGOING`.
const LOOPBACK: u32 = 772;
const OUTGOING: u32 = 4;

impl CaptureScope {
    /// Joins the rules and the filter of a client to a program that the kernel takes.
    pub fn join(&self, forced: &Forced, client: &Program) -> Result<Program, LoweringError> {
        append(self.program(forced), forced.snaplen, client)
    }

    /// The number of instructions for the rules, of [`MAX_INSTRUCTIONS`].
    pub fn instructions(&self, forced: &Forced) -> usize {
        self.program(forced).0.len()
    }

    /// The program in front of the filter of the client. It ends behind its last instruction for packets that are let
    /// through.
    fn program(&self, forced: &Forced) -> Program {
        let mut lowering = Lowering::new();
        if let Some(index) = forced.interface {
            let drop = lowering.drop;
            lowering.packets(Packets::OfInterface(index), drop);
        }
        lowering.direction(forced.direction);
        lowering.scope(self, forced.start);
        lowering.finish()
    }
}

/// Limits what a filter returns.
fn limit(client: &Program, snaplen: u32) -> Result<Vec<Instruction>, LoweringError> {
    let limited = client.0.iter().enumerate().map(|(at, instruction)| {
        if instruction.code & CLASS != RET {
            return Ok(*instruction);
        }
        if instruction.code & A != 0 {
            return Err(LoweringError::Accumulator { at });
        }
        Ok(Instruction { k: instruction.k.min(snaplen), ..*instruction })
    });
    limited.collect()
}

/// A program that is built.
struct Lowering {
    code: Assembler,
    /// Where packets are dropped.
    drop: Label,
}

impl Lowering {
    fn new() -> Self {
        let mut code = Assembler::new();
        let drop = code.label();
        Self { code, drop }
    }

    /// Goes to `others` with packets of other interfaces.
    fn packets(&mut self, packets: Packets<'_>, others: Label) {
        match packets {
            Packets::OfInterface(index) => {
                self.code.add(LD | ABS, IFINDEX);
                self.code.jump(JMP | JEQ | K, index, None, Some(others));
            }
            Packets::OfHardware(types) => {
                let found = self.code.label();
                self.code.add(LD | ABS, HATYPE);
                for ty in types {
                    self.code.jump(JMP | JEQ | K, u32::from(*ty), Some(found), None);
                }
                self.code.go(others);
                self.code.place(found);
            }
            Packets::Others => {}
        }
    }

    /// Drops packets of the other direction, and packets that a loopback interface shows twice.
    fn direction(&mut self, direction: Direction) {
        match direction {
            Direction::Both => {}
            Direction::LoopbackOnce => {
                let other = self.code.label();
                self.code.add(LD | ABS, HATYPE);
                self.code.jump(JMP | JEQ | K, LOOPBACK, None, Some(other));
                self.code.add(LD | ABS, PKTTYPE);
                self.code.jump(JMP | JEQ | K, OUTGOING, Some(self.drop), None);
                self.code.place(other);
            }
            Direction::Received => {
                self.code.add(LD | ABS, PKTTYPE);
                self.code.jump(JMP | JEQ | K, OUTGOING, Some(self.drop), None);
            }
            Direction::Sent => {
                self.code.add(LD | ABS, PKTTYPE);
                self.code.jump(JMP | JEQ | K, OUTGOING, None, Some(self.drop));
            }
        }
    }

    /// Drops what the rules do not let through.
    fn scope(&mut self, scope: &CaptureScope, start: PacketStart) {
        if scope.is_everything() {
            return;
        }
        self.headers(start);
        for rule in &scope.deny {
            let next = self.code.label();
            self.rule(rule, true, self.drop, next);
            self.code.place(next);
        }
        for layer in &scope.layers {
            let admitted = self.code.label();
            for rule in layer {
                let next = self.code.label();
                self.rule(rule, false, admitted, next);
                self.code.place(next);
            }
            self.code.go(self.drop);
            self.code.place(admitted);
        }
    }

    /// Goes to `matched` if a rule is about the packet, and to `next` if it is not.
    fn rule(&mut self, rule: &PacketRule, deny: bool, matched: Label, next: Label) {
        self.protocols(rule, deny, next);
        if rule.names_ends() {
            self.ends(rule, deny, matched, next);
        } else {
            self.code.go(matched);
        }
    }

    fn protocols(&mut self, rule: &PacketRule, deny: bool, next: Label) {
        if rule.protocols.is_empty() {
            return;
        }
        let found = self.code.label();
        let is_type = |number: &&i32| **number >= FIRST_FRAME_TYPE;
        let fields = [(word::TYPE, UNKNOWN_TYPE, true), (word::PROTOCOL, UNKNOWN_PROTOCOL, false)];
        for (field, unknown, types) in fields {
            let numbers = rule.protocols.iter().filter(|number| is_type(number) == types);
            let mut numbers: Vec<u32> =
                numbers.filter_map(|number| u32::try_from(*number).ok()).collect();
            if deny && !numbers.is_empty() {
                numbers.push(unknown);
            }
            if !numbers.is_empty() {
                self.load(field);
            }
            for number in numbers {
                self.code.jump(JMP | JEQ | K, number, Some(found), None);
            }
        }
        self.code.go(next);
        self.code.place(found);
    }

    fn load(&mut self, word: u32) {
        self.code.add(LD | MEM, word);
    }

    /// Ends the program: drops what has come here by jumps, and clears the registers for the filter of the client.
    fn finish(mut self) -> Program {
        let accept = self.code.label();
        self.code.go(accept);
        self.code.place(self.drop);
        self.code.add(RET | K, 0);
        self.code.place(accept);
        self.code.add(LD, 0);
        self.code.add(MISC | TAX, 0);
        self.code.finish()
    }
}

#[cfg(test)]
mod tests;
