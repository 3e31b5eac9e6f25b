//! Compiles the filter expressions of tcpdump (`pcap-filter(7)`) to classic BPF.
//!
//! libpcap is loaded at run time: a program with this crate starts on a machine without it. If it is not installed,
//! `tcpdump -ddd` compiles, and without tcpdump the error states what to install. The compiler looks up the names of hosts
//! and services, so it belongs in the process of the client, and can wait for a name server.
//!
//! An expression with the word `vlan` selects the packets that it selects in a capture file: the program is adapted to
//! how the kernel keeps VLAN tags ([`tags_in_metadata`]). Any other
//! expression selects what tcpdump selects, except that libpcap refuses `ip broadcast` without a netmask, which
//! `tcpdump -ddd` assumes to be 0.

#![expect(unsafe_code, reason = "libpcap is a C library that is loaded at run time")]

mod compiler;
mod any_link;
mod tcpdump;
mod library;
mod error;
mod link_layer;

pub use compiler::Compiler;
pub use error::{FilterError, MAX_EXPRESSION_BYTES};
pub use link_layer::LinkLayer;
pub use sockbroker_bpf::{Instruction, Program, opcode, tags_in_metadata};
