//! Both faces against a broker that violates the protocol: an error within the deadline, never a hang, a
//! panic or a leaked descriptor.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod fake_broker;
mod setup;
mod faults;
mod descriptor_limit;
