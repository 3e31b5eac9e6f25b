//! The harness of the tests: a broker of one's own, raw clients for every spelling, namespaces, and
//! waits that end.
//!
//! Everything here panics where a test is to fail, and nothing waits without a bound. The clients
//! are raw on purpose: they can send what no client library would.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a panic is how a harness makes its test fail"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "no event loop is held up here by a thread that sleeps"
)]

mod running;
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
pub mod stdio;
pub mod user;
pub mod mount;
#[cfg(target_arch = "x86_64")]
pub mod intruder;
pub mod journal;

pub use daemon::{Daemon, Start};
pub use folder::Folder;
pub use http::HttpClient;
pub use lsp::LspClient;
pub use message::{Answer, Client, Fault, base64, unbase64};
pub use ndjson::NdjsonClient;
pub use stdio::StdioDaemon;
pub use user::User;
pub use watch::{HANG, bounded, happens_within, pause, until};
pub use websocket::WebSocketClient;
