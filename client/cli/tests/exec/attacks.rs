//! Programs that deceive the supervisor: they get nothing that the policy does not grant.

use sockbroker_test_support::namespace::inside_with_users;
use sockbroker_test_support::skip::program_or_skip;

use crate::stage::{PORTS, Stage};

/// Runs a part of the attacking program. The policy grants port 84 alone.
fn attack(test: &'static str, part: &'static str) {
    if !program_or_skip("cc", test) {
        return;
    }
    inside_with_users(test, move || {
        let stage = Stage::new(PORTS);
        let program = stage.compile("attacks", include_str!("attacks.c"), &[]);
        for options in [&["--quiet"][..], &["--quiet", "--delay", "3"]] {
            let outcome = stage.run(options, &[program.to_str().unwrap(), part]);
            assert_eq!(outcome.success(), "held\n", "{part} {options:?}");
        }
    });
}

#[test]
fn address_that_changes_while_a_bind_waits() {
    attack("attacks::address_that_changes_while_a_bind_waits", "address");
}

#[test]
fn descriptor_that_is_swapped_while_a_bind_waits() {
    attack("attacks::descriptor_that_is_swapped_while_a_bind_waits", "descriptor");
}

#[test]
fn thread_that_ends_while_its_call_waits() {
    attack("attacks::thread_that_ends_while_its_call_waits", "thread");
}
