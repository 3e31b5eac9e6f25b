//! Starts the program under test.

use sockbroker_test_support::{Daemon, Start};

/// The path of the program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_sockbrokerd");

/// Default options of the program under test.
pub(crate) fn prepare() -> Start {
    Start::new(PROGRAM)
}

/// Starts a broker with the default limits.
pub(crate) fn broker() -> Daemon {
    prepare().start()
}

/// Starts a broker with these limits.
pub(crate) fn limited(limits: &[(&str, u64)]) -> Daemon {
    let set = |start: Start, (name, value): &(&str, u64)| start.limit(name, *value);
    limits.iter().fold(prepare(), set).start()
}
