//! The examples run.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use sockbroker_test_support::daemon::Process;
use sockbroker_test_support::{binary, namespace, skip};

use crate::setup::{bounded, daemon, endpoint};

/// The program of an example. Cargo does not build it if it runs only this test target.
fn example(name: &str, test: &str) -> Option<PathBuf> {
    let current = std::env::current_exe().ok();
    let program = current?.parent()?.parent()?.join("examples").join(name);
    if program.is_file() {
        return Some(program);
    }
    skip::skip("the examples are not built", test);
    None
}

/// Runs an example with a new broker, and checks that it succeeds.
fn run_example(name: &str, arguments: &[&str], test: &str) {
    let Some(program) = example(name, test) else { return };
    let daemon = daemon();
    let mut command = Command::new(program);
    command.args(arguments).env("SOCKBROKER", endpoint(&daemon).to_string());
    let mut process = Process::spawn(command);
    assert!(process.ends().success());
}

#[test]
fn first_program_of_the_readme_is_an_example() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let read = |path| std::fs::read_to_string(format!("{root}/{path}")).unwrap();
    let readme = read("README.md");
    let (_, rest) = readme.split_once("```rust\n").unwrap();
    let (shown, _) = rest.split_once("```").unwrap();
    assert!(read("client/rust/examples/fetch.rs").ends_with(shown), "{shown}");
}

#[test]
fn unprivileged_examples_run() {
    bounded(30, || {
        for name in ["echo", "handover", "tls"] {
            run_example(name, &[], "examples::unprivileged_examples_run");
        }
    });
}

#[test]
fn ping_and_sniff_run() {
    let test = "examples::ping_and_sniff_run";
    binary::broker();
    namespace::inside(test, move || {
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
        run_example("ping", &["127.0.0.1"], test);
        let Some(program) = example("sniff", test) else { return };
        let daemon = daemon();
        let mut command = Command::new(program);
        command.arg("lo").env("SOCKBROKER", endpoint(&daemon).to_string());
        command.stdout(Stdio::null());
        let mut sniffer = Process::spawn(command);
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        sockbroker_test_support::until("the example has captured ten packets", || {
            socket.send_to(b"x", "127.0.0.1:9").unwrap();
            sniffer.ended().is_some_and(|status| status.success())
        });
    });
}
