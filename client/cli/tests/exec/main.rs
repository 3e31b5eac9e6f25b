//! Runs unmodified programs with `sockbroker exec`, as a user without privileges, against a broker of root.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a panic is how a test fails; helpers outside of test functions do the same"
)]

mod stage;
mod programs;
mod calls;
mod face;
mod signals;
mod ends;
mod states;
mod networks;
mod attacks;
