//! Stage 1: bytes to messages, and who is at the other end.
//!
//! [`server`] accepts connections and finds out how each is spelt. `codec` turns bytes into messages
//! and answers into bytes, `stream` moves them, `connection` is the one loop around both. `http`
//! serves POST through `hyper` and hands `WebSockets` to the same loop.

pub mod server;
pub mod shutdown;
pub mod peer;
mod codec;
mod connection;
mod deadline;
mod end;
mod http;
mod outgoing;
mod part_share;
mod stalling;
mod stream;
