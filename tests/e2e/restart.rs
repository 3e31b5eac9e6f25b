//! Persistent sessions over crashes and restarts, under a stand-in for systemd (`tests/restart`).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sockbroker_test_support::{counts, program};

use crate::broker::PROGRAM;

/// The bound of the full counts.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

#[test]
fn persistent_sessions_outlive_workers_and_the_service() {
    let runner = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/restart/run.py");
    let mut command = Command::new("python3");
    command.arg(runner).arg(PROGRAM).arg(counts::RESTARTS.get().to_string());
    let ended = program::run(&mut command, LONGEST_WAIT);
    assert_eq!(ended.code, Some(0), "{}", ended.output);
}
