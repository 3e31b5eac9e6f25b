//! The bodies of the fuzz targets. A body panics if the input violates a property.
//!
//! The programs in `../fuzz_targets` call them with the input of the fuzzer. The test in `tests/corpus.rs` calls them
//! with the committed corpora, so that every `cargo test` replays these.

#![forbid(unsafe_code)]
#![expect(clippy::missing_panics_doc, reason = "a panic is what they are for")]

pub mod frame;
pub mod request;
pub mod address;
pub mod ancillary;
pub mod policy;

/// A function that checks one input.
pub type Body = fn(&[u8]);

/// Every target: its name, which is also its folder in `../corpus`, and its body.
pub const TARGETS: [(&str, Body); 5] = [
    ("frame", frame::body),
    ("request", request::body),
    ("address", address::body),
    ("ancillary", ancillary::body),
    ("policy", policy::body),
];
