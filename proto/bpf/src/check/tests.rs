//! Programs that the kernel takes, and programs that it refuses.

use super::*;

fn check(program: &[Instruction]) -> Result<(), CheckError> {
    Program(program.to_vec()).check()
}

const ACCEPT: Instruction = Instruction::new(RET, 1);

fn jump(code: u16, k: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, k }
}

#[test]
fn length_is_limited() {
    assert_eq!(check(&[]), Err(CheckError::Empty));
    assert_eq!(check(&vec![ACCEPT; MAX_INSTRUCTIONS]), Ok(()));
    let instructions = MAX_INSTRUCTIONS + 1;
    assert_eq!(check(&vec![ACCEPT; instructions]), Err(CheckError::TooLong { instructions }));
}

#[test]
fn known_codes_are_those_of_the_kernel() {
    // `codes` of chk_code_allowed().
    let known = [
        0x04, 0x0C, 0x14, 0x1C, 0x24, 0x2C, 0x34, 0x3C, 0x94, 0x9C, 0x54, 0x5C, 0x44, 0x4C, 0xA4,
        0xAC, 0x64, 0x6C, 0x74, 0x7C, 0x84, 0x20, 0x28, 0x30, 0x80, 0x40, 0x48, 0x50, 0x00, 0x60,
        0x81, 0xB1, 0x01, 0x61, 0x02, 0x03, 0x07, 0x87, 0x06, 0x16, 0x05, 0x15, 0x1D, 0x35, 0x3D,
        0x25, 0x2D, 0x45, 0x4D,
    ];
    for code in 0..=u16::MAX {
        assert_eq!(is_known(code), known.contains(&code), "{code:#x}");
    }
    assert_eq!(
        check(&[Instruction::new(0x17, 0), ACCEPT]),
        Err(CheckError::Code { at: 0, code: 0x17 })
    );
}

#[test]
fn jumps_stay_within_the_program() {
    let backward = CheckError::Jump { at: 0 };
    assert_eq!(check(&[jump(JMP | JA, 0, 0, 0), ACCEPT]), Ok(()));
    assert_eq!(check(&[jump(JMP | JA, 1, 0, 0), ACCEPT]), Err(backward));
    // libpcap compiles a loop as a negative offset.
    assert_eq!(check(&[jump(JMP | JA, u32::MAX - 3, 0, 0), ACCEPT]), Err(backward));
    assert_eq!(check(&[jump(JMP | JEQ, 0, 1, 0), ACCEPT, ACCEPT]), Ok(()));
    assert_eq!(check(&[jump(JMP | JEQ, 0, 2, 0), ACCEPT, ACCEPT]), Err(backward));
    assert_eq!(check(&[jump(JMP | JEQ | X, 0, 0, 255), ACCEPT, ACCEPT]), Err(backward));
}

#[test]
fn constants_of_arithmetic_are_checked() {
    for operation in [DIV, MOD] {
        let divide = Instruction::new(ALU | operation, 0);
        assert_eq!(check(&[divide, ACCEPT]), Err(CheckError::DivisionByZero { at: 0 }));
        assert_eq!(check(&[Instruction { k: 1, ..divide }, ACCEPT]), Ok(()));
        // The kernel ends the program if X is zero.
        assert_eq!(check(&[Instruction { code: divide.code | X, ..divide }, ACCEPT]), Ok(()));
    }
    for operation in [LSH, RSH] {
        let shift = Instruction::new(ALU | operation, 32);
        assert_eq!(check(&[shift, ACCEPT]), Err(CheckError::Shift { at: 0, bits: 32 }));
        assert_eq!(check(&[Instruction { k: 31, ..shift }, ACCEPT]), Ok(()));
    }
}

#[test]
fn memory_is_stored_on_every_path_before_it_is_loaded() {
    let (store, load) = (Instruction::new(ST, 3), Instruction::new(LD | MEM, 3));
    assert_eq!(check(&[store, load, ACCEPT]), Ok(()));
    assert_eq!(check(&[load, ACCEPT]), Err(CheckError::NotStored { at: 0, word: 3 }));
    let other = Instruction::new(LDX | MEM, 4);
    assert_eq!(check(&[store, other, ACCEPT]), Err(CheckError::NotStored { at: 1, word: 4 }));
    // One of two paths skips the store.
    let skipping = [jump(JMP | JEQ, 0, 1, 0), store, load, ACCEPT];
    assert_eq!(check(&skipping), Err(CheckError::NotStored { at: 2, word: 3 }));
    let both = [jump(JMP | JEQ, 0, 2, 0), store, jump(JMP, 1, 0, 0), store, load, ACCEPT];
    assert_eq!(check(&both), Ok(()));
    for code in [ST, STX, LD | MEM, LDX | MEM] {
        let beyond = Instruction::new(code, 16);
        assert_eq!(check(&[beyond, ACCEPT]), Err(CheckError::Memory { at: 0, word: 16 }));
    }
}

#[test]
fn only_facts_that_exist_are_loaded() {
    for k in [0, 0x7FFF_FFFF, ANCILLARY, ANCILLARY + 8, ANCILLARY + 60, 0xFFF0_0000, 0xFFE0_0000] {
        assert_eq!(check(&[Instruction::new(LD | ABS, k), ACCEPT]), Ok(()), "{k:#x}");
    }
    for offset in [ANCILLARY + 1, ANCILLARY + 64, u32::MAX] {
        let ancillary = CheckError::Ancillary { at: 0, offset };
        assert_eq!(check(&[Instruction::new(LD | ABS, offset), ACCEPT]), Err(ancillary));
    }
}

#[test]
fn last_instruction_returns() {
    assert_eq!(check(&[Instruction::new(LD, 0)]), Err(CheckError::NoReturn));
    assert_eq!(check(&[Instruction::new(RET | A, 0)]), Ok(()));
}
