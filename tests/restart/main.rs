//! Persistent sessions over crashes and restarts, under a stand-in for systemd (`harness.py`).
//!
//! A test target of its own: the kernel limits the descriptors in flight of one user, and the lots of these tests would
//! count for tests with few open files.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sockbroker_test_support::{counts, program, skip};

/// The program.
const PROGRAM: &str = env!("CARGO_BIN_EXE_sockbrokerd");
/// The bound of the full counts.
const LONGEST_WAIT: Duration = Duration::from_hours(2);

/// Runs a script, with the program and a count.
fn run(script: &str, count: u32, test: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/restart").join(script);
    let mut command = Command::new("python3");
    command.arg(script).arg(PROGRAM).arg(count.to_string());
    let ended = program::run(&mut command, LONGEST_WAIT);
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    for reason in skip::reasons(&ended.output) {
        skip::skip(reason, test);
    }
}

#[test]
fn persistent_sessions_outlive_workers_and_the_service() {
    let test = "persistent_sessions_outlive_workers_and_the_service";
    run("run.py", counts::RESTARTS.get(), test);
}

#[test]
fn crash_after_any_system_call_loses_and_resurrects_nothing() {
    let test = "crash_after_any_system_call_loses_and_resurrects_nothing";
    run("steps.py", counts::CRASH_POINTS.get(), test);
}
