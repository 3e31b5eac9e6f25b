//! The program of a capture's socket: what the capture excludes, and then the program of the client.
//!
//! Jumps of classic BPF are relative and lead forward, so that one program can stand behind another one.

use std::io;

use sockbroker_sys::filter;

use super::order::{Direction, Order};

/// `struct sock_filter` (`linux/filter.h`).
#[derive(Debug, Clone, Copy)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    operand: u32,
}

/// Codes: `BPF_LD | BPF_W | BPF_ABS`, `BPF_LD | BPF_IMM`, `BPF_JMP | BPF_JEQ | BPF_K`, `BPF_MISC | BPF_TAX`,
/// `BPF_RET | BPF_K` and `BPF_RET | BPF_A`.
const LOAD: u16 = 0x20;
const LOAD_NUMBER: u16 = 0x00;
const JUMP_IF_EQUAL: u16 = 0x15;
const COPY_TO_X: u16 = 0x07;
const RETURN: u16 = 0x06;
const RETURN_ACCUMULATOR: u16 = 0x16;

/// Facts of a packet that are not its bytes (`SKF_AD_OFF`): type, interface and hardware type.
const PACKET_TYPE: u32 = (-0x1000_i32 + 4).cast_unsigned();
const INTERFACE: u32 = (-0x1000_i32 + 8).cast_unsigned();
const HARDWARE: u32 = (-0x1000_i32 + 28).cast_unsigned();
const OUTGOING: u32 = libc::PACKET_OUTGOING as u32;
const LOOPBACK: u32 = libc::ARPHRD_LOOPBACK as u32;

impl Instruction {
    fn new(code: u16, operand: u32) -> Self {
        Self { code, if_true: 0, if_false: 0, operand }
    }

    fn jump(operand: u32, if_true: u8, if_false: u8) -> Self {
        Self { code: JUMP_IF_EQUAL, if_true, if_false, operand }
    }

    fn read([c0, c1, if_true, if_false, k0, k1, k2, k3]: [u8; 8]) -> Self {
        let (code, operand) = (u16::from_ne_bytes([c0, c1]), u32::from_ne_bytes([k0, k1, k2, k3]));
        Self { code, if_true, if_false, operand }
    }

    fn bytes(self) -> [u8; 8] {
        let ([c0, c1], [k0, k1, k2, k3]) = (self.code.to_ne_bytes(), self.operand.to_ne_bytes());
        [c0, c1, self.if_true, self.if_false, k0, k1, k2, k3]
    }
}

/// Why the program of a client cannot be used; the kernel checks the rest.
pub fn check(program: &[u8]) -> Result<(), &'static str> {
    let (instructions, odd) = program.as_chunks::<8>();
    if !odd.is_empty() || instructions.len() > filter::INSTRUCTIONS_MAX {
        return Err("a program has at most 4096 instructions of 8 bytes");
    }
    let returns = instructions.iter().copied().map(Instruction::read);
    if returns.into_iter().any(|one| one.code == RETURN_ACCUMULATOR) {
        return Err("a program must return numbers, and not the accumulator");
    }
    Ok(())
}

/// The program for an order, on these interfaces if it names several. `InvalidInput` if it is too long or malformed.
pub(super) fn joined(order: &Order, interfaces: &[u32]) -> io::Result<Vec<u8>> {
    check(&order.program).map_err(|reason| io::Error::new(io::ErrorKind::InvalidInput, reason))?;
    let mut program = before(order, interfaces);
    let (own, _) = order.program.as_chunks::<8>();
    if own.is_empty() {
        program.push(Instruction::new(RETURN, order.snaplen));
    } else {
        program.extend(own.iter().copied().map(Instruction::read).map(|one| match one.code {
            RETURN => Instruction { operand: one.operand.min(order.snaplen), ..one },
            _ => one,
        }));
    }
    Ok(program.into_iter().flat_map(Instruction::bytes).collect())
}

/// What stands in front of the program of the client. It leaves the registers as it found them.
fn before(order: &Order, interfaces: &[u32]) -> Vec<Instruction> {
    let mut program = Vec::new();
    let drop = Instruction::new(RETURN, 0);
    let load = |fact| Instruction::new(LOAD, fact);
    match order.direction {
        Direction::In => {
            program.extend([load(PACKET_TYPE), Instruction::jump(OUTGOING, 0, 1), drop]);
        }
        Direction::Out => {
            program.extend([load(PACKET_TYPE), Instruction::jump(OUTGOING, 1, 0), drop]);
        }
        Direction::Both if !order.duplicates => program.extend([
            load(HARDWARE),
            Instruction::jump(LOOPBACK, 0, 3),
            load(PACKET_TYPE),
            Instruction::jump(OUTGOING, 0, 1),
            drop,
        ]),
        Direction::Both => {}
    }
    if interfaces.len() > 1 {
        program.push(load(INTERFACE));
        let after = (1..=interfaces.len()).rev();
        program.extend(after.zip(interfaces).map(|(over, index)| {
            // Over the comparisons that follow, and over the end.
            Instruction::jump(*index, u8::try_from(over).unwrap_or(u8::MAX), 0)
        }));
        program.push(drop);
    }
    if !program.is_empty() {
        program.extend([Instruction::new(LOAD_NUMBER, 0), Instruction::new(COPY_TO_X, 0)]);
    }
    program
}

/// A program that drops everything.
pub(super) fn nothing() -> Vec<u8> {
    Instruction::new(RETURN, 0).bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::PROGRAM_MAX;
    use crate::capture::tests::order;

    #[test]
    fn returned_lengths_are_at_most_the_snaplen() {
        let returns = |operand| Instruction::new(RETURN, operand).bytes();
        let program = [returns(0), returns(64), returns(u32::MAX)].concat();
        let order = Order { program, snaplen: 100, duplicates: true, ..order() };
        let joined = joined(&order, &[1]).unwrap();
        assert_eq!(joined, [returns(0), returns(64), returns(100)].concat());
    }

    #[test]
    fn programs_that_are_malformed_or_return_the_accumulator_are_refused() {
        let accumulator = Instruction::new(RETURN_ACCUMULATOR, 0).bytes();
        assert!(check(&accumulator).is_err());
        assert!(check(&[0; 7]).is_err());
        assert!(check(&nothing().repeat(4097)).is_err());
        check(&nothing().repeat(4096)).unwrap();
        check(&[]).unwrap();
        // With what stands in front of it, the longest program is too long for the kernel.
        let order = Order { program: nothing().repeat(4096), duplicates: false, ..order() };
        assert!(joined(&order, &[]).unwrap().len() > PROGRAM_MAX);
    }
}
