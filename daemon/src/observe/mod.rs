//! What the broker tells of itself: the log, the audit, the metrics.

pub mod log;
pub mod audit;
pub mod metrics;
