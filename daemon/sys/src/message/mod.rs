//! Sending and receiving on user sockets: one call of the kernel each, all flags the caller's.
//!
//! Nothing here waits unless the descriptor and the flags say so. The process must ignore `SIGPIPE`, as Rust's
//! and CPython's do from their start.

mod receive;
mod send;
mod batch;
#[cfg(test)]
mod tests;

pub use batch::{BATCH_MAX, OutgoingMessage, receive_batch, send_batch};
pub use receive::{
    Received, ReceivedFrom, ReceivedMessage, receive, receive_append, receive_from, receive_message,
};
pub use send::{send, send_message, send_to};
