//! Observation: the log, the audit and the metrics.

mod journal;
pub mod log;
pub mod audit;
pub mod metrics;
pub mod refusals;
