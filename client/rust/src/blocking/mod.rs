//! The blocking face: it needs no runtime, and a call waits in its thread.
//!
//! # Threads
//!
//! Threads may share a [`Broker`] and a [`Socket`], as they may share a descriptor. Each call in progress
//! has its own connection of the same session, up to 64 of them. A private broker has one connection,
//! which all threads share.
//!
//! # Limiting and cancelling calls
//!
//! [`Socket::set_timeout`] limits a wait in the broker. [`Broker::set_call_timeout`] limits every call. A
//! [`CancellationToken`] cancels calls from another thread.

mod connection;
mod waiting;
mod first_call;
pub(crate) mod attach;
pub(crate) mod recovery;
mod pool;
mod persistent;
mod cancellation;
mod broker;
mod socket;
mod stream;
mod capture;
// The calls that both faces have. tests/mirror.rs keeps these files the same in both.
mod broker_calls;
mod delegation;
mod names;
mod namespace;
mod socket_calls;
mod options;

pub use broker::Broker;
pub use cancellation::CancellationToken;
pub use capture::{Capture, CaptureStream};
pub use namespace::Namespace;
pub use socket::Socket;
