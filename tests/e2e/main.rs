//! End-to-end tests: the broker as a process, real sockets, raw clients.
//!
//! The name of a test states a behaviour that a client can rely on. Every test starts its own broker and has a
//! bounded run time. A test that the machine cannot run is reported and counted as skipped.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic is how a test fails; helpers outside of test functions do the same"
)]

mod broker;
mod other_user;
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
mod admission;
mod sessions;
mod admin;
mod bad_frames;
mod bad_requests;
mod bad_values;
mod descriptors;
mod delegation;
mod relays;
mod closing;
mod crashes;
mod datagrams;
mod discover;
mod documentation;
mod names;
mod networks;
mod remote;
mod captures;
mod capture_records;
mod replay;
mod channels;
mod channel_limits;
mod channel_ends;
mod channel_pieces;
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
mod accounting;
mod observe;
mod exhaustion;
mod leaks;
