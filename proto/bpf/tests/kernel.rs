//! Random programs and packets, on which the kernel must agree: about the programs that it takes, and about the packets
//! that they select.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use sockbroker_bpf::opcode::{
    A, ABS, ADD, ALU, ANCILLARY, ANCILLARY_END, AND, B, DIV, H, IMM, IND, JA, JEQ, JGE, JGT, JMP,
    JSET, K, LD, LDX, LEN, LSH, MEM, MISC, MOD, MSH, MUL, NEG, OR, RET, RSH, ST, STX, SUB, TAX,
    TXA, W, X, XOR,
};
use sockbroker_bpf::{Instruction, Program};
use sockbroker_test_support::bpf::{Frame, run};
use sockbroker_test_support::counts::PROGRAMS;
use sockbroker_test_support::kernel_bpf::KernelFilter;

/// The packets on which each program runs.
const PACKETS: usize = 4;
/// The longest packet and the most instructions. Programs are short, so that most of them get far.
const LONGEST: u32 = 24;
const INSTRUCTIONS: u32 = 14;
/// Offsets from here on are relative to headers (`SKF_LL_OFF`), which a file does not know.
const HEADERS: u32 = 0xFFE0_0000;

/// Numbers by xorshift, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from((self.0 >> 16) % u64::from(end)).unwrap()
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(u32::try_from(choices.len()).unwrap()) as usize]
    }

    /// A constant: small, at an edge, or any.
    fn constant(&mut self) -> u32 {
        match self.below(8) {
            0..=3 => self.below(LONGEST + 4),
            4 => self.pick(&[31, 32, 255, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000]),
            // Negative, as the offset before a register.
            5 => u32::MAX - self.below(LONGEST),
            6 => self.below(256),
            _ => self.below(u32::MAX),
        }
    }

    fn packet(&mut self) -> Vec<u8> {
        let length = 1 + self.below(LONGEST);
        (0..length)
            .map(|_| u8::try_from(if self.below(3) == 0 { 0 } else { self.below(256) }).unwrap())
            .collect()
    }

    /// An instruction that the kernel can take, before `behind` others.
    fn instruction(&mut self, behind: u32) -> Instruction {
        let operation = self.pick(&[ADD, SUB, MUL, DIV, MOD, OR, AND, XOR, LSH, RSH]);
        let jump = self.pick(&[JEQ, JGT, JGE, JSET]);
        let (size, source) = (self.pick(&[W, H, B]), self.pick(&[K, X]));
        let skipped = |random: &mut Self| u8::try_from(random.below(behind.clamp(1, 5))).unwrap();
        let (jump_true, jump_false) = (skipped(self), skipped(self));
        let (word, offset) = (self.below(4), self.below(LONGEST));
        match self.below(20) {
            0..=2 => Instruction::new(LD | size | ABS, offset),
            3..=4 => Instruction::new(LD | size | IND, self.constant()),
            5 => Instruction::new(LD | W | LEN, 0),
            6 => Instruction::new(LD | IMM, self.constant()),
            7 => Instruction::new(LD | MEM, word),
            8 => Instruction::new(LDX | IMM, self.constant()),
            9 => Instruction::new(LDX | B | MSH, offset),
            10 => Instruction::new(self.pick(&[LDX | MEM, STX]), word),
            11 => Instruction::new(LDX | W | LEN, 0),
            12 => Instruction::new(ST, word),
            13 => Instruction::new(MISC | self.pick(&[TAX, TXA]), 0),
            14 => Instruction::new(ALU | NEG, 0),
            15 | 16 => Instruction::new(ALU | operation | source, self.constant()),
            17 if behind > 0 => Instruction::new(JMP | JA, self.below(behind.min(3))),
            _ if behind > 0 => {
                Instruction { code: JMP | jump | source, jump_true, jump_false, k: self.constant() }
            }
            _ => Instruction::new(RET | K, self.constant()),
        }
    }

    fn program(&mut self) -> Program {
        let length = 1 + self.below(INSTRUCTIONS);
        let mut program: Vec<_> =
            (0..length).rev().map(|behind| self.instruction(behind)).collect();
        let result = self.pick(&[RET | A, RET | K]);
        program.push(Instruction::new(result, self.constant()));
        Program(program)
    }

    /// The same with one field changed, to anything.
    fn changed(&mut self, program: &Program) -> Program {
        let mut program = program.clone();
        let place = self.below(u32::try_from(program.0.len()).unwrap()) as usize;
        let any = self.below(u32::MAX);
        let instruction = &mut program.0[place];
        match self.below(5) {
            0 => instruction.code = u16::try_from(any & 0xFF).unwrap(),
            1 => instruction.code = u16::try_from(any & 0xFFFF).unwrap(),
            2 => instruction.jump_true = any.to_ne_bytes()[0],
            3 => instruction.k = ANCILLARY - 8 + any % (ANCILLARY_END - ANCILLARY + 16),
            _ => drop(program.0.pop()),
        }
        program
    }
}

/// Whether a program reads only what a file has: not the facts of the kernel. Offsets that are computed are random.
fn reads_the_packet_alone(program: &Program) -> bool {
    let is_fact = |one: &Instruction| {
        let is_fixed = one.code & 0xE7 == LD | ABS || one.code == LDX | B | MSH;
        is_fixed && one.k >= HEADERS
    };
    !program.0.iter().any(is_fact)
}

#[test]
fn programs_are_taken_and_packets_are_selected_as_by_the_kernel() {
    let (kernel, mut random) = (KernelFilter::new(), Random(0x9E37_79B9_7F4A_7C15));
    let (mut taken, mut refused, mut kept, mut dropped) = (0, 0, 0, 0);
    for _ in 0..PROGRAMS.get() {
        let mut program = random.program();
        if random.below(4) == 0 {
            program = random.changed(&program);
        }
        let accepted = program.check();
        assert_eq!(accepted.is_ok(), kernel.attach(&program), "{accepted:?} of\n{program}");
        if accepted.is_err() {
            refused += 1;
            continue;
        }
        taken += 1;
        if !reads_the_packet_alone(&program) {
            continue;
        }
        for _ in 0..PACKETS {
            let data = random.packet();
            let length = u32::try_from(data.len()).unwrap();
            let by_kernel = kernel.kept(&data);
            let selected = program.selects(&data, length);
            assert_eq!(selected, by_kernel > 0, "{data:x?} by\n{program}");
            // The interpreter of the tests, by which rules are tested.
            let bytes = run(&program, Frame { data: &data, ..Frame::default() });
            assert_eq!(bytes.min(length) as usize, by_kernel, "{data:x?} by\n{program}");
            if selected { kept += 1 } else { dropped += 1 }
        }
    }
    // Each outcome is frequent.
    let all = PROGRAMS.get();
    assert!(taken > all / 4 && refused > all / 10, "{taken} taken, {refused} refused");
    assert!(kept > all / 4 && dropped > all / 4, "{kept} kept, {dropped} dropped");
}

#[test]
fn offsets_that_are_computed_wrap_as_in_the_kernel() {
    let kernel = KernelFilter::new();
    // The byte at 5 - 3.
    let program = Program(vec![
        Instruction::new(LDX | IMM, 5),
        Instruction::new(LD | B | IND, 0_u32.wrapping_sub(3)),
        Instruction::new(RET | A, 0),
    ]);
    assert!(program.check().is_ok() && kernel.attach(&program));
    for (packet, bytes) in [([0, 0, 3, 0], 3), ([1, 1, 0, 1], 0)] {
        assert_eq!(kernel.kept(&packet), bytes);
        assert_eq!(program.selects(&packet, 4), bytes > 0);
    }
}
