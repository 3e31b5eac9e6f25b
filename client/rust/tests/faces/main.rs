//! Both faces against the real broker.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod setup;
mod endpoints;
mod streams;
mod datagrams;
mod options;
mod descriptors;
mod threads;
mod dropping;
mod names;
mod namespaces;
mod packets;
mod examples;
