//! CPython's own tests, natively and through a broker: whatever passes natively has to pass.
//!
//! The runner is Python (`run.py`) and uses the system's interpreter, since other users cannot enter a
//! private one. The tests depend on time, so they run one after the other.

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use sockbroker_test_support::{program, skip};

/// Debian's interpreter, whose tests are in `libpython3-testsuite`.
const INTERPRETER: &str = "/usr/bin/python3";
/// The exit code of the runner where the interpreter has no tests.
const NO_TESTS: i32 = 77;
/// How long the runner may take; it bounds every run by itself.
const LONGEST_WAIT: Duration = Duration::from_mins(20);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs suites of CPython natively and brokered; the counts.
fn compare(test: &str, arguments: &[&str]) -> String {
    let _turn = ONE_AT_A_TIME.lock();
    if !Path::new(INTERPRETER).exists() {
        skip::skip("the system has no python3", test);
        return String::new();
    }
    let runner = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/compliance/upstream/run.py");
    let mut command = Command::new("python3");
    command.arg(runner).args(["--broker", env!("CARGO_BIN_EXE_sockbrokerd")]);
    command.args(["--python", INTERPRETER]).args(arguments);
    let ended = program::run(&mut command, LONGEST_WAIT);
    if ended.code == Some(NO_TESTS) {
        skip::skip("libpython3-testsuite is not installed", test);
        return String::new();
    }
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    ended.output
}

#[test]
fn the_tests_of_socket_pass_in_every_mode() {
    let suite = ["--suite", "test_socket"];
    println!("{}", compare("the_tests_of_socket_pass_in_every_mode", &suite));
}

#[test]
fn the_tests_of_socket_pass_for_a_user_whom_the_policy_serves() {
    let test = "the_tests_of_socket_pass_for_a_user_whom_the_policy_serves";
    if skip::root_or_skip(test) {
        let modes = ["--mode", "direct", "--mode", "mediated"];
        println!(
            "{}",
            compare(test, &[&["--suite", "test_socket", "--nobody"][..], &modes].concat())
        );
    }
}

#[test]
fn the_tests_of_what_stands_on_socket_pass_mediated() {
    let suites = [
        "test_selectors",
        "test_asyncio.test_sock_lowlevel",
        "test_asyncio.test_streams",
        "test_socketserver",
        "test_httplib",
        "test_ssl",
    ];
    let arguments: Vec<_> = suites.iter().flat_map(|suite| ["--suite", suite]).collect();
    println!("{}", compare("the_tests_of_what_stands_on_socket_pass_mediated", &arguments));
}
