//! The time since the kernel started (`clock_gettime(2)`).

use std::time::Duration;

/// The time since the kernel started, with the time in suspend (`CLOCK_BOOTTIME`). All processes have the same.
pub fn since_boot() -> Duration {
    // Every kernel since 2.6.39 has this clock, so the call cannot fail.
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
        .map_or(Duration::ZERO, Duration::from)
}
