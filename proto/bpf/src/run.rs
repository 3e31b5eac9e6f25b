//! Runs programs on packets of a file, as the kernel runs them on packets of a socket.

use crate::opcode::{
    A, ABS, ADD, ALU, AND, B, CLASS, DIV, H, IMM, IND, JA, JEQ, JGE, JGT, JMP, JSET, LD, LDX, LEN,
    LSH, MEM, MEMORY_WORDS, MISC, MOD, MSH, MUL, NEG, OR, RET, RSH, ST, STX, SUB, TXA, X, XOR,
};
use crate::program::{Instruction, Program};

/// Registers and memory.
#[derive(Default)]
struct Machine<'a> {
    data: &'a [u8],
    length: u32,
    a: u32,
    x: u32,
    memory: [u32; MEMORY_WORDS as usize],
}

impl Program {
    /// Whether the program selects a packet of a file. `data` are the captured bytes, and `length` is the length on the
    /// wire. Facts of the kernel, such as the direction, are not known: a program that loads one selects nothing, as one
    /// that loads bytes that were not captured. The same holds for a program that [`check`](Self::check) does not accept.
    pub fn selects(&self, data: &[u8], length: u32) -> bool {
        let machine = Machine { data, length, ..Machine::default() };
        machine.run(self).is_some_and(|bytes| bytes > 0)
    }
}

impl Machine<'_> {
    /// Runs a program to its end. `None` if it has no result. Jumps go forward, so that it ends.
    fn run(mut self, program: &Program) -> Option<u32> {
        let mut next = 0_usize;
        loop {
            let instruction = *program.0.get(next)?;
            let Instruction { code, k, .. } = instruction;
            next = next.checked_add(1)?;
            match code & CLASS {
                RET => return Some(if code & 0x18 == A { self.a } else { k }),
                JMP => next = next.checked_add(self.skipped(instruction)?)?,
                LD => self.a = self.operand(code, k)?,
                LDX => self.x = self.operand(code, k)?,
                ST => *self.memory.get_mut(usize::try_from(k).ok()?)? = self.a,
                STX => *self.memory.get_mut(usize::try_from(k).ok()?)? = self.x,
                ALU => self.a = self.computed(code, if code & X == 0 { k } else { self.x })?,
                MISC if code & 0xF8 == TXA => self.a = self.x,
                _ => self.x = self.a,
            }
        }
    }

    fn skipped(
        &self,
        Instruction { code, jump_true, jump_false, k }: Instruction,
    ) -> Option<usize> {
        let operand = if code & X == 0 { k } else { self.x };
        let holds = match code & 0xF0 {
            JA => return usize::try_from(k).ok(),
            JEQ => self.a == operand,
            JGT => self.a > operand,
            JGE => self.a >= operand,
            JSET => self.a & operand != 0,
            _ => return None,
        };
        Some(usize::from(if holds { jump_true } else { jump_false }))
    }

    fn operand(&self, code: u16, k: u32) -> Option<u32> {
        match code & 0xE0 {
            IMM => Some(k),
            LEN => Some(self.length),
            MEM => self.memory.get(usize::try_from(k).ok()?).copied(),
            ABS => self.load(code, k),
            // The sum wraps, as in the kernel: a negative constant is an offset before X.
            IND => self.load(code, self.x.wrapping_add(k)),
            MSH => self.load(B, k).map(|byte| (byte & 0xF) << 2),
            _ => None,
        }
    }

    fn load(&self, code: u16, offset: u32) -> Option<u32> {
        let bytes = match code & 0x18 {
            B => 1,
            H => 2,
            _ => 4,
        };
        let start = usize::try_from(offset).ok()?;
        let field = self.data.get(start..start.checked_add(bytes)?)?;
        Some(field.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    /// `None` for a division by zero, which ends the program.
    fn computed(&self, code: u16, operand: u32) -> Option<u32> {
        let a = self.a;
        Some(match code & 0xF0 {
            ADD => a.wrapping_add(operand),
            SUB => a.wrapping_sub(operand),
            MUL => a.wrapping_mul(operand),
            DIV => a.checked_div(operand)?,
            MOD => a.checked_rem(operand)?,
            OR => a | operand,
            AND => a & operand,
            XOR => a ^ operand,
            LSH => a.wrapping_shl(operand),
            RSH => a.wrapping_shr(operand),
            NEG => a.wrapping_neg(),
            _ => return None,
        })
    }
}
