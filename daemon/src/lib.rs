//! The broker. It owns sockets, and serves the functions of Python's `socket` module on them over JSON-RPC.
//!
//! Each module is a stage. The stages are listed from the top: each refers only to those below it. The crates
//! `sockbroker_policy` and `sockbroker_sys` are below all stages. `ARCHITECTURE.md` follows one request
//! through the stages.

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
pub mod descriptor;
pub mod quota;
pub mod config;
pub mod observe;
pub mod principal;
pub mod error;
