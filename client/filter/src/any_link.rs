//! Joins the programs for different kinds of interfaces.

use sockbroker_bpf::opcode::{ABS, HATYPE, IMM, JA, JEQ, JMP, K, LD, MISC, RET, TAX, W};
use sockbroker_bpf::{Instruction, Program};

/// Hardware types (`linux/if_arp.h`) whose packets begin with an Ethernet header: Ethernet and loopback.
const ETHERNET: [u32; 2] = [1, 772];
/// Those whose packets begin with an IP header: none (`tun`), tunnels, and devices for IP alone.
const IP: [u32; 6] = [0xFFFE, 768, 769, 776, 778, 519];

/// The program that runs one of two, by the hardware type of the interface of a packet. It drops packets of other types,
/// and those that begin with an IP header if there is no program for them.
pub(crate) fn by_hardware(ethernet: &Program, ip: Option<&Program>) -> Program {
    // Registers are zero at the start of a program.
    let zero = [Instruction::new(LD | IMM, 0), Instruction::new(MISC | TAX, 0)];
    let ip = ip.map_or(Vec::new(), |ip| [&zero[..], &ip.0].concat());
    let ethernet = [&zero[..], &ethernet.0].concat();
    let ip_types = if ip.is_empty() { &[][..] } else { &IP[..] };
    let types = ETHERNET.iter().chain(ip_types);
    let count = ETHERNET.len() + ip_types.len();
    let mut program = vec![Instruction::new(LD | W | ABS, HATYPE)];
    for (at, hardware) in types.enumerate() {
        // Behind the tests are the end for other types, a jump to the program for IP, and the program for Ethernet.
        let rest = count - at - 1;
        let target = if at < ETHERNET.len() { rest + 2 } else { rest + 1 };
        let jump_true = u8::try_from(target).unwrap_or(u8::MAX);
        program.push(Instruction { code: JMP | JEQ | K, jump_true, jump_false: 0, k: *hardware });
    }
    program.push(Instruction::new(RET | K, 0));
    program.push(if ip.is_empty() {
        Instruction::new(RET | K, 0)
    } else {
        Instruction::new(JMP | JA, u32::try_from(ethernet.len()).unwrap_or(u32::MAX))
    });
    program.extend(ethernet);
    program.extend(ip);
    Program(program)
}

#[cfg(test)]
mod tests {
    use sockbroker_test_support::bpf::{Frame, run};

    use super::*;

    fn returns(length: u32, padding: usize) -> Program {
        let mut program = vec![Instruction::new(LD | IMM, 0); padding];
        program.push(Instruction::new(RET | K, length));
        Program(program)
    }

    #[test]
    fn each_hardware_type_runs_its_program() {
        for padding in [0, 700] {
            let (ethernet, ip) = (returns(10, padding), returns(20, 0));
            let both = by_hardware(&ethernet, Some(&ip));
            let alone = by_hardware(&ethernet, None);
            both.check().unwrap();
            alone.check().unwrap();
            for hardware in (0..1000).chain([0xFFFE]) {
                let frame = Frame { hardware, ..Frame::default() };
                let is_ethernet = ETHERNET.contains(&hardware);
                let expected = if is_ethernet { 10 } else { 0 };
                assert_eq!(run(&alone, frame), expected, "{hardware}");
                let expected = if IP.contains(&hardware) { 20 } else { expected };
                assert_eq!(run(&both, frame), expected, "{hardware}");
            }
        }
    }

    #[test]
    fn programs_begin_with_registers_that_are_zero() {
        // `ret a`: the length would be the hardware type.
        let returns_a = Program(vec![Instruction::new(RET | 0x10, 0)]);
        let program = by_hardware(&returns_a, Some(&returns_a));
        for hardware in [1, 772, 0xFFFE] {
            assert_eq!(run(&program, Frame { hardware, ..Frame::default() }), 0);
        }
    }
}
