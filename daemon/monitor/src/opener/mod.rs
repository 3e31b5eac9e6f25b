//! The opener: makes the system calls that need a capability, for workers that have none.
//!
//! One thread. A worker names the connection of the client for whom it asks. The opener knows from the monitor which
//! connections a worker has, determines the subject by itself, and judges the request by its own copy of the policy.
//! What it judges about a socket comes from the kernel. The files are listed from the top.

mod run;
pub mod fuzzing;
mod answer;
mod calls;
mod judge_message;
mod judge;
mod workers;
mod refusals;
mod rcvall;
mod host;

pub use host::Host;
pub use rcvall::{nothing, open as open_rcvall, serves as serves_rcvall};
pub use run::{RunError, run};

#[cfg(test)]
mod tests;
