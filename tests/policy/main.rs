//! Compares the decisions of the broker with a simple model of the rule language, for every method and random rules.
//!
//! The model lists the grants that each method requires, and evaluates rules in the simplest way. The broker must
//! refuse exactly the calls that the model refuses: no call reaches the kernel without a rule that allows it, and
//! no rule is ignored.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a test fails; helpers outside of test functions do the same"
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

/// The number of cases in one run.
const CASES: usize = 100_000;
/// The number of cases that share sockets. It is small, so that the effects of calls do not accumulate.
const CASES_OF_A_FIXTURE: usize = 100;

/// The number of cases under the same rules.
const CASES_OF_RULES: usize = 8;

/// Runs cases from a seed. The message of a failure has the seed and the case, to reproduce it.
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
        let expected = rules.verdict(&fixture.subject, &call.required);
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
                call.required
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
        fixture.close_created(&answer).await;
        if call.spoils && denied.is_none() {
            fixture = Fixture::new(&mut dice).await;
        }
    }
    (allowed, refused)
}

#[test]
fn broker_refuses_exactly_what_no_rule_allows() {
    // Only a broker of root can act as the random users of the cases.
    if !root_or_skip("broker_refuses_exactly_what_no_rule_allows") {
        return;
    }
    bounded(300, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (allowed, refused) = runtime.block_on(run(0x5eed_50c7, CASES));
        runtime.shutdown_timeout(Duration::from_secs(5));
        // Both decisions must occur often, otherwise the cases test little.
        assert!(
            allowed > CASES / 10 && refused > CASES / 10,
            "{allowed} allowed, {refused} refused"
        );
    });
}

#[test]
fn model_covers_every_method_of_the_contract() {
    let methods = sockbrokerd::handlers::methods();
    let contract: BTreeSet<_> = methods.names().collect();
    let table: BTreeSet<_> = table::METHODS.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        table, contract,
        "what must be granted for a method belongs into tests/policy/table.rs"
    );
}
