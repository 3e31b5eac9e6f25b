//! The program through an interpreter of classic BPF, against the words of the design.

use sockbroker_test_support::bpf::{Frame, run};

use super::*;
use crate::decision::RawCall;

fn low(argument: u64) -> u32 {
    u32::try_from(argument & u64::from(u32::MAX)).unwrap()
}

/// Runs a program on `struct seccomp_data`.
fn interpret(program: &Program, call: &RawCall) -> u32 {
    let RawCall { arch, number, args } = call;
    // The machine of classic BPF reads words of packets in network order, and the kernel those of a call in its own.
    let words = [number.cast_unsigned(), *arch, 0, 0].into_iter();
    let arguments = args.iter().flat_map(|argument| [low(*argument), low(argument >> 32)]);
    let data: Vec<u8> = words.chain(arguments).flat_map(u32::to_be_bytes).collect();
    run(program, Frame { data: &data, ..Frame::default() })
}

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;

/// The numbers of the kernel's tables (`syscall_64.tbl`, `syscall_32.tbl`, `unistd.h`): socket, bind, setsockopt.
const NUMBERS: [(u32, [i32; 3]); 3] =
    [(X86_64, [41, 49, 54]), (I386, [359, 361, 366]), (AARCH64, [198, 200, 208])];

fn is_reported(arch: u32, number: i32, args: [u64; 6]) -> bool {
    is_reported_with(&program(Sockets::Privileged), arch, number, args)
}

fn is_reported_with(program: &Program, arch: u32, number: i32, args: [u64; 6]) -> bool {
    match interpret(program, &RawCall { arch, number, args }) {
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
fn sockets_of_networks_are_all_but_unix_ones() {
    let program = program(Sockets::OfNetworks);
    for (arch, [socket, bind, setsockopt]) in NUMBERS {
        for family in 0..48 {
            for kind in 0..16 {
                let found = is_reported_with(&program, arch, socket, [family, kind, 0, 9, 9, 9]);
                assert_eq!(found, family != 1, "{arch:#x}: {family} {kind}");
            }
        }
        assert!(is_reported_with(&program, arch, bind, [3, 4096, 16, 0, 0, 0]));
        assert!(is_reported_with(&program, arch, setsockopt, [3, 1, 36, 4096, 4, 0]));
        assert!(!is_reported_with(&program, arch, setsockopt, [3, 1, 2, 4096, 4, 0]));
    }
    assert!(is_reported_with(&program, I386, 102, [1, 4096, 0, 0, 0, 0]));
}

#[test]
fn programs_are_valid() {
    for sockets in [Sockets::Privileged, Sockets::OfNetworks] {
        let program = program(sockets);
        program.check().unwrap();
        assert!(program.0.len() < 256, "{}", program.0.len());
    }
}
