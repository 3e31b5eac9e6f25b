//! Completions and manual pages.

use std::fs;

use sockbroker_test_support::{Folder, bounded};

use crate::program::run;

const SUBCOMMANDS: [&str; 12] = [
    "call",
    "discover",
    "info",
    "handles",
    "sessions",
    "nc",
    "ping",
    "sniff",
    "demo",
    "policy",
    "completions",
    "man",
];

#[test]
fn every_shell_can_complete_every_subcommand() {
    bounded(30, || {
        for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
            let script = run(&["completions", shell]).done();
            for word in SUBCOMMANDS.iter().chain(&["private", "snaplen"]) {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    });
}

#[test]
fn there_is_a_page_for_the_program_and_for_each_subcommand() {
    bounded(30, || {
        let folder = Folder::new();
        let place = folder.join("pages");
        run(&["man", "--folder", place.to_str().unwrap()]).done();
        let mut pages: Vec<_> = fs::read_dir(&place)
            .unwrap()
            .map(|page| page.unwrap().file_name().into_string().unwrap())
            .collect();
        pages.sort();
        let names = SUBCOMMANDS.iter().chain(&["policy-check", "policy-explain"]);
        let mut expected: Vec<_> = names.map(|name| format!("sockbroker-{name}.1")).collect();
        expected.push("sockbroker.1".to_owned());
        expected.sort();
        assert_eq!(pages, expected);
        for name in &expected {
            let page = fs::read_to_string(place.join(name)).unwrap();
            for part in [".TH ", ".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS"] {
                assert!(page.contains(part), "{part} in {name}: {page}");
            }
        }
        let page = run(&["man"]).done();
        assert_eq!(page, fs::read_to_string(place.join("sockbroker.1")).unwrap());
        assert!(page.contains(".SH EXIT CODES") && page.contains("SOCKBROKER_SESSION"), "{page}");
        let page = run(&["man", "nc"]).done();
        assert_eq!(page, fs::read_to_string(place.join("sockbroker-nc.1")).unwrap());
    });
}
