//! What the broker tells of itself: the log, the audit, the metrics.

mod journal;
pub mod log;
pub mod audit;
pub mod metrics;
pub mod refusals;
