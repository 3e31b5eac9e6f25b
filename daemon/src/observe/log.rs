//! The log, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Logs to standard error, at the level that `SOCKBROKER_LOG` names (`info` without it). Payload is
/// never logged.
pub fn log_to_stderr() {
    let filter =
        EnvFilter::try_from_env("SOCKBROKER_LOG").unwrap_or_else(|_error| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
