//! The seccomp filter as data: which calls the kernel reports to the supervisor.
//!
//! Everything that is not listed runs as without a filter. Pointers cannot be followed here: `bind` is always
//! reported, and decided by its address in the supervisor.

use libc::sock_filter;

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

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const IF_SET: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

const ALLOW: u32 = 0x7fff_0000; // SECCOMP_RET_ALLOW
const NOTIFY: u32 = 0x7fc0_0000; // SECCOMP_RET_USER_NOTIF

/// A place that a jump leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Label(usize);

/// An assembler for programs whose jumps all lead forward.
#[derive(Debug, Default)]
struct Assembler {
    code: Vec<sock_filter>,
    /// Jumps if a comparison holds, with their labels.
    jumps: Vec<(usize, Label)>,
    /// Where the labels are.
    labels: Vec<usize>,
}

impl Assembler {
    fn label(&mut self) -> Label {
        self.labels.push(usize::MAX);
        Label(self.labels.len() - 1)
    }

    fn place(&mut self, label: Label) {
        if let Some(place) = self.labels.get_mut(label.0) {
            *place = self.code.len();
        }
    }

    fn push(&mut self, code: u16, k: u32) {
        self.code.push(sock_filter { code, jt: 0, jf: 0, k });
    }

    fn load(&mut self, offset: u32) {
        self.push(LOAD, offset);
    }

    fn load_argument(&mut self, index: u32) {
        self.load(ARGUMENTS + index * ARGUMENT_SIZE);
    }

    fn jump_if(&mut self, comparison: u16, value: u32, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.push(comparison, value);
    }

    fn jump_if_equal(&mut self, value: u32, label: Label) {
        self.jump_if(IF_EQUAL, value, label);
    }

    fn finish(mut self) -> Vec<sock_filter> {
        for (place, label) in self.jumps {
            let target = self.labels.get(label.0).copied().unwrap_or(usize::MAX);
            let distance = target.saturating_sub(place + 1);
            if let Some(instruction) = self.code.get_mut(place) {
                // A test checks that every jump is short enough.
                instruction.jt = u8::try_from(distance).unwrap_or(u8::MAX);
            }
        }
        self.code
    }
}

/// The program for this machine and its 32-bit form.
pub(crate) fn program() -> Vec<sock_filter> {
    let mut assembler = Assembler::default();
    let (allow, notify) = (assembler.label(), assembler.label());
    let (socket, option) = (assembler.label(), assembler.label());
    let sections: Vec<_> = ARCHITECTURES.iter().map(|arch| (arch, assembler.label())).collect();
    assembler.load(ARCH);
    for (arch, label) in &sections {
        assembler.jump_if_equal(arch.audit, *label);
    }
    assembler.push(RETURN, ALLOW);
    for (arch, label) in sections {
        assembler.place(label);
        calls(&mut assembler, arch, [allow, notify, socket, option]);
    }
    sockets(&mut assembler, socket, notify);
    options(&mut assembler, option, notify);
    assembler.place(allow);
    assembler.push(RETURN, ALLOW);
    assembler.place(notify);
    assembler.push(RETURN, NOTIFY);
    assembler.finish()
}

/// The calls of one architecture, by number.
fn calls(
    assembler: &mut Assembler,
    arch: &Architecture,
    [allow, notify, socket, option]: [Label; 4],
) {
    assembler.load(NUMBER);
    assembler.jump_if(IF_SET, X32, allow);
    assembler.jump_if_equal(arch.socket, socket);
    assembler.jump_if_equal(arch.bind, notify);
    assembler.jump_if_equal(arch.setsockopt, option);
    if let Some(number) = arch.socketcall {
        let multiplexed = assembler.label();
        assembler.jump_if_equal(number, multiplexed);
        assembler.push(RETURN, ALLOW);
        assembler.place(multiplexed);
        // The sub-call. Its arguments are in memory.
        assembler.load_argument(0);
        for call in [Reported::Socket, Reported::Bind, Reported::SetOption] {
            assembler.jump_if_equal(call.sub_call(), notify);
        }
    }
    assembler.push(RETURN, ALLOW);
}

/// `socket`: the kinds that need a privilege.
fn sockets(assembler: &mut Assembler, start: Label, notify: Label) {
    let (internet, datagram) = (assembler.label(), assembler.label());
    assembler.place(start);
    assembler.load_argument(0);
    assembler.jump_if_equal(libc::AF_PACKET.cast_unsigned(), notify);
    assembler.jump_if_equal(libc::AF_INET.cast_unsigned(), internet);
    assembler.jump_if_equal(libc::AF_INET6.cast_unsigned(), internet);
    assembler.push(RETURN, ALLOW);
    assembler.place(internet);
    assembler.load_argument(1);
    assembler.push(AND, TYPE_MASK);
    assembler.jump_if_equal(libc::SOCK_RAW.cast_unsigned(), notify);
    assembler.jump_if_equal(SOCK_PACKET, notify);
    assembler.jump_if_equal(libc::SOCK_DGRAM.cast_unsigned(), datagram);
    assembler.push(RETURN, ALLOW);
    assembler.place(datagram);
    assembler.load_argument(2);
    assembler.jump_if_equal(libc::IPPROTO_ICMP.cast_unsigned(), notify);
    assembler.jump_if_equal(libc::IPPROTO_ICMPV6.cast_unsigned(), notify);
    assembler.push(RETURN, ALLOW);
}

/// `SOCK_PACKET`, which `packet(7)` replaced.
const SOCK_PACKET: u32 = 10;

/// `setsockopt`: the options that need a privilege, by level and name.
fn options(assembler: &mut Assembler, start: Label, notify: Label) {
    assembler.place(start);
    let levels = [libc::SOL_SOCKET, libc::IPPROTO_IP, libc::IPPROTO_IPV6];
    let levels = levels.map(|level| (level, assembler.label()));
    assembler.load_argument(1);
    for (level, label) in levels {
        assembler.jump_if_equal(level.cast_unsigned(), label);
    }
    assembler.push(RETURN, ALLOW);
    for (level, label) in levels {
        assembler.place(label);
        assembler.load_argument(2);
        for option in OPTIONS.iter().filter(|option| option.level == level) {
            assembler.jump_if_equal(option.name.cast_unsigned(), notify);
        }
        assembler.push(RETURN, ALLOW);
    }
}

#[cfg(test)]
mod tests;
