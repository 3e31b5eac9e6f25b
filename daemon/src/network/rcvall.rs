//! Programs of classic BPF for the packet socket behind `AF_INET, SOCK_RAW, IPPROTO_IP`
//! (`sockbroker_monitor::opener`). `ops::rcvall` has the calls on it.

/// `BPF_RET | BPF_K`.
pub(crate) const RETURN: u16 = 0x06;

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
