//! The gateway: the process of the broker that serves clients on other machines.
//!
//! It terminates TLS, authenticates clients by certificate or token, and passes one end of a socket pair for each
//! connection to the monitor, which gives it to the worker of the principal. Then it copies bytes, and does not
//! understand them: it reads the head of the first message, and nothing else.
//! A taken-over gateway is every remote principal, and no local one.
//!
//! The modules are listed from the top.

#![forbid(unsafe_code)]
#![expect(missing_docs, reason = "a comment that repeats a name helps no reader of a program")]

pub mod serve;
mod connection;
mod worker_end;
mod establish;
mod live;
mod known;
mod refusal;
mod head;
pub mod authority;
pub mod tokens;
mod names;
pub mod settings;
