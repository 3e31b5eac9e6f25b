//! What each fuzz target does with its bytes: it panics where a promise is broken.
//!
//! The programs in `../fuzz_targets` hand these functions what the fuzzer makes up; the test in
//! `tests/corpus.rs` hands them the committed corpora, so that every `cargo test` replays them.

#![forbid(unsafe_code)]
#![expect(clippy::missing_panics_doc, reason = "a panic is what they are for")]

pub mod frame;
pub mod request;
pub mod address;
pub mod ancillary;
pub mod policy;

/// Takes the bytes of one input.
pub type Body = fn(&[u8]);

/// Every target: its name, which is that of its folder in `../corpus`, and what it does.
pub const TARGETS: [(&str, Body); 5] = [
    ("frame", frame::body),
    ("request", request::body),
    ("address", address::body),
    ("ancillary", ancillary::body),
    ("policy", policy::body),
];
