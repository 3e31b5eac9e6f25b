//! The brokers under test: the program, and the same server within this process.

use sockbroker_test_support::{Daemon, Start};

/// The program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_sockbrokerd");

/// How the broker is to be started.
pub(crate) fn prepare() -> Start {
    Start::new(PROGRAM)
}

/// A broker with the default limits.
pub(crate) fn broker() -> Daemon {
    prepare().start()
}

/// A broker with these limits.
pub(crate) fn limited(limits: &[(&str, u64)]) -> Daemon {
    let set = |start: Start, (name, value): &(&str, u64)| start.limit(name, *value);
    limits.iter().fold(prepare(), set).start()
}
