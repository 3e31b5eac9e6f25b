//! The rules of the project that no compiler holds: functions from the tree to a list of faults.
//!
//! One module a rule; what it allows stands in a table at its top. `tests/tidy.rs` applies them to the
//! tree, and each module's own tests show that its rule finds what it forbids.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "a panic is how a test fails")]

pub mod tree;
pub mod source;
pub mod text;
pub mod graph;
pub mod stages;
pub mod cycles;
pub mod permits;
pub mod code;
pub mod contract;
pub mod documents;
pub mod words;
pub mod vocabulary;

/// A broken rule: where, what is wrong, and what to do.
pub type Fault = String;
