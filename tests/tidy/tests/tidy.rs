//! Holds the tree to the rules of the project.

use std::sync::LazyLock;

use sockbroker_tidy::tree::Tree;
use sockbroker_tidy::{Fault, code, contract, cycles, documents, permits, stages, words};

/// Read once for all rules.
static TREE: LazyLock<Tree> = LazyLock::new(Tree::load);

fn hold(rule: fn(&Tree) -> Vec<Fault>) {
    assert!(TREE.files.len() > 50, "the tree was not found at {}", TREE.root.display());
    let faults = rule(&TREE);
    assert!(faults.is_empty(), "{} broken:\n  {}\n", faults.len(), faults.join("\n  "));
}

#[test]
fn modules_refer_only_to_modules_below_them() {
    hold(stages::check);
}

#[test]
fn no_file_refers_to_itself_through_others() {
    hold(cycles::check);
}

#[test]
fn only_the_policy_makes_permits_and_every_operation_takes_one() {
    hold(permits::check);
}

#[test]
fn files_are_short_and_begin_with_their_purpose() {
    hold(code::files);
}

#[test]
fn lints_of_the_workspace_hold_everywhere() {
    hold(code::lints);
}

#[test]
fn protocol_describes_every_method() {
    hold(contract::methods);
}

#[test]
fn protocol_describes_every_error() {
    hold(contract::errors);
}

#[test]
fn protocol_describes_every_limit_and_a_test_exceeds_it() {
    hold(contract::limits);
}

#[test]
fn required_documents_exist() {
    hold(documents::required);
}

#[test]
fn links_have_targets() {
    hold(documents::links);
}

#[test]
fn the_architecture_document_names_what_exists() {
    hold(documents::architecture);
}

#[test]
fn the_readme_has_the_command_that_runs_the_tests() {
    hold(documents::test_command);
}

#[test]
fn nothing_names_one_machine() {
    hold(documents::machine_words);
}

#[test]
fn documents_messages_and_names_use_plain_words() {
    hold(words::check);
}
