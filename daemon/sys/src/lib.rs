//! Every system call and C library call of the broker, behind safe functions.
//!
//! **Here:** sockets, their options, addresses in the kernel's layout, messages with ancillary
//! data, readiness, the resolver, interfaces, filters and a few calls on the process. Functions
//! take [`BorrowedFd`](std::os::fd::BorrowedFd), return [`OwnedFd`](std::os::fd::OwnedFd) (always
//! close-on-exec) and fail with a [`std::io::Error`] that has the kernel's errno.
//!
//! **Not here:** waiting (callers pass `MSG_DONTWAIT` or non-blocking descriptors; only
//! [`resolver`] and [`databases`] block), retries except after `EINTR`, logging, policy, tokio, C
//! libraries other than glibc.
//!
//! **Rules for unsafe code**, which no other crate of the workspace contains:
//! 1. A block contains one operation, with a `SAFETY` proof that names pointers, lengths,
//!    initialisation, lifetime and the owner of descriptors.
//! 2. Calls that nix, socket2 or std make safe go through these crates.
//! 3. No argument of a safe function can make the kernel read or write memory that the call does not
//!    own, read it after the call, or use a descriptor by its number. Therefore the crate refuses
//!    [`option::carries_pointer_or_descriptor`], [`control::carries_pointer_or_descriptor`],
//!    [`RawAddress::names_descriptor`](address::RawAddress::names_descriptor) and
//!    `MSG_ZEROCOPY`.
#![expect(missing_docs, reason = "an item without documentation has no contract beyond its name")]
#![expect(unsafe_code, reason = "this crate makes all system calls; see the rules above")]
#![expect(
    clippy::disallowed_methods,
    reason = "this crate converts descriptor numbers into owned descriptors"
)]

pub mod lot;
pub mod position;
pub mod record;
pub mod service_manager;
pub mod stream;
pub mod interface;
pub mod packet;
pub mod journal;
pub mod ring;
mod mapping;
pub mod ioctl;
pub mod filter;
pub mod unix_file;
pub mod message;
pub mod namespace;
pub mod socket;
pub mod credentials;
pub mod control;
pub mod option;
pub mod databases;
pub mod resolver;
pub mod identity;
pub mod child;
pub mod prompt_close;
pub mod events;
pub mod timer;
pub mod clock;
pub mod sealed;
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
