//! JSON-RPC 2.0 itself: envelopes, batches, cancellation, calls that wait, errors. It knows no method.
//!
//! [`core`] takes messages apart and starts calls; the method table that it looks them up in comes from
//! `handlers`.

pub mod core;
pub mod methods;
pub mod call;
pub mod error;
pub mod answer;
mod batch;
mod bounds;
mod argument;
mod envelope;
mod waiting;
