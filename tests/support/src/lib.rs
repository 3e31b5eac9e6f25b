//! Test support: starts brokers, connects raw clients for every protocol, enters namespaces, and bounds waits.
//!
//! A function panics to fail its test, and no wait is unbounded. The clients are raw, so that they can send
//! invalid messages.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a panic fails the test"
)]
#![expect(
    missing_docs,
    reason = "only tests of this project use the crate: comments document contracts, not names"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "no event loop runs here that a sleeping thread could block"
)]

mod processes;
mod running;
pub mod counts;
pub mod watch;
pub mod program;
pub mod skip;
pub mod folder;
pub mod binary;
pub mod attempt;
pub mod namespace;
pub mod daemon;
pub mod message;
pub mod wire;
pub mod lsp;
pub mod ndjson;
pub mod http;
pub mod websocket;
pub mod channel;
pub mod stdio;
pub mod sshd;
pub mod user;
pub mod mount;
#[cfg(target_arch = "x86_64")]
pub mod injection;
pub mod journal;
pub mod bpf;
pub mod kernel_bpf;

pub use daemon::{Daemon, Start};
pub use folder::Folder;
pub use http::HttpClient;
pub use lsp::LspClient;
pub use message::{Answer, Client, Fault, base64, unbase64};
pub use ndjson::NdjsonClient;
pub use sshd::Sshd;
pub use stdio::StdioDaemon;
pub use user::User;
pub use watch::{HANG, bounded, happens_within, pause, until};
pub use websocket::WebSocketClient;
