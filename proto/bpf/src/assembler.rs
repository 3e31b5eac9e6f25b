//! Programs with labels. A conditional jump reaches 255 instructions: one that needs to reach further gets an
//! unconditional jump behind it.

use crate::opcode::{JA, JMP};
use crate::program::{Instruction, Program};

/// A position in a program. [`Assembler::place`] can define it after jumps refer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(usize);

/// An instruction with labels in place of offsets.
#[derive(Debug, Clone, Copy)]
enum Line {
    Plain(Instruction),
    Always(Label),
    /// Code, constant, and the targets if the condition holds and if it does not. `None` is the next instruction.
    Jump {
        code: u16,
        k: u32,
        holds: Option<Label>,
        fails: Option<Label>,
    },
}

/// Builds a program from its start to its end. All jumps are forward.
#[derive(Debug, Default)]
pub struct Assembler {
    lines: Vec<Line>,
    /// For each label, the line that it stands before.
    labels: Vec<Option<usize>>,
}

impl Assembler {
    /// An empty program.
    pub fn new() -> Self {
        Self::default()
    }

    /// A label that is placed later.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Places a label before the next instruction.
    pub fn place(&mut self, label: Label) {
        if let Some(place) = self.labels.get_mut(label.0) {
            *place = Some(self.lines.len());
        }
    }

    /// Appends an instruction that does not jump.
    pub fn add(&mut self, code: u16, k: u32) {
        self.lines.push(Line::Plain(Instruction::new(code, k)));
    }

    /// Appends a jump to a label.
    pub fn go(&mut self, to: Label) {
        self.lines.push(Line::Always(to));
    }

    /// Appends a jump by a condition. `None` is the next instruction.
    pub fn jump(&mut self, code: u16, k: u32, holds: Option<Label>, fails: Option<Label>) {
        self.lines.push(Line::Jump { code, k, holds, fails });
    }

    /// Returns the program. A label that was not placed is the end of the program.
    pub fn finish(&self) -> Program {
        // Which lines have further jumps behind them: one for each far target.
        let mut far = vec![(false, false); self.lines.len()];
        loop {
            let starts = self.starts(&far);
            let mut changed = false;
            for (at, line) in self.lines.iter().enumerate() {
                let Line::Jump { holds, fails, .. } = line else { continue };
                let (Some(start), Some(is_far)) = (starts.get(at), far.get_mut(at)) else {
                    continue;
                };
                for (target, is_far) in [(holds, &mut is_far.0), (fails, &mut is_far.1)] {
                    let distance = self.target(*target, at, &starts).saturating_sub(start + 1);
                    if distance > usize::from(u8::MAX) && !*is_far {
                        *is_far = true;
                        changed = true;
                    }
                }
            }
            // Jumps only grow, so this ends.
            if !changed {
                return self.encode(&far, &starts);
            }
        }
    }

    /// The position of each line, and of the end.
    fn starts(&self, far: &[(bool, bool)]) -> Vec<usize> {
        let mut starts = Vec::with_capacity(self.lines.len() + 1);
        let mut start = 0;
        for (holds, fails) in far {
            starts.push(start);
            start += 1 + usize::from(*holds) + usize::from(*fails);
        }
        starts.push(start);
        starts
    }

    /// The position of the target of a line.
    fn target(&self, label: Option<Label>, line: usize, starts: &[usize]) -> usize {
        let line = match label {
            None => line + 1,
            Some(label) => self.labels.get(label.0).copied().flatten().unwrap_or(self.lines.len()),
        };
        starts.get(line).copied().unwrap_or_default()
    }

    fn encode(&self, far: &[(bool, bool)], starts: &[usize]) -> Program {
        let mut program = Vec::with_capacity(starts.last().copied().unwrap_or_default());
        let always = |program: &mut Vec<Instruction>, target: usize| {
            let skipped = target.saturating_sub(program.len() + 1);
            program.push(Instruction::new(JMP | JA, u32::try_from(skipped).unwrap_or(u32::MAX)));
        };
        for (at, line) in self.lines.iter().enumerate() {
            match *line {
                Line::Plain(instruction) => program.push(instruction),
                Line::Always(label) => {
                    let target = self.target(Some(label), at, starts);
                    always(&mut program, target);
                }
                Line::Jump { code, k, holds, fails } => {
                    let (holds_far, fails_far) = far.get(at).copied().unwrap_or_default();
                    let start = program.len();
                    let near = |target: usize| {
                        u8::try_from(target.saturating_sub(start + 1)).unwrap_or(u8::MAX)
                    };
                    let targets = [holds, fails].map(|label| self.target(label, at, starts));
                    // The jump for the far target that holds stands first.
                    let jump_true = if holds_far { 0 } else { near(targets[0]) };
                    let jump_false = if fails_far { u8::from(holds_far) } else { near(targets[1]) };
                    program.push(Instruction { code, jump_true, jump_false, k });
                    if holds_far {
                        always(&mut program, targets[0]);
                    }
                    if fails_far {
                        always(&mut program, targets[1]);
                    }
                }
            }
        }
        Program(program)
    }
}
