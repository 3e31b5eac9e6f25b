//! The broker: owns real sockets behind handles and serves Python's `socket` module over JSON-RPC.
//!
//! The modules stand in the order in which a request meets them; each is a stage, and none refers to
//! one above it. `ARCHITECTURE.md` follows one request through all of them.

#![forbid(unsafe_code)]

pub mod startup;
pub mod config;
pub mod observe;
pub mod transport;
pub mod session;
pub mod dispatch;
pub mod table;
pub mod ops;
mod readiness;
pub mod fuzzing;
