//! Sockets of a broker as Rust types.
//!
//! `sockbrokerd` owns network sockets and lends them to programs that are not allowed to create them.
//! This crate connects to it. [`blocking`] needs no runtime; [`asynchronous`] runs on tokio (feature
//! `tokio`, on by default). Both use the vocabulary of `socket2` and `std::net`. [`Endpoint`] describes
//! how a broker is found, [`Error`] why a call fails.
//!
//! ```
//! use std::io::{Read, Write};
//! use sockbroker_client::blocking::{Broker, Socket};
//!
//! // A private broker, which ends with this value. `Broker::connect()` finds one that is running.
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
//! # Network namespaces
//!
//! Sockets and names are those of the broker's network. [`blocking::Broker::namespace`] is for the network namespace of
//! this process and for others, which [`Netns`] selects.
//!
//! # The broker's side and the caller's side
//!
//! The broker resolves host names, with its own configuration. Paths of `AF_UNIX` are files of this
//! process, see [`Address`]. [`blocking::Socket::into_owned_fd`] passes the real socket to this process:
//! from then on the broker takes no part in it, and it is as fast as a native socket.
//!
//! # Restarts of the broker
//!
//! With [`Config::persist`] the sockets of a [`blocking::Broker`] or `asynchronous::Broker` outlive a crash, a restart and an
//! upgrade of the broker, and calls that wait go on waiting. [`Error::Interrupted`] reports a call whose effect is not known.

#![forbid(unsafe_code)]

mod lock;
mod call_timeout;
mod ssh_target;
mod tls_target;
mod endpoint;
mod config;
mod error;
mod discovery;
mod host_files;
mod constant;
mod address;
mod netns;
pub mod option;
mod values;
mod capture;
mod wire;
mod dialer;
mod request;
mod operation;
mod recovery;
pub mod blocking;
#[cfg(feature = "tokio")]
pub mod asynchronous;

pub use address::{Address, PacketAddress};
pub use capture::{CaptureRequest, CapturedPacket};
pub use config::Config;
pub use constant::{Domain, Events, Flags, Protocol, Type};
pub use dialer::Dialer;
pub use discovery::Origin;
pub use endpoint::Endpoint;
pub use error::{Attempt, Error, Result};
pub use netns::Netns;
pub use sockbroker_proto as proto;
pub use ssh_target::SshTarget;
pub use tls_target::TlsTarget;
pub use values::{
    AddressHints, AddressInfo, Ancillary, Host, Message, OutgoingAncillary, Polled, SocketSpec,
};
