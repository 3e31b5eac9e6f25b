//! Codes of instructions (`linux/filter.h`, `linux/bpf_common.h`).

/// Loads into A and X, stores from A and X.
pub const LD: u16 = 0x00;
/// Load into X.
pub const LDX: u16 = 0x01;
/// Store A.
pub const ST: u16 = 0x02;
/// Store X.
pub const STX: u16 = 0x03;
/// Arithmetic on A.
pub const ALU: u16 = 0x04;
/// Jump forward.
pub const JMP: u16 = 0x05;
/// Return: end the program, and keep this many bytes of the packet.
pub const RET: u16 = 0x06;
/// Transfer between A and X.
pub const MISC: u16 = 0x07;
/// The class of a code.
pub const CLASS: u16 = 0x07;

/// Load 4 bytes.
pub const W: u16 = 0x00;
/// Load 2 bytes.
pub const H: u16 = 0x08;
/// Load a byte.
pub const B: u16 = 0x10;

/// A constant.
pub const IMM: u16 = 0x00;
/// The packet at a constant offset.
pub const ABS: u16 = 0x20;
/// The packet at X plus a constant offset.
pub const IND: u16 = 0x40;
/// A word of the memory.
pub const MEM: u16 = 0x60;
/// The length of the packet.
pub const LEN: u16 = 0x80;
/// The length of the IPv4 header at a constant offset.
pub const MSH: u16 = 0xA0;

/// The operand is the constant.
pub const K: u16 = 0x00;
/// The operand is X.
pub const X: u16 = 0x08;
/// Return A.
pub const A: u16 = 0x10;

/// Arithmetic operations.
pub const ADD: u16 = 0x00;
/// Subtract.
pub const SUB: u16 = 0x10;
/// Multiply.
pub const MUL: u16 = 0x20;
/// Divide.
pub const DIV: u16 = 0x30;
/// Bitwise or.
pub const OR: u16 = 0x40;
/// Bitwise and.
pub const AND: u16 = 0x50;
/// Shift to the left.
pub const LSH: u16 = 0x60;
/// Shift to the right.
pub const RSH: u16 = 0x70;
/// Negate.
pub const NEG: u16 = 0x80;
/// Remainder.
pub const MOD: u16 = 0x90;
/// Bitwise exclusive or.
pub const XOR: u16 = 0xA0;

/// Jump without a condition.
pub const JA: u16 = 0x00;
/// Jump if A is equal.
pub const JEQ: u16 = 0x10;
/// Jump if A is greater.
pub const JGT: u16 = 0x20;
/// Jump if A is greater or equal.
pub const JGE: u16 = 0x30;
/// Jump if A has one of the bits.
pub const JSET: u16 = 0x40;

/// Copy A to X.
pub const TAX: u16 = 0x00;
/// Copy X to A.
pub const TXA: u16 = 0x80;

/// Where the facts of the kernel about a packet begin (`SKF_AD_OFF`), as offsets of loads.
pub const ANCILLARY: u32 = 0xFFFF_F000;
/// The end of these facts (`SKF_AD_MAX`), in steps of four.
pub const ANCILLARY_END: u32 = ANCILLARY + 64;
/// The direction and kind of destination (`SKF_AD_PKTTYPE`).
pub const PKTTYPE: u32 = ANCILLARY + 4;
/// The index of the interface (`SKF_AD_IFINDEX`).
pub const IFINDEX: u32 = ANCILLARY + 8;
/// The type of the interface (`SKF_AD_HATYPE`).
pub const HATYPE: u32 = ANCILLARY + 28;
/// The VLAN tag that the kernel has removed from the frame (`SKF_AD_VLAN_TAG`).
pub const VLAN_TAG: u32 = ANCILLARY + 44;
/// Whether the kernel has removed one (`SKF_AD_VLAN_TAG_PRESENT`).
pub const VLAN_TAG_PRESENT: u32 = ANCILLARY + 48;
/// The protocol of that tag (`SKF_AD_VLAN_TPID`).
pub const VLAN_TPID: u32 = ANCILLARY + 60;

/// The words of the memory (`BPF_MEMWORDS`).
pub const MEMORY_WORDS: u32 = 16;
