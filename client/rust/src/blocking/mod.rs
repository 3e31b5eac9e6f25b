//! The blocking face: no runtime, one thread a call, as many threads as one likes.
//!
//! # Threads
//!
//! A [`Broker`] and a [`Socket`] may be shared by threads, as descriptors are. Each call in progress
//! has a connection of its own in the same session, up to 64 of them; a private broker has one, which
//! all threads share.
//!
//! # Giving up
//!
//! [`Socket::set_timeout`] limits a wait in the broker, [`Broker::set_call_timeout`] any call at all,
//! and a [`Cancel`] ends calls from another thread.

mod calls;
mod connection;
mod waiting;
mod pool;
mod broker;
mod open;
mod cancel;
mod socket;
mod transfer;

pub use broker::Broker;
pub use cancel::Cancel;
pub use socket::Socket;
