//! VLAN tags: libpcap compiles for frames that contain their tags, and the kernel removes the outer tag before a filter
//! runs, and keeps it in the metadata of the packet.

use crate::assembler::Assembler;
use crate::opcode::{
    ABS, ADD, ALU, B, CLASS, H, IND, JEQ, JMP, K, LD, LDX, LEN, MISC, MSH, TAX, VLAN_TAG,
    VLAN_TAG_PRESENT, VLAN_TPID, W,
};
use crate::program::{Instruction, Program};

/// Where the outer tag stands in a frame, and its length.
const TAG: u32 = 12;
const TAG_BYTES: u32 = 4;

/// A program that cannot be adapted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VlanError {
    /// An instruction loads bytes of the tag together with others, so the kernel cannot provide them.
    #[error(
        "instruction {at} loads {bytes} bytes at {offset}: the kernel keeps the VLAN tag at 12 \
         apart from the frame"
    )]
    Load {
        /// The instruction, from 0.
        at: usize,
        /// The offset in the frame.
        offset: u32,
        /// The number of bytes.
        bytes: u32,
    },
    /// An instruction loads the length of the packet into X.
    #[error("instruction {at} loads the length into X, which is not supported with VLAN tags")]
    Length {
        /// The instruction, from 0.
        at: usize,
    },
}

/// Adapts a program for whole Ethernet frames to frames whose outer VLAN tag the kernel keeps apart: it selects the
/// packets that the program selects in a capture file, where the tags are in the frames.
///
/// The result tests at its start whether there is a tag. From a program of `n` instructions it has `2 × n + 7`, and a few
/// more if the program uses the length of the packet or jumps far.
pub fn tags_in_metadata(program: &Program) -> Result<Program, VlanError> {
    let mut tagged: Vec<Vec<Instruction>> = Vec::new();
    for (at, instruction) in program.0.iter().enumerate() {
        tagged.push(adapt(at, *instruction)?);
    }
    let mut second = Assembler::new();
    let labels: Vec<_> = program.0.iter().map(|_| second.label()).collect();
    let label = |at: usize, skipped: usize| labels.get(at.saturating_add(skipped) + 1).copied();
    for (at, lines) in tagged.iter().enumerate() {
        if let Some(label) = labels.get(at) {
            second.place(*label);
        }
        for line in lines {
            let Instruction { code, jump_true, jump_false, k } = *line;
            if code == JMP {
                let skipped = usize::try_from(k).unwrap_or(usize::MAX);
                if let Some(target) = label(at, skipped) {
                    second.go(target);
                }
            } else if code & CLASS == JMP {
                let holds = label(at, usize::from(jump_true));
                let fails = label(at, usize::from(jump_false));
                second.jump(code, k, holds, fails);
            } else {
                second.add(code, k);
            }
        }
    }
    let second = second.finish().0;
    let skipped = u32::try_from(program.0.len()).unwrap_or(u32::MAX);
    let start = [
        Instruction::new(LD | W | ABS, VLAN_TAG_PRESENT),
        // A tag: behind the program for frames without one.
        Instruction { code: JMP | JEQ | K, jump_true: 1, jump_false: 0, k: 0 },
        Instruction::new(JMP, skipped + 2),
        // Registers are zero at the start of a program.
        Instruction::new(LD, 0),
        Instruction::new(MISC | TAX, 0),
    ];
    let zero = [Instruction::new(LD, 0), Instruction::new(MISC | TAX, 0)];
    Ok(Program([&start[..], &program.0, &zero, &second].concat()))
}

/// Adapts an instruction to a frame without its outer tag.
fn adapt(at: usize, instruction: Instruction) -> Result<Vec<Instruction>, VlanError> {
    let Instruction { code, k: offset, .. } = instruction;
    let bytes = match code & 0x18 {
        B => 1,
        H => 2,
        _ => 4,
    };
    // Ancillary data and negative offsets are not in the frame.
    let in_frame = offset < 0x8000_0000;
    match (code & CLASS, code & 0xE0) {
        (LD, ABS) if !in_frame || offset + bytes <= TAG => Ok(vec![instruction]),
        (LD, ABS) if code == LD | H | ABS && offset == TAG => {
            Ok(vec![Instruction::new(LD | W | ABS, VLAN_TPID)])
        }
        (LD, ABS) if code == LD | H | ABS && offset == TAG + 2 => {
            Ok(vec![Instruction::new(LD | W | ABS, VLAN_TAG)])
        }
        // Offsets to X are those of headers behind the tag: libpcap has no other.
        (LD, ABS | IND) | (LDX, MSH) if offset >= TAG + TAG_BYTES => {
            Ok(vec![Instruction { k: offset - TAG_BYTES, ..instruction }])
        }
        (LD, ABS | IND) | (LDX, MSH) => Err(VlanError::Load { at, offset, bytes }),
        (LD, LEN) => Ok(vec![instruction, Instruction::new(ALU | ADD | K, TAG_BYTES)]),
        // libpcap does not use it.
        (LDX, LEN) => Err(VlanError::Length { at }),
        _ => Ok(vec![instruction]),
    }
}
