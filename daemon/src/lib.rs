//! The broker: owns real sockets behind handles and serves Python's `socket` module over JSON-RPC.
//!
//! The modules stand in the order of reference: each is a stage and refers only to stages below it. The
//! crates `sockbroker_policy` and `sockbroker_sys` lie below all of them. `ARCHITECTURE.md` follows one
//! request through the stages.

#![forbid(unsafe_code)]
#![expect(missing_docs, reason = "a comment that repeats a name helps no reader of a program")]

pub mod startup;
pub mod fuzzing;
pub mod transport;
pub mod handlers;
pub mod rpc;
pub mod session;
pub mod ops;
pub mod network;
pub mod table;
pub mod quota;
pub mod config;
pub mod observe;
pub mod principal;
pub mod error;
