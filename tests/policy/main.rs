//! Every method of the contract under random policies, against a naive reading of the rules.
//!
//! The model knows for each method what must be granted for it, and reads rules in the slowest and
//! plainest way. The broker must refuse exactly where the model does: nothing reaches the kernel
//! without a rule that allows it, and no rule is overlooked.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails; helpers beside the test functions use it too"
)]

mod dice;
mod model;
mod fixture;
mod table;

use std::collections::BTreeSet;
use std::time::Duration;

use sockbroker_test_support::bounded;
use sockbroker_test_support::skip::root_or_skip;

use dice::Dice;
use fixture::Fixture;
use model::Rules;

/// Cases of one run.
const CASES: usize = 100_000;
/// Cases that share sockets: what a call does to them must not pile up.
const CASES_OF_A_FIXTURE: usize = 100;

/// Cases under the same rules.
const CASES_OF_RULES: usize = 8;

/// Runs cases from a seed; the message of a failure has what is needed to run it again.
async fn run(seed: u64, cases: usize) -> (usize, usize) {
    let mut dice = Dice::new(seed);
    let (mut allowed, mut refused) = (0, 0);
    let mut fixture = Fixture::new(&mut dice).await;
    let mut rules = Rules::random(&mut dice, &fixture.subject);
    for case in 0..cases {
        if case % CASES_OF_A_FIXTURE == 0 {
            fixture = Fixture::new(&mut dice).await;
        }
        if case % CASES_OF_RULES == 0 {
            rules = Rules::random(&mut dice, &fixture.subject);
        }
        let call = table::random(&mut dice, &fixture);
        let expected = rules.verdict(&fixture.subject, &call.asks);
        fixture.rule(&rules);
        let answer = fixture.call(call.method, &call.params, call.descriptor).await;
        let denied = answer.denial();
        let context = || {
            format!(
                "seed {seed}, case {case}: {} {}\nas {:?}\nunder\n{}\nasks {:#?}\nanswers {answer:?}",
                call.method,
                call.params,
                fixture.subject,
                rules.text(),
                call.asks
            )
        };
        match (&expected, &denied) {
            (None, None) => allowed += 1,
            (Some(refusal), Some(denial)) => {
                refused += 1;
                assert_eq!((&refusal.verb, &refusal.rule), (&denial.0, &denial.1), "{}", context());
            }
            (Some(refusal), None) => panic!("granted without a rule, {refusal:?}: {}", context()),
            (None, Some(denial)) => panic!("refused in spite of a rule, {denial:?}: {}", context()),
        }
        fixture.tidy(&answer).await;
        if call.spoils && denied.is_none() {
            fixture = Fixture::new(&mut dice).await;
        }
    }
    (allowed, refused)
}

#[test]
fn the_broker_refuses_exactly_what_no_rule_allows() {
    // Only root's broker can act as the random users of the cases.
    if !root_or_skip("the_broker_refuses_exactly_what_no_rule_allows") {
        return;
    }
    bounded(300, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (allowed, refused) = runtime.block_on(run(0x5eed_50c7, CASES));
        runtime.shutdown_timeout(Duration::from_secs(5));
        // Both sides were seen often, or the cases say little.
        assert!(
            allowed > CASES / 10 && refused > CASES / 10,
            "{allowed} allowed, {refused} refused"
        );
    });
}

#[test]
fn every_method_of_the_contract_is_in_the_model() {
    let methods = sockbrokerd::handlers::methods();
    let contract: BTreeSet<_> = methods.names().collect();
    let table: BTreeSet<_> = table::METHODS.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        table, contract,
        "what must be granted for a method belongs into tests/policy/table.rs"
    );
}
