//! Calls on `AF_UNIX` sockets, and on their files, with the ids of a caller.
//!
//! The kernel checks paths by the ids of the process that makes the call, and shows these ids to the peer. A worker has
//! other ids than its caller, and no capability to change them. The monitor starts a process that takes the ids of the
//! caller permanently, and that makes the calls which the worker sends ([`serve()`]). It reads no byte of a client's
//! protocol. A broker of one process makes the same calls in threads ([`perform()`]).

mod serve;
mod perform;
mod files;
mod mounts;
mod large;
mod shared;
pub mod message;

pub use large::{Packed, pack_call, unpack_answer};
pub use perform::perform;
pub use serve::{Beginning, RunError, begin, serve};
pub use shared::SharedWriter;

#[cfg(test)]
mod tests;
