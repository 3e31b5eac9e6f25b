//! Attacks of an unprivileged user on a broker of root whose policy grants it little.
//!
//! Every attack runs in new namespaces, on a connection of a user who has only the grants of the policy in
//! [`arena`]. It must fail with the error that names the rule and the grant, and it must have no effect: the test
//! checks the victim.

#![expect(
    clippy::unwrap_used,
    reason = "a panic is how a test fails; helpers outside of test functions do the same"
)]

/// Defines a test that runs in a new arena.
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
mod namespaces;
mod capture_scopes;
mod opener;
mod options;
mod host;
mod web;
mod quotas;
mod accounts;
mod workers;
mod worker_ids;
mod endurance;
mod caller;
mod startup;
mod roles;
mod ended_process;
mod inputs;
