//! Programs that are built or adapted, by what they select.

#![forbid(unsafe_code)]

use sockbroker_bpf::opcode::{
    ABS, ALU, AND, B, H, IND, JEQ, JGE, JMP, LD, LDX, LEN, MSH, RET, VLAN_TPID,
};
use sockbroker_bpf::{Assembler, DecodeError, Instruction, Program, VlanError, tags_in_metadata};
use sockbroker_test_support::bpf::{Frame, run};

#[test]
fn programs_are_encoded_as_the_kernel_reads_them() {
    let instruction = Instruction { code: 0x15, jump_true: 1, jump_false: 2, k: 0x0102_0304 };
    let program = Program(vec![instruction, Instruction::new(RET, 262_144)]);
    let bytes = program.encode();
    assert_eq!(bytes[..2], 0x15u16.to_ne_bytes());
    assert_eq!(bytes[2..4], [1, 2]);
    assert_eq!(bytes[4..8], 0x0102_0304u32.to_ne_bytes());
    assert_eq!(Program::decode(&bytes), Ok(program.clone()));
    assert_eq!(Program::decode(&bytes[1..]), Err(DecodeError { bytes: 15 }));
    assert_eq!(Program::decode(&[]), Ok(Program(Vec::new())));
    assert_eq!(program.to_string(), "2\n21 1 2 16909060\n6 0 0 262144\n");
}

/// A jump over `distance` instructions in each direction of the condition.
fn distant(distance: usize) -> Program {
    let mut assembler = Assembler::new();
    let (holds, fails) = (assembler.label(), assembler.label());
    assembler.add(LD | B | ABS, 0);
    assembler.jump(JMP | JEQ, 1, Some(holds), Some(fails));
    for _ in 0..distance {
        assembler.add(LD, 0);
    }
    assembler.place(holds);
    assembler.add(RET, 10);
    for _ in 0..distance {
        assembler.add(LD, 0);
    }
    assembler.place(fails);
    assembler.add(RET, 20);
    assembler.finish()
}

#[test]
fn jumps_of_every_distance_reach_their_label() {
    for distance in (0..600).chain([2000]) {
        let program = distant(distance);
        program.check().unwrap();
        assert_eq!(run(&program, Frame { data: &[1], ..Frame::default() }), 10, "{distance}");
        assert_eq!(run(&program, Frame { data: &[2], ..Frame::default() }), 20, "{distance}");
        let further = program.0.len() - (2 * distance + 4);
        // Near jumps do not get longer.
        let expected = usize::from(distance > 255 - usize::from(2 * distance + 1 > 255))
            + usize::from(2 * distance + 1 > 255);
        assert_eq!(further, expected, "{distance}");
    }
}

#[test]
fn tags_are_found_in_the_facts_of_the_kernel() {
    // vlan 100 and, behind the tag, a type of 0x0800 and 9 in the byte after it.
    let program = Program(vec![
        Instruction::new(LD | H | ABS, 12),
        Instruction { code: JMP | JEQ, jump_true: 0, jump_false: 8, k: 0x8100 },
        Instruction::new(LD | H | ABS, 14),
        Instruction::new(ALU | AND, 0x0FFF),
        Instruction { code: JMP | JEQ, jump_true: 0, jump_false: 5, k: 100 },
        Instruction::new(LD | LEN, 0),
        Instruction { code: JMP | JGE, jump_true: 0, jump_false: 3, k: 19 },
        Instruction::new(LDX | B | MSH, 18),
        Instruction { code: LD | B | IND, jump_true: 0, jump_false: 0, k: 18 - 4 + 4 },
        Instruction::new(RET, 7),
        Instruction::new(RET, 0),
    ]);
    program.check().unwrap();
    let adapted = tags_in_metadata(&program).unwrap();
    adapted.check().unwrap();
    let tagged = [&[0; 12][..], &[0x81, 0, 0, 100, 8, 0, 0x40, 9, 9, 9, 9]].concat();
    let other = [&[0; 12][..], &[0x81, 0, 0, 101, 8, 0, 0x40, 9, 9, 9, 9]].concat();
    for frame in [&tagged[..], &other, &tagged[..20], &tagged[..18], &tagged[..17], &[0; 30]] {
        let data = [&frame[..12], &frame[16..]].concat();
        let tag = u16::from_be_bytes([frame[14], frame[15]]);
        let tpid = u16::from_be_bytes([frame[12], frame[13]]);
        let in_frame = run(&program, Frame { data: frame, ..Frame::default() });
        if tpid != 0 {
            let kept = Frame { data: &data, tag: Some((tpid, tag)), ..Frame::default() };
            assert_eq!(run(&adapted, kept), in_frame, "{frame:x?}");
        }
        // A frame whose tag the kernel has left in place.
        assert_eq!(run(&adapted, Frame { data: frame, ..Frame::default() }), in_frame);
    }
    assert_eq!(run(&program, Frame { data: &tagged, ..Frame::default() }), 7);
}

#[test]
fn loads_across_the_tag_are_refused_by_name() {
    for (code, offset, bytes) in [
        (LD | ABS, 10, 4),
        (LD | ABS, 12, 4),
        (LD | ABS, 14, 4),
        (LD | B | ABS, 12, 1),
        (LD | H | ABS, 13, 2),
        (LD | H | ABS, 15, 2),
        (LD | B | IND, 0, 1),
    ] {
        let program = Program(vec![Instruction::new(code, offset), Instruction::new(RET, 1)]);
        assert_eq!(tags_in_metadata(&program), Err(VlanError::Load { at: 0, offset, bytes }));
    }
    let length = Program(vec![Instruction::new(LDX | LEN, 0), Instruction::new(RET, 1)]);
    assert_eq!(tags_in_metadata(&length), Err(VlanError::Length { at: 0 }));
    // Facts of the kernel stay as they are.
    let facts = Program(vec![Instruction::new(LD | ABS, VLAN_TPID), Instruction::new(RET, 1)]);
    assert!(tags_in_metadata(&facts).is_ok());
}
