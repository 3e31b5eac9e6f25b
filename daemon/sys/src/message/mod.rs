//! Sending and receiving on sockets of users: one system call for each function, with the caller's flags.
//!
//! The functions wait only if the descriptor and the flags allow it. The process must ignore `SIGPIPE`, as the
//! runtimes of Rust and CPython do.

mod receive;
mod send;
mod batch;
#[cfg(test)]
mod tests;

pub use batch::{BATCH_MAX, OutgoingMessage, receive_batch, send_batch};
pub use receive::{
    Received, ReceivedFrom, ReceivedMessage, discard, receive, receive_append, receive_from,
    receive_message,
};
pub use send::{send, send_message, send_to};
