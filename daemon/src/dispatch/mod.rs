//! Stage 3: method name to typed call to typed answer.
//!
//! [`core`] takes messages apart and starts calls; the files named like those of `proto/src/api`
//! implement its traits. A handler asks the policy, looks the handle up, runs one operation and spells
//! the result: no decisions, no system calls.

pub mod core;
pub mod methods;
pub mod metrics;
mod answer;
mod batch;
mod address;
mod call;
mod audit;
mod contents;
mod permit;
mod envelope;
mod first;
mod error;
mod number;
mod params;
mod bounds;
mod argument;
mod waiting;
mod socket;
mod creation;
mod poll;
mod transfer;
mod messages;
mod cipher;
mod option;
mod name;
mod interface;
mod convert;
mod session;
mod admin;
mod policy;
mod broker;

pub use call::{Beside, Enclosed};

/// Implements every trait of the contract; all state is in the call's context.
#[derive(Debug, Clone, Copy)]
pub struct Handlers;
