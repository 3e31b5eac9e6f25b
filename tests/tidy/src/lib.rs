//! The rules of the project that no compiler holds: functions from the tree to a list of faults.
//!
//! One module a theme; what a rule allows stands in a table at its top. `tests/tidy.rs` holds the
//! tree to them, each module's own tests show that its rules fire. A fault says what to do.

#![forbid(unsafe_code)]

pub mod tree;
pub mod tokens;
pub mod paths;
pub mod layers;
pub mod permits;
pub mod code;
pub mod contract;
pub mod documents;

/// A broken rule: where, what is wrong, and what to do.
pub type Fault = String;
