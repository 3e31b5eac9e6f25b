//! Programs and their bytes.

use std::fmt;

use crate::opcode::{K, RET};

/// The most instructions of a program (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4_096;

/// The length of an instruction.
const BYTES: usize = 8;

/// An instruction (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// What it does, of [`opcode`](crate::opcode).
    pub code: u16,
    /// How many instructions to skip if the condition holds.
    pub jump_true: u8,
    /// How many instructions to skip if it does not.
    pub jump_false: u8,
    /// The constant.
    pub k: u32,
}

impl Instruction {
    /// An instruction that does not jump.
    pub const fn new(code: u16, k: u32) -> Self {
        Self { code, jump_true: 0, jump_false: 0, k }
    }
}

/// A program. It can be invalid until [`check`](Self::check) has accepted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program(pub Vec<Instruction>);

/// Bytes that are not a program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a program of {bytes} bytes is not a multiple of 8")]
pub struct DecodeError {
    /// The number of bytes.
    pub bytes: usize,
}

impl Program {
    /// The program that selects no packet.
    pub fn none() -> Self {
        Self(vec![Instruction::new(RET | K, 0)])
    }

    /// Decodes an array of `struct sock_filter` in the byte order of the machine.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (instructions, rest) = bytes.as_chunks::<BYTES>();
        if !rest.is_empty() {
            return Err(DecodeError { bytes: bytes.len() });
        }
        let decode = |&[a, b, jump_true, jump_false, e, f, g, h]: &[u8; BYTES]| Instruction {
            code: u16::from_ne_bytes([a, b]),
            jump_true,
            jump_false,
            k: u32::from_ne_bytes([e, f, g, h]),
        };
        Ok(Self(instructions.iter().map(decode).collect()))
    }

    /// Encodes it as an array of `struct sock_filter` in the byte order of the machine.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * BYTES);
        for instruction in &self.0 {
            bytes.extend(instruction.code.to_ne_bytes());
            bytes.extend([instruction.jump_true, instruction.jump_false]);
            bytes.extend(instruction.k.to_ne_bytes());
        }
        bytes
    }
}

/// As `tcpdump -ddd` prints it: the number of instructions, and a line for each.
impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.0.len())?;
        for Instruction { code, jump_true, jump_false, k } in &self.0 {
            writeln!(f, "{code} {jump_true} {jump_false} {k}")?;
        }
        Ok(())
    }
}
