//! The packet socket behind `AF_INET, SOCK_RAW, IPPROTO_IP`, which Linux refuses to make
//! (`EPROTONOSUPPORT`). `ops::rcvall` has the calls on it.

use std::os::fd::{AsFd, OwnedFd};

use sockbroker_proto::socket_spec::SocketSpec;
use sockbroker_sys::{filter, socket};

use crate::error::{During, OpResult};
use crate::table::rcvall::Rcvall;

/// `BPF_RET | BPF_K`.
pub(crate) const RETURN: u16 = 0x06;

/// Whether the emulation serves a kind of socket.
pub(super) fn serves(spec: SocketSpec) -> bool {
    spec == SocketSpec { domain: libc::AF_INET, ty: libc::SOCK_RAW, protocol: libc::IPPROTO_IP }
}

/// Opens the packet socket. It receives nothing until `RCVALL_ON`.
pub(super) fn open() -> OpResult<(OwnedFd, Rcvall)> {
    // With protocol 0 nothing is queued before the filter is attached.
    let descriptor = socket::create(libc::AF_PACKET, libc::SOCK_DGRAM, 0).during("socket")?;
    filter::attach(descriptor.as_fd(), &nothing()).during("setsockopt")?;
    Ok((descriptor, Rcvall::default()))
}

/// A program that drops everything.
pub(crate) fn nothing() -> Vec<u8> {
    program(&[(RETURN, 0, 0, 0)])
}

/// A classic BPF program. An instruction is a code, two jump offsets and an operand.
pub(crate) fn program(instructions: &[(u16, u8, u8, u32)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(instructions.len() * 8);
    for (code, jump_true, jump_false, operand) in instructions {
        bytes.extend_from_slice(&code.to_ne_bytes());
        bytes.extend_from_slice(&[*jump_true, *jump_false]);
        bytes.extend_from_slice(&operand.to_ne_bytes());
    }
    bytes
}
