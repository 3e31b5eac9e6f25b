//! The rules of the project that no compiler holds, as tests.
//!
//! One module a rule; what it allows stands in a table at its top. A rule goes from the tree to a list
//! of faults; each module's own tests show that it finds what it forbids.

#![forbid(unsafe_code)]
#![cfg(test)]

use std::sync::LazyLock;

mod tree;
mod source;
mod text;
mod graph;
mod stages;
mod cycles;
mod permits;
mod code;
mod contract;
mod documents;
mod words;
mod vocabulary;

/// Read once for all rules.
static TREE: LazyLock<tree::Tree> = LazyLock::new(tree::Tree::load);

/// A test for each rule.
macro_rules! rules {
    ($($test:ident: $rule:path;)*) => { $(
        #[test]
        fn $test() {
            assert!(TREE.files.len() > 50, "the tree was not found at {}", TREE.root.display());
            let faults = $rule(&TREE);
            assert!(faults.is_empty(), "{} broken:\n  {}\n", faults.len(), faults.join("\n  "));
        }
    )* };
}

rules! {
    modules_refer_only_to_modules_below_them: stages::check;
    no_file_refers_to_itself_through_others: cycles::check;
    only_the_policy_makes_permits_and_every_operation_takes_one: permits::check;
    files_are_short_and_begin_with_their_purpose: code::files;
    lints_of_the_workspace_hold_everywhere: code::lints;
    protocol_describes_every_method_and_error: contract::catalogue;
    protocol_describes_every_limit_and_a_test_exceeds_it: contract::limits;
    links_have_targets: documents::links;
    the_architecture_document_names_what_exists: documents::architecture;
    nothing_names_one_machine: documents::machine_words;
    documents_messages_and_names_use_plain_words: words::check;
}
