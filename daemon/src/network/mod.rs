//! The network that sockets are created in: creating them, listing its interfaces, resolving names.

pub mod open;
pub mod interface;
pub mod resolve;
pub mod caller_identity;
pub(crate) mod rcvall;
