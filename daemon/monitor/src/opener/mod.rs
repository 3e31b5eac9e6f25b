//! The opener: makes the system calls that need a capability, for workers that have none.
//!
//! The main thread follows the monitor. Two threads serve each worker, one for each of its channels: what takes long for
//! one worker delays no other, and on the channel for slow requests not even its own prompt ones.
//!
//! A worker names the connection of the client for whom it asks. The opener knows from the monitor which connections a
//! worker has, determines the subject by itself, and judges the request by its own copy of the policy. What it judges
//! about a socket comes from the kernel. The files are listed from the top.

mod run;
mod serve;
mod shared;
mod captures;
pub mod fuzzing;
mod answer;
mod calls;
mod judge_message;
mod judge;
mod other_namespace;
mod namespaces;
mod workers;
mod refusals;
mod rcvall;
mod host;

pub use host::{CaptureLimits, Host};
pub use namespaces::{
    Found, Namespaces, Selected, TO_ENTER_NETWORKS, can_enter_networks, interfaces_in, open_in,
};
pub use rcvall::{open as open_rcvall, serves as serves_rcvall};
pub use run::run;
pub use shared::RunError;

#[cfg(test)]
mod tests;
