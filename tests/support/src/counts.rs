//! How often tests repeat what must also hold after many times. `.ci/run --long` sets the variable for the full counts.

/// The variable that selects the full counts.
const FULL: &str = "SOCKBROKER_FULL_COUNTS";

/// Crashes of one worker.
pub const CRASHES: Count = Count { usual: 40, full: 2000 };
/// Crashes of the broker and its workers under a client with a persistent session.
pub const RESTARTS: Count = Count { usual: 60, full: 10_000 };
/// System calls of each process after which it is killed; 0 for all of them.
pub const CRASH_POINTS: Count = Count { usual: 6, full: 0 };
/// Connections to a listener of a persistent session, and restarts of the service meanwhile.
pub const CONNECTIONS: Count = Count { usual: 500, full: 5000 };
pub const SERVICE_RESTARTS: Count = Count { usual: 3, full: 20 };
/// Generations of the policy.
pub const GENERATIONS: Count = Count { usual: 8, full: 100 };
/// Principals that are served at the same time.
pub const PRINCIPALS: Count = Count { usual: 24, full: 300 };
/// Pipelines of a shell under `exec`.
pub const PIPELINES: Count = Count { usual: 100, full: 1000 };

/// Channels of one agent, one after the other.
pub const CHANNELS: Count = Count { usual: 100, full: 10_000 };

/// Sockets that one client makes in its network namespace.
pub const CREATIONS: Count = Count { usual: 3400, full: 34_000 };

/// Random packets for each program of rules.
pub const PACKETS: Count = Count { usual: 100_000, full: 1_000_000 };

/// Random programs that the kernel runs too.
pub const PROGRAMS: Count = Count { usual: 10_000, full: 1_000_000 };

/// A count that fits into a test of a few seconds, and the full one.
#[derive(Debug, Clone, Copy)]
pub struct Count {
    usual: u32,
    full: u32,
}

impl Count {
    pub fn get(self) -> u32 {
        if are_full() { self.full } else { self.usual }
    }
}

/// Whether tests use the full counts.
pub(crate) fn are_full() -> bool {
    std::env::var_os(FULL).is_some()
}
