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

#[test]
fn persistent_sessions_outlive_workers_and_the_service() {
    let runner = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/restart/run.py");
    let mut command = Command::new("python3");
    command.arg(runner).arg(PROGRAM).arg(counts::RESTARTS.get().to_string());
    let ended = program::run(&mut command, LONGEST_WAIT);
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    for reason in skip::reasons(&ended.output) {
        skip::skip(reason, "persistent_sessions_outlive_workers_and_the_service");
    }
}
