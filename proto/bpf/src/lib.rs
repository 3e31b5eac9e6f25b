//! Classic BPF programs (`Documentation/networking/filter.rst` of Linux), which select packets of a socket.
//!
//! | step | where |
//! |---|---|
//! | bytes become a program, and a program becomes bytes | [`Program::decode`], [`Program::encode`] |
//! | a program is checked as the kernel checks it | [`Program::check`] |
//! | a program with labels becomes one with offsets | [`Assembler`] |
//! | a packet of a file is selected by a program | [`Program::selects`] |
//! | a program for frames with VLAN tags is adapted to how the kernel keeps tags | [`tags_in_metadata`] |

#![forbid(unsafe_code)]

mod vlan;
mod assembler;
mod check;
mod run;
mod program;
pub mod opcode;

pub use assembler::{Assembler, Label};
pub use check::CheckError;
pub use program::{DecodeError, Instruction, MAX_INSTRUCTIONS, Program};
pub use vlan::{VlanError, tags_in_metadata};
