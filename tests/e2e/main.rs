//! End-to-end tests: the broker in a process of its own, real sockets, raw clients.
//!
//! Names of tests are sentences about what a client can rely on. Every test starts a broker of its
//! own and is bounded; what the machine lacks is said and counted as skipped.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic is how a test fails; helpers beside the test functions use it too"
)]

mod broker;
mod stranger;
mod in_process;
mod framings;
mod http;
mod websocket;
mod stdio;
mod ordering;
mod panics;
mod cancel;
mod resolve;
mod backpressure;
mod limits;
mod sessions;
mod admin;
mod bad_frames;
mod bad_requests;
mod bad_values;
mod descriptors;
mod datagrams;
mod discover;
mod documentation;
mod names;
mod networks;
mod startup;
mod confinement;
mod credentials;
mod shutdown;
mod service_manager;
mod units;
mod users;
mod policy;
mod policy_files;
mod identity;
mod quotas;
mod held;
mod observe;
mod exhaustion;
mod leaks;
