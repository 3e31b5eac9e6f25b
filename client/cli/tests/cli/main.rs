//! The program from outside: what it prints, what it says when something is wrong, how it ends.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a panic is how a test fails; helpers beside the test functions use it too"
)]

mod program;
mod call;
mod failures;
mod lists;
mod nc;
mod ping;
mod sniff;
mod sniff_end;
mod demo;
mod generate;
mod policy;
mod package;
