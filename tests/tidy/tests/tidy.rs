//! Holds the tree to the rules of the project.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::LazyLock;

use sockbroker_tidy::tree::Tree;
use sockbroker_tidy::{Fault, code, contract, documents, layers, permits};

/// Read once for all rules.
static TREE: LazyLock<Tree> = LazyLock::new(|| Tree::load().unwrap());

fn hold(rule: fn(&Tree) -> Vec<Fault>) {
    assert!(TREE.files.len() > 50, "the tree was not found at {}", TREE.root.display());
    let faults = rule(&TREE);
    assert!(faults.is_empty(), "{} broken:\n  {}\n", faults.len(), faults.join("\n  "));
}

#[test]
fn every_layer_knows_only_what_it_may() {
    hold(layers::check);
}

#[test]
fn only_the_policy_makes_permits_and_every_operation_takes_one() {
    hold(permits::check);
}

#[test]
fn unsafe_code_is_in_one_crate_and_proven() {
    hold(code::unsafe_code);
}

#[test]
fn files_can_be_read_in_one_go() {
    hold(code::sizes);
}

#[test]
fn every_source_begins_by_saying_what_it_is_for() {
    hold(code::first_lines);
}

#[test]
fn no_leftovers_are_in_the_sources() {
    hold(code::leftovers);
}

#[test]
fn every_method_is_described() {
    hold(contract::methods);
}

#[test]
fn every_error_is_described() {
    hold(contract::errors);
}

#[test]
fn every_limit_is_described_and_crossed_by_a_test() {
    hold(contract::limits);
}

#[test]
fn the_documents_are_there() {
    hold(documents::required);
}

#[test]
fn links_lead_somewhere() {
    hold(documents::links);
}

#[test]
fn the_architecture_document_names_what_exists() {
    hold(documents::architecture);
}

#[test]
fn the_readme_tells_how_to_run_the_tests() {
    hold(documents::test_command);
}

#[test]
fn nothing_speaks_of_one_machine() {
    hold(documents::machine_words);
}
