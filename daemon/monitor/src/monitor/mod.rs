//! The monitor: accepts connections, identifies their peers, and passes each to the worker of its principal.
//!
//! One thread, which never waits for a client, a worker or a file. A descriptor that came from outside is
//! closed by the reaper. The files are listed from the top.

mod run;
mod connections;
mod answers;
mod reload;
mod opening;
mod gateway;
mod query;
mod waiting;
mod persist;
mod state;
mod arrivals;
mod claims;
mod policies;
mod ended;
mod starts;
mod queries;
mod counters;
mod callers;
mod readers;
mod gateway_link;
mod remote;
mod worker;
mod worker_ids;
mod keep;
mod store;
mod opener_link;
mod host;

pub use gateway_link::RemoteSettings;
pub use host::{Host, Limits, Refusal, Settings};
pub use opener_link::{OpenerLink, start_opener};
pub use policies::{PolicyFiles, ReadPolicy, read as read_policy};
pub use state::Monitor;
