//! The counters of workers that have ended, and those of the monitor, for the page of metrics: sums over all workers never
//! fall.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use sockbroker_sys::sealed;

/// The bytes of the largest page that is read.
const PAGE: usize = 1 << 20;
/// The counters of ended workers that are kept. A worker that was taken over can invent names.
const COUNTERS: usize = 16_384;
/// The bytes of the longest name, labels included.
const NAME: usize = 512;

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// It had nothing to do, or the broker stops.
    Asked,
    /// The monitor killed it.
    Killed,
    /// By itself.
    Unexpected,
}

/// What the monitor counts.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Of ended workers, by name with labels, in the text format of Prometheus.
    ended: BTreeMap<String, u64>,
    started: u64,
    ends: BTreeMap<End, u64>,
    refused: BTreeMap<&'static str, u64>,
}

impl Counters {
    /// Counts the start of a worker.
    pub(super) fn started(&mut self) {
        self.started += 1;
    }

    /// Counts a connection that was closed for this reason.
    pub(super) fn refused(&mut self, reason: &'static str) {
        *self.refused.entry(reason).or_default() += 1;
    }

    /// Counts the end of a worker, and keeps the counters of its last page.
    pub(super) fn ended(&mut self, how: End, page: Option<&OwnedFd>) {
        *self.ends.entry(how).or_default() += 1;
        let Some(page) = page else { return };
        match sealed::read(page.as_fd(), PAGE) {
            Ok(text) => self.add(&String::from_utf8_lossy(&text)),
            Err(error) => tracing::warn!(%error, "cannot read the counters of a worker"),
        }
    }

    fn add(&mut self, page: &str) {
        for line in page.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let is_counter =
                name.split('{').next().is_some_and(|metric| metric.ends_with("_total"));
            let (Ok(value), true) = (value.parse::<u64>(), is_counter && name.len() <= NAME) else {
                continue;
            };
            if let Some(sum) = self.ended.get_mut(name) {
                *sum = sum.saturating_add(value);
            } else if value > 0 && self.ended.len() < COUNTERS {
                self.ended.insert(name.to_owned(), value);
            }
        }
    }

    /// The monitor's page in the text format of Prometheus. The counters of ended workers have no header, because each
    /// worker's page has it.
    pub(super) fn page(&self, workers: usize) -> String {
        let mut lines = Vec::new();
        let begin = |name: &str, kind: &str, help: &str| {
            [format!("# HELP sockbroker_{name} {help}"), format!("# TYPE sockbroker_{name} {kind}")]
        };
        lines.extend(begin("workers", "gauge", "Worker processes."));
        lines.push(format!("sockbroker_workers {workers}"));
        lines.extend(begin("workers_started_total", "counter", "Starts of worker processes."));
        lines.push(format!("sockbroker_workers_started_total {}", self.started));
        let help = "Ends of worker processes, by reason.";
        lines.extend(begin("workers_ended_total", "counter", help));
        for (end, count) in &self.ends {
            let reason = match end {
                End::Asked => "asked",
                End::Killed => "killed",
                End::Unexpected => "unexpected",
            };
            lines.push(format!("sockbroker_workers_ended_total{{reason=\"{reason}\"}} {count}"));
        }
        let help = "Connections that the monitor closed, by limit or reason.";
        lines.extend(begin("refused_connections_total", "counter", help));
        for (reason, count) in &self.refused {
            let labels = format!("{{reason=\"{reason}\"}}");
            lines.push(format!("sockbroker_refused_connections_total{labels} {count}"));
        }
        lines.extend(self.ended.iter().map(|(name, value)| format!("{name} {value}")));
        lines.push(String::new());
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_ended_workers_are_added_and_gauges_are_not() {
        let mut counters = Counters::default();
        for _ in 0..2 {
            let page = "# TYPE sockbroker_calls_total counter\nsockbroker_calls_total{method=\"a b\"} 3\n\
                sockbroker_sessions 5\nsockbroker_sent_bytes_total 18446744073709551615\nbroken\n";
            let page = sealed::create("page", page.as_bytes()).unwrap();
            counters.ended(End::Killed, Some(&page));
        }
        counters.ended(End::Asked, None);
        counters.started();
        counters.refused("workers");
        let page = counters.page(7);
        for line in [
            "sockbroker_calls_total{method=\"a b\"} 6",
            "sockbroker_sent_bytes_total 18446744073709551615",
            "sockbroker_workers 7",
            "sockbroker_workers_started_total 1",
            "sockbroker_workers_ended_total{reason=\"killed\"} 2",
            "sockbroker_workers_ended_total{reason=\"asked\"} 1",
            "sockbroker_refused_connections_total{reason=\"workers\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}: {page}");
        }
        assert!(!page.contains("sockbroker_sessions"));
    }

    #[test]
    fn invented_names_are_bounded() {
        let mut counters = Counters::default();
        for part in 0..40 {
            let lines = (0..1000).map(|line| format!("x{part}_{line}_total 1\n"));
            counters.add(&lines.collect::<String>());
        }
        counters.add(&format!("{}_total 1\n", "y".repeat(NAME)));
        assert_eq!(counters.ended.len(), COUNTERS);
        assert!(!counters.page(0).contains("yyy"));
    }
}
