//! The reader: the captures of one principal, in a process that has no capability and parses nothing of a client.
//!
//! The monitor starts it at the first capture of a worker. The opener passes it the sockets, which a worker never gets. It
//! ends when the worker closes its channel.

mod serve;
pub mod message;

pub use serve::{Beginning, RunError, begin, serve};

#[cfg(test)]
mod tests;
