//! JSON-RPC 2.0: envelopes, batches, cancellation, calls that wait, errors. This module defines no methods.
//!
//! [`core`] reads messages and starts calls. It looks the methods up in a table that `handlers` builds.

pub mod core;
pub mod methods;
pub mod call;
pub mod error;
pub mod answer;
pub mod encoded;
mod batch;
mod bounds;
mod argument;
mod envelope;
mod waiting;
