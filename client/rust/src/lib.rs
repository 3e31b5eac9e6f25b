//! Sockets of a broker as Rust types.
//!
//! `sockbrokerd` owns real sockets and lends them to programs that may not make them. This crate
//! speaks to it. [`blocking`] needs no runtime, [`asynchronous`] is on tokio (feature `tokio`, on by
//! default); both have the vocabulary of `socket2` and `std::net`. [`Endpoint`] tells how a broker is
//! found, [`Error`] what can go wrong.
//!
//! ```
//! use std::io::{Read, Write};
//! use sockbroker_client::blocking::{Broker, Socket};
//!
//! // A broker of one's own, which ends with this value; `Broker::connect()` finds one that runs.
//! let broker = Broker::spawn()?;
//! let listener = broker.create_server(("127.0.0.1", 0))?;
//! let mut client = broker.create_connection(&listener.local_addr()?)?;
//! let (mut server, _peer) = listener.accept()?;
//!
//! client.write_all(b"hello")?;
//! let mut buffer = [0; 5];
//! server.read_exact(&mut buffer)?;
//! assert_eq!(&buffer, b"hello");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # What is the broker's and what is one's own
//!
//! Host names are looked up by the broker, with its configuration. Paths of `AF_UNIX` are files of
//! its file system. A descriptor that [`blocking::Socket::into_owned_fd`] gives is the real socket:
//! from then on the broker takes no part in it, and nothing is slower than natively.

#![forbid(unsafe_code)]

mod endpoint;
mod error;
mod address;
mod constant;
pub mod option;
mod message;
mod wire;
mod request;
mod operation;
mod face;
pub mod blocking;
#[cfg(feature = "tokio")]
pub mod asynchronous;

pub use address::{Address, PacketAddress};
pub use constant::{Domain, Events, Flags, Protocol, Type};
pub use endpoint::Endpoint;
pub use error::{Attempt, Error, Result};
pub use message::{
    AddressHints, AddressInfo, Ancillary, Attributes, Host, Message, OutgoingAncillary, Polled,
};
pub use sockbroker_proto as proto;
