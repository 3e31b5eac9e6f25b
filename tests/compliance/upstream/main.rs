//! Runs CPython's own tests natively and through a broker: a test that passes natively must pass with the broker.
//!
//! The runner is a Python program (`run.py`). It uses the system's interpreter, because other users cannot run a
//! private one. The tests depend on time, so at most two suites run at the same time.

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use sockbroker_test_support::{program, skip};

/// The interpreter of Debian; the package `libpython3-testsuite` has its tests.
const INTERPRETER: &str = "/usr/bin/python3";
/// The exit code of the runner if the tests of the interpreter are not installed.
const NO_TESTS: i32 = 77;
/// The exit code of the runner if the command line is not built, which mode `tls` needs.
const NO_PROGRAM: i32 = 78;
/// The time limit of the runner, which also limits each run.
const LONGEST_WAIT: Duration = Duration::from_mins(20);

/// Runs of `test_socket` bind the same names.
static SOCKET_TESTS: Mutex<()> = Mutex::new(());

/// Runs test suites of CPython natively and through the broker, and returns the counts.
fn compare(test: &str, arguments: &[&str]) -> String {
    let _turn = arguments.contains(&"test_socket").then(|| SOCKET_TESTS.lock());
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
    if ended.code == Some(NO_PROGRAM) {
        skip::skip("the program sockbroker is not built", test);
        return String::new();
    }
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    ended.output
}

#[test]
fn cpython_socket_tests_pass_in_every_mode() {
    let suite = ["--suite", "test_socket"];
    println!("{}", compare("cpython_socket_tests_pass_in_every_mode", &suite));
}

#[test]
fn cpython_socket_tests_pass_for_an_unprivileged_user() {
    let test = "cpython_socket_tests_pass_for_an_unprivileged_user";
    if skip::root_or_skip(test) {
        let modes = ["--mode", "direct", "--mode", "mediated"];
        println!(
            "{}",
            compare(test, &[&["--suite", "test_socket", "--nobody"][..], &modes].concat())
        );
    }
}

#[test]
fn cpython_tests_of_modules_based_on_socket_pass() {
    let test = "cpython_tests_of_modules_based_on_socket_pass";
    println!("{}", compare(test, &["--suite", "test_selectors"]));
    let suites = [
        "test_asyncio.test_sock_lowlevel",
        "test_asyncio.test_streams",
        "test_socketserver",
        "test_httplib",
        "test_ssl",
    ];
    let suites = suites.iter().flat_map(|suite| ["--suite", suite]);
    let modes = ["--mode", "mediated", "--mode", "channel"];
    println!("{}", compare(test, &suites.chain(modes).collect::<Vec<_>>()));
}

/// The quickest suites; `.ci/run --long` runs the others too.
#[test]
fn cpython_tests_pass_over_tls() {
    let suites = [
        "test_epoll",
        "test_asyncio.test_server",
        "test_asyncio.test_unix_events",
        "test_asyncio.test_streams",
        "test_httplib",
    ];
    let suites = suites.iter().flat_map(|suite| ["--suite", suite]);
    let arguments: Vec<_> = suites.chain(["--mode", "tls"]).collect();
    println!("{}", compare("cpython_tests_pass_over_tls", &arguments));
}
