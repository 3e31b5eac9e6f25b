//! The blocking face: no runtime, one thread a call, as many threads as one likes.

mod calls;
mod connection;
mod waiting;
mod pool;
mod broker;
mod open;
mod socket;
mod transfer;

pub use broker::Broker;
pub use socket::Socket;
