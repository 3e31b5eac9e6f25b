//! Prints the program of a filter expression, as `tcpdump -d` does.

use std::fmt::Write as _;

use sockbroker_filter::{Compiler, Instruction, LinkLayer, Program, opcode};
use sockbroker_pcapng::LinkType;

use super::args::SniffArgs;
use super::filter::failed;
use super::link;
use crate::failure::{Exit, Failure};
use crate::screen::Screen;

/// `sniff -d`.
pub(super) fn run(args: &SniffArgs) -> Result<Exit, Failure> {
    let layer = match &args.link_type {
        None => LinkLayer::Ethernet,
        Some(name) => layer(name)?,
    };
    let expression = args.whole_expression()?.unwrap_or_default();
    let compiler = Compiler::new().map_err(|error| failed(&error))?;
    let program = compiler.compile_for_file(&expression, layer).map_err(|error| failed(&error))?;
    let text = match args.program {
        0 | 1 => assembler(&program),
        2 => in_c(&program),
        3.. => program.to_string(),
    };
    Screen::new().bytes(text.as_bytes())?;
    Ok(Exit::Done)
}

/// The header that packets of a link type begin with.
fn layer(name: &str) -> Result<LinkLayer, Failure> {
    match link::by_name(name) {
        Some(LinkType::ETHERNET) => Ok(LinkLayer::Ethernet),
        Some(LinkType::RAW) => Ok(LinkLayer::RawIp),
        Some(LinkType::LINUX_SLL) => Ok(LinkLayer::LinuxSll),
        Some(LinkType::LINUX_SLL2) => Ok(LinkLayer::LinuxSll2),
        _ => Err(Failure::usage(format!(
            "cannot compile for the link type {name}: choose EN10MB, RAW, LINUX_SLL or LINUX_SLL2"
        ))),
    }
}

/// The names of the kernel's data about a packet, in the order of their offsets (`SKF_AD_` in `linux/filter.h`), which are 4
/// apart.
const ANCILLARY: [&str; 16] = [
    "proto",
    "type",
    "ifidx",
    "nla",
    "nlan",
    "mark",
    "queue",
    "hatype",
    "rxhash",
    "cpu",
    "xor_x",
    "vlan_tci",
    "vlanp",
    "poff",
    "random",
    "vlan_tpid",
];
/// The first of these offsets (`SKF_AD_OFF`).
const ANCILLARY_OFFSET: i32 = -0x1000;

/// A place in the packet, or the name of the kernel's data about it.
fn place(offset: i32) -> String {
    let number = usize::try_from(offset.wrapping_sub(ANCILLARY_OFFSET)).ok();
    let named =
        number.filter(|number| number % 4 == 0).and_then(|number| ANCILLARY.get(number / 4));
    named.map_or_else(|| format!("[{offset}]"), |name| format!("[{name}]"))
}

/// As `tcpdump -dd` prints it.
fn in_c(program: &Program) -> String {
    let mut text = String::new();
    for Instruction { code, jump_true, jump_false, k } in &program.0 {
        // Writing to a string cannot fail.
        writeln!(text, "{{ 0x{code:x}, {jump_true}, {jump_false}, 0x{k:08x} }},")
            .unwrap_or_default();
    }
    text
}

/// As `tcpdump -d` prints it: `bpf_image` of libpcap.
fn assembler(program: &Program) -> String {
    let mut text = String::new();
    for (number, instruction) in program.0.iter().enumerate() {
        let (operation, operand) = words(*instruction, number);
        let Instruction { code, jump_true, jump_false, .. } = instruction;
        if code & opcode::CLASS == opcode::JMP && code & 0xF0 != opcode::JA {
            let target = |skipped: u8| number + 1 + usize::from(skipped);
            let (yes, no) = (target(*jump_true), target(*jump_false));
            writeln!(text, "({number:03}) {operation:8} {operand:16} jt {yes}\tjf {no}")
                .unwrap_or_default();
        } else {
            writeln!(text, "({number:03}) {operation:8} {operand}").unwrap_or_default();
        }
    }
    text
}

/// The operation and the operand of an instruction.
fn words(instruction: Instruction, number: usize) -> (&'static str, String) {
    let Instruction { code, k, .. } = instruction;
    // Offsets of the kernel's own data are negative.
    let signed = k.cast_signed();
    let memory = || format!("M[{k}]");
    let packet = |mode: u16| match mode {
        opcode::ABS => place(signed),
        opcode::IND => format!("[x + {signed}]"),
        opcode::IMM => format!("#0x{k:x}"),
        opcode::LEN => "#pktlen".to_owned(),
        opcode::MSH => format!("4*([{signed}]&0xf)"),
        _ => memory(),
    };
    let operand = |constant: String| if code & opcode::X == 0 { constant } else { "x".to_owned() };
    let mode = code & 0xE0;
    match code & opcode::CLASS {
        opcode::LD => {
            let operation = match code & 0x18 {
                opcode::H => "ldh",
                opcode::B => "ldb",
                _ => "ld",
            };
            (operation, packet(mode))
        }
        opcode::LDX => (if code & 0x18 == opcode::B { "ldxb" } else { "ldx" }, packet(mode)),
        opcode::ST => ("st", memory()),
        opcode::STX => ("stx", memory()),
        opcode::ALU => {
            let (decimal, hexadecimal) = (format!("#{signed}"), format!("#0x{k:x}"));
            match code & 0xF0 {
                opcode::ADD => ("add", operand(decimal)),
                opcode::SUB => ("sub", operand(decimal)),
                opcode::MUL => ("mul", operand(decimal)),
                opcode::DIV => ("div", operand(decimal)),
                opcode::MOD => ("mod", operand(decimal)),
                opcode::LSH => ("lsh", operand(decimal)),
                opcode::RSH => ("rsh", operand(decimal)),
                opcode::AND => ("and", operand(hexadecimal)),
                opcode::OR => ("or", operand(hexadecimal)),
                opcode::XOR => ("xor", operand(hexadecimal)),
                opcode::NEG => ("neg", String::new()),
                _ => ("unimp", hexadecimal),
            }
        }
        opcode::JMP => {
            let constant = format!("#0x{k:x}");
            match code & 0xF0 {
                opcode::JEQ => ("jeq", operand(constant)),
                opcode::JGT => ("jgt", operand(constant)),
                opcode::JGE => ("jge", operand(constant)),
                opcode::JSET => ("jset", operand(constant)),
                _ => ("ja", (number as u64 + 1 + u64::from(k)).to_string()),
            }
        }
        opcode::RET if code & 0x18 == opcode::A => ("ret", String::new()),
        opcode::RET => ("ret", format!("#{signed}")),
        _ if code & 0xF8 == 0 => ("tax", String::new()),
        _ => ("txa", String::new()),
    }
}
