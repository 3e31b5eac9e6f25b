//! `sockbroker completions` and `sockbroker man`.

use std::fs;
use std::process::{Command, Stdio};

use sockbroker_test_support::skip::program_or_skip;
use sockbroker_test_support::{Folder, bounded};

use crate::program::{PROGRAM, run};

const SUBCOMMANDS: [&str; 18] = [
    "call",
    "discover",
    "info",
    "handles",
    "sessions",
    "nc",
    "ping",
    "sniff",
    "replay",
    "exec",
    "demo",
    "policy",
    "pki",
    "token",
    "dial-stdio",
    "agent",
    "completions",
    "man",
];

#[test]
fn completions_cover_every_subcommand_and_shell() {
    bounded(30, || {
        for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
            let script = run(&["completions", shell]).success();
            for word in SUBCOMMANDS.iter().chain(&["private", "snaplen"]) {
                assert!(script.contains(word), "{shell}: {word}");
            }
            // Method names, if the shell's generator supports arguments.
            let names_methods = ["bash", "fish", "zsh"].contains(&shell);
            assert_eq!(script.contains("socket.getaddrinfo"), names_methods, "{shell}");
            assert!(!script.contains("built-in-policy"), "{shell}: the hidden subcommand");
        }
    });
}

#[test]
fn manual_has_a_page_for_each_subcommand() {
    bounded(30, || {
        let folder = Folder::new();
        let target = folder.join("pages");
        run(&["man", "--folder", target.to_str().unwrap()]).success();
        let mut pages: Vec<_> = fs::read_dir(&target)
            .unwrap()
            .map(|page| page.unwrap().file_name().into_string().unwrap())
            .collect();
        pages.sort();
        let names = SUBCOMMANDS.iter().chain(&[
            "extcap",
            "policy-check",
            "policy-explain",
            "pki-init",
            "pki-server",
            "pki-client",
            "token-new",
        ]);
        let mut expected: Vec<_> = names.map(|name| format!("sockbroker-{name}.1")).collect();
        expected.push("sockbroker.1".to_owned());
        expected.sort();
        assert_eq!(pages, expected);
        for name in &expected {
            let page = fs::read_to_string(target.join(name)).unwrap();
            for part in [".TH ", ".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS", ".SH SEE ALSO"] {
                assert!(page.contains(part), "{part} in {name}: {page}");
            }
            let (_, others) = page.split_once(".SH SEE ALSO").unwrap();
            let others = others.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "");
            for other in &expected {
                let listed =
                    others.contains(&format!("\n{}(1)", other.strip_suffix(".1").unwrap()));
                assert_eq!(listed, other != name, "{other} in {name}");
            }
            for other in ["sockbrokerd(8)", "sockbroker-policy(5)", "sockbrokerd.toml(5)"] {
                assert!(others.contains(other), "{other} in {name}");
            }
        }
        let page = run(&["man"]).success();
        assert_eq!(page, fs::read_to_string(target.join("sockbroker.1")).unwrap());
        assert!(page.contains(".SH EXIT CODES") && page.contains("SOCKBROKER_SESSION"), "{page}");
        let page = run(&["man", "nc"]).success();
        assert_eq!(page, fs::read_to_string(target.join("sockbroker-nc.1")).unwrap());
        assert_eq!(run(&["man", "sockbroker-nc"]).success(), page);
        assert_eq!(run(&["man", "sockbroker"]).success(), run(&["man"]).success());
        let page = run(&["man", "policy", "explain"]).success();
        assert_eq!(page, run(&["man", "policy-explain"]).success());
        assert!(page.contains(".TH sockbroker-policy-explain 1"), "{page}");
        let line = run(&["man", "nothing"]).failure(2);
        assert!(line.contains("manual page sockbroker-nothing: there is no such"), "{line}");
        let page = run(&["man", "sniff"]).success();
        let count = "[\\fB\\-c\\fR|\\fB\\-\\-count\\fR\\~\\fICOUNT\\fR]";
        assert!(page.contains(count) && page.contains("\\fBsockbroker\\~sniff\\fR\n"), "{page}");
    });
}

/// A Python program that runs a command on a terminal, and prints what the command writes.
const TERMINAL: &str =
    "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";

#[test]
fn manual_page_is_shown_by_man_on_a_terminal() {
    const TEST: &str = "generate::manual_page_is_shown_by_man_on_a_terminal";
    bounded(60, || {
        if !program_or_skip("python3", TEST) {
            return;
        }
        let folder = Folder::new();
        let script = "#!/bin/sh\necho \"man $*\"\n/usr/bin/grep -c '^[.]SH'\n";
        folder.write_program("man", script);
        let shown = |path: &str| {
            let mut python = Command::new("python3");
            python.args(["-c", TERMINAL, PROGRAM, "man", "sniff"]).env("PATH", path);
            let outcome = python.stdin(Stdio::null()).output().unwrap();
            assert!(outcome.status.success(), "{outcome:?}");
            String::from_utf8(outcome.stdout).unwrap()
        };
        let python = "/usr/bin:/bin";
        let output = shown(&format!("{}:{python}", folder.join(".").display()));
        assert!(output.starts_with("man -l -\r\n") && !output.contains(".TH"), "{output}");
    });
}
