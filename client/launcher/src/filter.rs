//! The seccomp filter as data: which calls the kernel reports to the supervisor.
//!
//! Everything that is not listed runs as without a filter. Pointers cannot be followed here: `bind` is always
//! reported, and decided by its address in the supervisor.

use sockbroker_bpf::opcode::{ABS, ALU, AND, JEQ, JMP, JSET, K, LD, RET, W};
use sockbroker_bpf::{Assembler, Label, Program};

use crate::decision::{ARCHITECTURES, Architecture, OPTIONS, Reported};

/// Offsets in `struct seccomp_data`. An argument has 64 bits; the low half is first on the supported machines.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;
const ARGUMENT_SIZE: u32 = 8;

/// The bit of system call numbers of the x32 interface, which is not served.
const X32: u32 = 0x4000_0000;
/// `SOCK_TYPE_MASK` of the kernel: a type without flags.
const TYPE_MASK: u32 = 0xf;

const LOAD: u16 = LD | W | ABS;
const MASK: u16 = ALU | AND | K;
const IF_EQUAL: u16 = JMP | JEQ | K;
const IF_SET: u16 = JMP | JSET | K;
const RETURN: u16 = RET | K;

const ALLOW: u32 = 0x7fff_0000; // SECCOMP_RET_ALLOW
const NOTIFY: u32 = 0x7fc0_0000; // SECCOMP_RET_USER_NOTIF

/// Which calls of `socket` are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sockets {
    /// Those of kinds that need a privilege.
    Privileged,
    /// All but those that do not belong to a network: `AF_UNIX`.
    OfNetworks,
}

fn load_argument(assembler: &mut Assembler, index: u32) {
    assembler.add(LOAD, ARGUMENTS + index * ARGUMENT_SIZE);
}

fn jump_if_equal(assembler: &mut Assembler, value: i32, label: Label) {
    assembler.jump(IF_EQUAL, value.cast_unsigned(), Some(label), None);
}

/// The program for this machine and its 32-bit form.
pub(crate) fn program(reported: Sockets) -> Program {
    let mut assembler = Assembler::new();
    let (allow, notify) = (assembler.label(), assembler.label());
    let (socket, option) = (assembler.label(), assembler.label());
    let sections: Vec<_> = ARCHITECTURES.iter().map(|arch| (arch, assembler.label())).collect();
    assembler.add(LOAD, ARCH);
    for (arch, label) in &sections {
        assembler.jump(IF_EQUAL, arch.audit, Some(*label), None);
    }
    assembler.add(RETURN, ALLOW);
    for (arch, label) in sections {
        assembler.place(label);
        calls(&mut assembler, arch, [allow, notify, socket, option]);
    }
    match reported {
        Sockets::Privileged => sockets(&mut assembler, socket, notify),
        Sockets::OfNetworks => {
            assembler.place(socket);
            load_argument(&mut assembler, 0);
            jump_if_equal(&mut assembler, libc::AF_UNIX, allow);
            assembler.go(notify);
        }
    }
    options(&mut assembler, option, notify);
    assembler.place(allow);
    assembler.add(RETURN, ALLOW);
    assembler.place(notify);
    assembler.add(RETURN, NOTIFY);
    assembler.finish()
}

/// The calls of one architecture, by number.
fn calls(
    assembler: &mut Assembler,
    arch: &Architecture,
    [allow, notify, socket, option]: [Label; 4],
) {
    assembler.add(LOAD, NUMBER);
    assembler.jump(IF_SET, X32, Some(allow), None);
    jump_if_equal(assembler, arch.socket.cast_signed(), socket);
    jump_if_equal(assembler, arch.bind.cast_signed(), notify);
    jump_if_equal(assembler, arch.setsockopt.cast_signed(), option);
    if let Some(number) = arch.socketcall {
        let multiplexed = assembler.label();
        jump_if_equal(assembler, number.cast_signed(), multiplexed);
        assembler.add(RETURN, ALLOW);
        assembler.place(multiplexed);
        // The sub-call. Its arguments are in memory.
        load_argument(assembler, 0);
        for call in [Reported::Socket, Reported::Bind, Reported::SetOption] {
            jump_if_equal(assembler, call.sub_call().cast_signed(), notify);
        }
    }
    assembler.add(RETURN, ALLOW);
}

/// `socket`: the kinds that need a privilege.
fn sockets(assembler: &mut Assembler, start: Label, notify: Label) {
    let (internet, datagram) = (assembler.label(), assembler.label());
    assembler.place(start);
    load_argument(assembler, 0);
    jump_if_equal(assembler, libc::AF_PACKET, notify);
    jump_if_equal(assembler, libc::AF_INET, internet);
    jump_if_equal(assembler, libc::AF_INET6, internet);
    assembler.add(RETURN, ALLOW);
    assembler.place(internet);
    load_argument(assembler, 1);
    assembler.add(MASK, TYPE_MASK);
    jump_if_equal(assembler, libc::SOCK_RAW, notify);
    jump_if_equal(assembler, SOCK_PACKET.cast_signed(), notify);
    jump_if_equal(assembler, libc::SOCK_DGRAM, datagram);
    assembler.add(RETURN, ALLOW);
    assembler.place(datagram);
    load_argument(assembler, 2);
    jump_if_equal(assembler, libc::IPPROTO_ICMP, notify);
    jump_if_equal(assembler, libc::IPPROTO_ICMPV6, notify);
    assembler.add(RETURN, ALLOW);
}

/// `SOCK_PACKET`, which `packet(7)` replaced.
const SOCK_PACKET: u32 = 10;

/// `setsockopt`: the options that need a privilege, by level and name.
fn options(assembler: &mut Assembler, start: Label, notify: Label) {
    assembler.place(start);
    let levels = [libc::SOL_SOCKET, libc::IPPROTO_IP, libc::IPPROTO_IPV6];
    let levels = levels.map(|level| (level, assembler.label()));
    load_argument(assembler, 1);
    for (level, label) in levels {
        jump_if_equal(assembler, level, label);
    }
    assembler.add(RETURN, ALLOW);
    for (level, label) in levels {
        assembler.place(label);
        load_argument(assembler, 2);
        for option in OPTIONS.iter().filter(|option| option.level == level) {
            jump_if_equal(assembler, option.name, notify);
        }
        assembler.add(RETURN, ALLOW);
    }
}

#[cfg(test)]
mod tests;
