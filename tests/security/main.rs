//! Attacks: an unprivileged user against a broker of root that grants it a little.
//!
//! Every attack runs in namespaces of its own, by a connection of a user that has nothing but what
//! the policy of [`arena`] grants. It must fail with the error that names rule and grant, and nothing
//! must have happened: who would have been the victim looks.

#![expect(
    clippy::unwrap_used,
    reason = "a panic is how a test fails; helpers beside the test functions use it too"
)]

/// A test in an arena of its own.
macro_rules! attack {
    ($name:ident, $arena:pat, $body:block) => {
        #[test]
        fn $name() {
            let test = concat!(module_path!(), "::", stringify!($name));
            crate::arena::run(test, |$arena| $body);
        }
    };
}

mod arena;
mod unix;
mod handles;
mod network;
mod options;
mod host;
mod web;
mod quotas;
mod startup;
mod roles;
mod ended;
mod inputs;
