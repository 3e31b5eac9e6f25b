//! The contract of sockbroker: what goes over the wire, and nothing else.
//!
//! [`frame`] is the codec of LSP framing with its two further head fields, [`descriptors`] matches the
//! descriptors of a stream to its frames. The value modules give
//! each kind of value its JSON spelling. [`error`] is the one table of errors. `api` (features
//! `server` and `client`) declares every method once; both halves and `openrpc.json` come from it.
//!
//! There is no I/O here, no tokio and no libc: everything works on bytes and values.
//! `PROTOCOL.md` beside this crate explains the same to someone who does not read Rust.

#![forbid(unsafe_code)]

#[cfg(feature = "api")]
pub mod api;
#[cfg(feature = "server")]
pub mod method;
#[cfg(feature = "api")]
pub mod openrpc;
pub mod frame;
pub mod descriptors;
pub mod ancillary;
pub mod address;
pub mod socket_spec;
pub mod error;
pub mod errno;
pub mod handle;
pub mod bytes;
pub mod constant;

/// The version of the protocol: raised when a client that follows the old one would break.
pub const PROTOCOL_VERSION: u32 = 1;
