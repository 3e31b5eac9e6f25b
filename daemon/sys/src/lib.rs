//! The kernel: every system call and C library call of the broker, behind safe functions.
//!
//! **Here:** sockets, their options, addresses as the kernel lays them out, messages with ancillary
//! data, readiness, the resolver, interfaces, filters and a few calls on the process. Functions
//! take [`BorrowedFd`](std::os::fd::BorrowedFd), give [`OwnedFd`](std::os::fd::OwnedFd) (always
//! close-on-exec) and return [`std::io::Result`] with the kernel's errno.
//!
//! **Not here:** waiting (callers pass `MSG_DONTWAIT` or non-blocking descriptors; only
//! [`resolver`] and [`databases`] block), retries beyond `EINTR`, logging, policy, tokio, other C
//! libraries than glibc.
//!
//! **Rules for unsafe code**, which no other crate of the workspace may have:
//! 1. one operation a block, with a `SAFETY` proof that names pointers, lengths, initialisation,
//!    lifetime and the owner of descriptors;
//! 2. a call that nix, socket2 or std already make safe is not made by hand;
//! 3. nothing a caller can say in safe code may make the kernel read or write memory the call does
//!    not own, keep reading it afterwards, or use a descriptor by its number: hence the refusals in
//!    [`option::carries_pointer_or_descriptor`], [`control::carries_pointer_or_descriptor`],
//!    [`RawAddress::names_descriptor`](address::RawAddress::names_descriptor) and of
//!    `MSG_ZEROCOPY`.
#![expect(unsafe_code, reason = "this crate is where the kernel is called; see the rules above")]
#![expect(clippy::disallowed_methods, reason = "descriptor numbers and their ownership end here")]

pub mod stream;
pub mod interface;
pub mod packet;
pub mod ioctl;
pub mod filter;
pub mod unix_file;
pub mod message;
pub mod namespace;
pub mod socket;
pub mod control;
pub mod option;
pub mod databases;
pub mod resolver;
pub mod identity;
pub mod peer;
pub mod poll;
pub mod process;
pub mod file;
pub mod capability;
pub mod privileges;
pub mod refused;
pub mod activation;
pub mod accounts;
pub mod host;
pub mod address;
mod call;
#[cfg(test)]
mod testing;
