//! Runs an unmodified program, to which the broker gives the sockets that the kernel refuses.
//!
//! Three processes (`ARCHITECTURE.md`, "The launcher"):
//!
//! ```text
//! launcher ── supervisor ── program
//! ```
//!
//! The program runs under a seccomp filter (`filter`) that reports a few calls to the supervisor. The supervisor
//! makes each call natively, and asks the broker if the kernel refuses it for lack of a privilege. It has the rights of
//! the user and nothing else: a program that deceives it gets what the policy grants the user. The launcher is the
//! process that the shell knows, and behaves as the program does.

mod kernel;
mod filter;
mod decision;
mod refusal;
mod remote;
mod in_progress;
mod jobs;
mod channel;
mod delegation;
mod answer;
mod supervisor;
mod takeover;
mod namespaces;
mod launcher;

pub use kernel::inherited::Inherited;
pub use launcher::{Ended, LaunchError, Plan, execute, run};
pub use refusal::Output;
