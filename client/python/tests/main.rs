//! Runs the tests of the Python package, which are written in Python (`run.py`): the behaviour of sockets in every
//! mode and natively, and of processes.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sockbroker_test_support::{program, skip};

/// The bound of the whole run. The runner also bounds every part.
const LONGEST_WAIT: Duration = Duration::from_mins(30);
const TEST: &str = "the_python_package_passes_its_tests";

#[test]
fn the_python_package_passes_its_tests() {
    let runner = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/python/tests/run.py");
    let mut command = Command::new("python3");
    command.arg(runner).args(["--broker", env!("CARGO_BIN_EXE_sockbrokerd")]);
    let ended = program::run(&mut command, LONGEST_WAIT);
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    for reason in skip::reasons(&ended.output) {
        skip::skip(reason, TEST);
    }
    println!("{}", ended.output.trim_end());
}
