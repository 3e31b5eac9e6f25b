//! The bodies of the fuzz targets. A body panics if the input violates a property.
//!
//! The programs in `../fuzz_targets` call them with the input of the fuzzer. The test in `tests/corpus.rs` calls them
//! with the committed corpora, so that every `cargo test` replays these.

#![forbid(unsafe_code)]
#![expect(clippy::missing_panics_doc, reason = "a panic is what they are for")]
#![expect(missing_docs, reason = "a comment that repeats a name helps no reader of a program")]

pub mod frame;
pub mod request;
pub mod address;
pub mod ancillary;
pub mod policy;
pub mod messages;
pub mod opener;
pub mod granted;
pub mod fake_kernel;
pub mod pcapng;
pub mod channel;

/// A function that checks one input.
pub type Body = fn(&[u8]);

/// Every target: its name, which is also its folder in `../corpus`, and its body.
pub const TARGETS: [(&str, Body); 9] = [
    ("frame", frame::body),
    ("request", request::body),
    ("address", address::body),
    ("ancillary", ancillary::body),
    ("policy", policy::body),
    ("messages", messages::body),
    ("opener", opener::body),
    ("pcapng", pcapng::body),
    ("channel", channel::body),
];
