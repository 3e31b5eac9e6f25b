//! Checks a program as the kernel does (`bpf_check_classic` and `check_load_and_stores` in `net/core/filter.c`).

use crate::opcode::{
    A, ABS, ADD, ALU, ANCILLARY, ANCILLARY_END, AND, B, CLASS, DIV, H, IMM, IND, JA, JEQ, JGE, JGT,
    JMP, JSET, K, LD, LDX, LEN, LSH, MEM, MEMORY_WORDS, MISC, MOD, MSH, MUL, NEG, OR, RET, RSH, ST,
    STX, SUB, TAX, TXA, W, X, XOR,
};
use crate::program::{Instruction, MAX_INSTRUCTIONS, Program};

/// Why the kernel would refuse a program. Instructions are counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// It has no instruction.
    #[error("the program is empty")]
    Empty,
    /// It has more instructions than the kernel takes.
    #[error(
        "the program has {instructions} instructions, the kernel accepts at most {MAX_INSTRUCTIONS}"
    )]
    TooLong {
        /// The number of instructions.
        instructions: usize,
    },
    /// An instruction has an unknown code.
    #[error("instruction {at} has the unknown code {code:#x}")]
    Code {
        /// The instruction.
        at: usize,
        /// Its code.
        code: u16,
    },
    /// An instruction jumps backward, or beyond the end. A backward jump is a loop, as in `ip protochain`.
    #[error("instruction {at} jumps backward or beyond the end: the kernel does not run loops")]
    Jump {
        /// The instruction.
        at: usize,
    },
    /// An instruction divides by zero.
    #[error("instruction {at} divides by zero")]
    DivisionByZero {
        /// The instruction.
        at: usize,
    },
    /// An instruction shifts by 32 bits or more.
    #[error("instruction {at} shifts by {bits} bits")]
    Shift {
        /// The instruction.
        at: usize,
        /// The number of bits.
        bits: u32,
    },
    /// An instruction uses a word that the memory does not have.
    #[error("instruction {at} uses word {word} of the memory, which has {MEMORY_WORDS} words")]
    Memory {
        /// The instruction.
        at: usize,
        /// The word.
        word: u32,
    },
    /// An instruction loads a word of the memory that may not have been stored.
    #[error("instruction {at} loads word {word} of the memory before it is stored")]
    NotStored {
        /// The instruction.
        at: usize,
        /// The word.
        word: u32,
    },
    /// An instruction loads ancillary data (`SKF_AD_*`) that does not exist.
    #[error("instruction {at} loads from the ancillary offset {offset:#x}, which does not exist")]
    Ancillary {
        /// The instruction.
        at: usize,
        /// The offset.
        offset: u32,
    },
    /// The last instruction does not return.
    #[error("the last instruction does not return")]
    NoReturn,
}

impl Program {
    /// Checks that the kernel takes it: known codes, forward jumps within the program, memory that is stored before it is
    /// loaded, facts that exist, and a return at the end.
    pub fn check(&self) -> Result<(), CheckError> {
        let instructions = self.0.len();
        if instructions > MAX_INSTRUCTIONS {
            return Err(CheckError::TooLong { instructions });
        }
        for (at, instruction) in self.0.iter().enumerate() {
            check_instruction(at, *instruction, instructions - at - 1)?;
        }
        check_memory(&self.0)?;
        match self.0.last().map(|last| last.code) {
            None => Err(CheckError::Empty),
            Some(code) if code == RET | K || code == RET | A => Ok(()),
            Some(_) => Err(CheckError::NoReturn),
        }
    }
}

/// Whether the kernel has an instruction (`chk_code_allowed`).
fn is_known(code: u16) -> bool {
    let operation = code & 0xF0;
    let size = code & 0x18;
    let mode = code & 0xE0;
    match code & CLASS {
        _ if code > 0xFF => false,
        LD => match mode {
            ABS | IND => [W, H, B].contains(&size),
            IMM | MEM | LEN => size == W,
            _ => false,
        },
        LDX => match mode {
            IMM | MEM | LEN => size == W,
            MSH => size == B,
            _ => false,
        },
        ST => code == ST,
        STX => code == STX,
        ALU => {
            let operations = [ADD, SUB, MUL, DIV, MOD, AND, OR, XOR, LSH, RSH];
            operations.contains(&operation) || code == ALU | NEG
        }
        JMP => [JEQ, JGT, JGE, JSET].contains(&operation) || code == JMP | JA,
        RET => code == RET | K || code == RET | A,
        _ => code == MISC | TAX || code == MISC | TXA,
    }
}

/// Checks an instruction that `behind` others follow.
fn check_instruction(
    at: usize,
    Instruction { code, jump_true, jump_false, k }: Instruction,
    behind: usize,
) -> Result<(), CheckError> {
    if !is_known(code) {
        return Err(CheckError::Code { at, code });
    }
    let operation = code & 0xF0;
    let reaches = |skipped: usize| skipped < behind;
    match code & CLASS {
        ALU if code & X == K => match operation {
            DIV | MOD if k == 0 => Err(CheckError::DivisionByZero { at }),
            LSH | RSH if k >= 32 => Err(CheckError::Shift { at, bits: k }),
            _ => Ok(()),
        },
        JMP if operation == JA => {
            let skipped = usize::try_from(k).unwrap_or(usize::MAX);
            if reaches(skipped) { Ok(()) } else { Err(CheckError::Jump { at }) }
        }
        JMP => {
            let both = reaches(usize::from(jump_true)) && reaches(usize::from(jump_false));
            if both { Ok(()) } else { Err(CheckError::Jump { at }) }
        }
        _ if is_memory(code) && k >= MEMORY_WORDS => Err(CheckError::Memory { at, word: k }),
        LD if code & 0xE0 == ABS && k >= ANCILLARY => {
            let is_fact = k < ANCILLARY_END && k.is_multiple_of(4);
            if is_fact { Ok(()) } else { Err(CheckError::Ancillary { at, offset: k }) }
        }
        _ => Ok(()),
    }
}

fn is_memory(code: u16) -> bool {
    code == ST || code == STX || code == LD | MEM || code == LDX | MEM
}

/// Checks that each word of the memory is stored on every path to its loads.
fn check_memory(program: &[Instruction]) -> Result<(), CheckError> {
    // For each instruction, the words that are stored on all paths to it, as far as they are known.
    let mut stored = vec![u16::MAX; program.len()];
    let mut now: u16 = 0;
    for (at, Instruction { code, jump_true, jump_false, k }) in program.iter().enumerate() {
        now &= stored.get(at).copied().unwrap_or_default();
        let bit = 1u16.checked_shl(*k).unwrap_or(0);
        let mut jump = |skipped: usize| {
            if let Some(target) = stored.get_mut(at.saturating_add(skipped).saturating_add(1)) {
                *target &= now;
            }
        };
        match code & CLASS {
            ST | STX => now |= bit,
            LD | LDX if is_memory(*code) && now & bit == 0 => {
                return Err(CheckError::NotStored { at, word: *k });
            }
            JMP if code & 0xF0 == JA => {
                jump(usize::try_from(*k).unwrap_or(usize::MAX));
                now = u16::MAX;
            }
            JMP => {
                jump(usize::from(*jump_true));
                jump(usize::from(*jump_false));
                now = u16::MAX;
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
