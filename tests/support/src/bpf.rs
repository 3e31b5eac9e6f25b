//! Runs classic BPF programs as the kernel does (`Documentation/networking/filter.rst`), without a kernel.

use sockbroker_bpf::opcode::{
    A, ABS, ADD, ALU, ANCILLARY, AND, B, CLASS, DIV, H, HATYPE, IFINDEX, IMM, IND, JA, JEQ, JGE,
    JGT, JMP, JSET, LD, LDX, LEN, LSH, MEM, MOD, MSH, MUL, NEG, OR, PKTTYPE, RET, RSH, ST, STX,
    SUB, TXA, VLAN_TAG, VLAN_TAG_PRESENT, VLAN_TPID, X, XOR,
};
use sockbroker_bpf::{Instruction, Program};

/// A packet and what the kernel knows about it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Frame<'a> {
    pub data: &'a [u8],
    pub interface: u32,
    /// `ARPHRD_*`.
    pub hardware: u32,
    /// `PACKET_*`.
    pub kind: u32,
    /// Protocol and value of the tag that the kernel has removed.
    pub tag: Option<(u16, u16)>,
}

struct Machine<'a> {
    frame: Frame<'a>,
    a: u32,
    x: u32,
    memory: [u32; 16],
}

/// Returns how many bytes of a packet a program accepts. The program must be one that `check` accepts.
pub fn run(program: &Program, frame: Frame<'_>) -> u32 {
    let mut machine = Machine { frame, a: 0, x: 0, memory: [0; 16] };
    let mut next = 0;
    loop {
        let instruction = program.0[next];
        next += 1;
        match instruction.code & CLASS {
            RET => return if instruction.code & 0x18 == A { machine.a } else { instruction.k },
            JMP => next += machine.skipped(instruction),
            // A load out of bounds and a division by zero end the program.
            _ if machine.step(instruction).is_none() => return 0,
            _ => {}
        }
    }
}

impl Machine<'_> {
    fn skipped(&self, Instruction { code, jump_true, jump_false, k }: Instruction) -> usize {
        let operand = if code & X == 0 { k } else { self.x };
        let holds = match code & 0xF0 {
            JA => return k as usize,
            JEQ => self.a == operand,
            JGT => self.a > operand,
            JGE => self.a >= operand,
            JSET => self.a & operand != 0,
            other => panic!("jump {other:#x}"),
        };
        usize::from(if holds { jump_true } else { jump_false })
    }

    fn step(&mut self, Instruction { code, k, .. }: Instruction) -> Option<()> {
        match code & CLASS {
            LD => self.a = self.operand(code, k)?,
            LDX => self.x = self.operand(code, k)?,
            ST => self.memory[k as usize] = self.a,
            STX => self.memory[k as usize] = self.x,
            ALU => self.a = self.computed(code, if code & X == 0 { k } else { self.x })?,
            _ if code & 0xF8 == TXA => self.a = self.x,
            _ => self.x = self.a,
        }
        Some(())
    }

    fn operand(&self, code: u16, k: u32) -> Option<u32> {
        match code & 0xE0 {
            IMM => Some(k),
            LEN => u32::try_from(self.frame.data.len()).ok(),
            MEM => Some(self.memory[k as usize]),
            ABS if k >= ANCILLARY => Some(self.fact(k)),
            ABS => self.load(code, k),
            IND => self.load(code, self.x.wrapping_add(k)),
            MSH => self.load(B, k).map(|byte| (byte & 0xF) * 4),
            other => panic!("mode {other:#x}"),
        }
    }

    fn load(&self, code: u16, offset: u32) -> Option<u32> {
        let bytes = match code & 0x18 {
            B => 1,
            H => 2,
            _ => 4,
        };
        let start = offset as usize;
        let field = self.frame.data.get(start..start.checked_add(bytes)?)?;
        Some(field.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    fn fact(&self, offset: u32) -> u32 {
        let (tpid, tag) = self.frame.tag.unwrap_or_default();
        match offset {
            PKTTYPE => self.frame.kind,
            IFINDEX => self.frame.interface,
            HATYPE => self.frame.hardware,
            VLAN_TAG => tag.into(),
            VLAN_TAG_PRESENT => self.frame.tag.is_some().into(),
            VLAN_TPID => tpid.into(),
            other => panic!("fact {other:#x}"),
        }
    }

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
            other => panic!("operation {other:#x}"),
        })
    }
}
