//! The program through an interpreter of classic BPF, against the words of the design.

use super::*;
use crate::decision::RawCall;

/// Runs a program on `struct seccomp_data`, as the kernel's `seccomp_check_filter` allows: loads, one mask, jumps
/// forward, returns.
fn interpret(program: &[sock_filter], call: &RawCall) -> u32 {
    let word = |offset: u32| -> u32 {
        match offset {
            NUMBER => call.number.cast_unsigned(),
            ARCH => call.arch,
            _ => {
                let place = offset - ARGUMENTS;
                assert_eq!(place % 4, 0, "an unaligned load");
                let value = call.args[usize::try_from(place / ARGUMENT_SIZE).unwrap()];
                u32::try_from(value >> (place % ARGUMENT_SIZE * 8) & u64::from(u32::MAX)).unwrap()
            }
        }
    };
    let (mut accumulator, mut next) = (0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[next];
        next += 1;
        let jump = match code {
            LOAD => {
                accumulator = word(k);
                continue;
            }
            AND => {
                accumulator &= k;
                continue;
            }
            IF_EQUAL => accumulator == k,
            IF_SET => accumulator & k != 0,
            RETURN => return k,
            other => panic!("an unknown instruction {other:#x}"),
        };
        next += usize::from(if jump { jt } else { jf });
    }
}

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;

/// The numbers of the kernel's tables (`syscall_64.tbl`, `syscall_32.tbl`, `unistd.h`): socket, bind, setsockopt.
const NUMBERS: [(u32, [i32; 3]); 3] =
    [(X86_64, [41, 49, 54]), (I386, [359, 361, 366]), (AARCH64, [198, 200, 208])];

fn is_reported(arch: u32, number: i32, args: [u64; 6]) -> bool {
    match interpret(&program(), &RawCall { arch, number, args }) {
        NOTIFY => true,
        ALLOW => false,
        other => panic!("an unknown action {other:#x}"),
    }
}

#[test]
fn sockets_that_need_a_privilege_are_reported_on_each_architecture() {
    let flags = u64::from((libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK).cast_unsigned());
    for (arch, [socket, ..]) in NUMBERS {
        for family in 0..48 {
            for kind in 0..16 {
                for protocol in [0, 1, 6, 17, 58, 255] {
                    let expected = match (family, kind) {
                        (17, _) | (2 | 10, 3 | 10) => true,
                        (2 | 10, 2) => [1, 58].contains(&protocol),
                        _ => false,
                    };
                    // The kernel ignores the high half of an int.
                    for high in [0, 0xdead_beef_u64 << 32] {
                        let args = [family | high, kind | flags | high, protocol | high, 9, 9, 9];
                        let found = is_reported(arch, socket, args);
                        assert_eq!(found, expected, "{arch:#x}: {family} {kind} {protocol}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_bind_and_the_listed_options_are_reported_on_each_architecture() {
    for (arch, [_, bind, setsockopt]) in NUMBERS {
        assert!(is_reported(arch, bind, [3, 0xffff_ffff_ffff, 16, 0, 0, 0]));
        for level in 0..300 {
            for name in 0..100 {
                let expected = match level {
                    1 => [1, 12, 25, 26, 27, 32, 33, 36].contains(&name),
                    0 => [17, 19].contains(&name),
                    41 => [35, 75].contains(&name),
                    _ => false,
                };
                let found = is_reported(arch, setsockopt, [3, level, name, 1 << 40, 4, 0]);
                assert_eq!(found, expected, "{arch:#x}: {level} {name}");
            }
        }
    }
}

#[test]
fn no_other_call_of_any_architecture_is_reported() {
    for (arch, numbers) in NUMBERS {
        for number in (0..600).filter(|number| !numbers.contains(number)) {
            if (arch, number) == (I386, 102) {
                continue;
            }
            // Arguments with which socket and setsockopt are reported.
            for args in [[17, 3, 0, 0, 0, 0], [1, 1, 36, 0, 0, 0], [2, 3, 1, 0, 0, 0]] {
                assert!(!is_reported(arch, number, args), "{arch:#x}: {number}");
            }
        }
    }
    // x32, and an architecture without a table.
    assert!(!is_reported(X86_64, 41 + X32.cast_signed(), [17, 3, 0, 0, 0, 0]));
    assert!(!is_reported(0x1234_5678, 41, [17, 3, 0, 0, 0, 0]));
}

#[test]
fn socketcall_is_reported_for_its_three_sub_calls() {
    for sub_call in 0..30 {
        let found = is_reported(I386, 102, [sub_call, 0x1000, 0, 0, 0, 0]);
        assert_eq!(found, [1, 2, 14].contains(&sub_call), "{sub_call}");
    }
}

#[test]
fn jumps_stay_within_their_range_and_the_program_within_that_of_the_kernel() {
    let program = program();
    assert!(program.len() < 256, "{}", program.len());
    let jumps = |code| code == IF_EQUAL || code == IF_SET;
    let jumps = program.iter().enumerate().filter(|(_, instruction)| jumps(instruction.code));
    for (place, instruction) in jumps {
        assert!(place + 1 + usize::from(instruction.jt) < program.len());
    }
}
