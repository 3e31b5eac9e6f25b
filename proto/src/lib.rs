//! The contract of sockbroker: the messages of the protocol, and nothing else.
//!
//! [`frame`] is the codec of LSP framing with two further header fields, [`descriptors`] assigns the
//! descriptors of a stream to its frames, and [`channel`] is the codec of channels. The value modules define the JSON form of each kind of value.
//! [`error`] is the table of errors. `api` (features
//! `server` and `client`) declares every method once; server, client and `openrpc.json` are generated from it.
//!
//! The crate does no I/O and uses neither tokio nor libc: everything works on bytes and values.
//! `PROTOCOL.md` in the folder of this crate describes the protocol to readers who do not read Rust.

#![forbid(unsafe_code)]

#[cfg(feature = "api")]
pub mod api;
#[cfg(feature = "server")]
pub mod method;
#[cfg(feature = "api")]
pub mod openrpc;
pub mod frame;
pub mod descriptors;
pub mod channel;
pub mod ancillary;
pub mod address;
pub mod socket_spec;
pub mod error;
pub mod errno;
pub mod handle;
pub mod bytes;
pub mod constant;

/// The version of the protocol: it increases when a client that follows the old one would break.
pub const PROTOCOL_VERSION: u32 = 1;
