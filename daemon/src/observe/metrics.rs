//! Counters, and their page in the text format of Prometheus, version 0.0.4.
//!
//! Counting is one addition to an atomic number. What the broker knows anyway, such as the number of open
//! sessions, is read when the page is made.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use sockbroker_policy::rights::RuleName;

/// At this number of names further decisions are counted as [`OTHER`], so that reloads of the policy do not
/// make the page grow without a bound.
const RULES: usize = 1000;
const OTHER: &str = "other";

/// The numbers of decisions that allowed and that denied, by rule.
type Sums = BTreeMap<String, [u64; 2]>;

/// The outcomes of the calls of one method, with a counter for each outcome.
#[derive(Debug)]
pub struct Outcomes(Vec<AtomicU64>);

impl Outcomes {
    /// Counters for this number of outcomes.
    pub fn new(outcomes: usize) -> Self {
        Self((0..outcomes).map(|_| AtomicU64::new(0)).collect())
    }

    /// Counts a call with this outcome.
    pub fn count(&self, outcome: usize) {
        if let Some(counter) = self.0.get(outcome) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counters, by outcome.
    pub fn counts(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|counter| counter.load(Ordering::Relaxed))
    }
}

/// The decisions of one rule.
#[derive(Debug)]
struct Decisions {
    /// Kept, so that its address stays its own.
    rule: RuleName,
    allowed: AtomicU64,
    denied: AtomicU64,
}

/// The counters.
#[derive(Debug, Default)]
pub struct Metrics {
    /// By the address of the rule's name, which all decisions of a rule share.
    decisions: RwLock<HashMap<usize, Decisions>>,
    /// The decisions of earlier rules, by name.
    past: Mutex<Sums>,
    limits: Mutex<BTreeMap<String, u64>>,
    connections: AtomicU64,
    /// Connections that are open, by framing.
    open: Mutex<BTreeMap<&'static str, u64>>,
}

/// Counts a connection as open until it is dropped.
#[derive(Debug)]
pub struct OpenConnection {
    metrics: Arc<Metrics>,
    framing: &'static str,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        if let Some(open) = lock(&self.metrics.open).get_mut(self.framing) {
            *open -= 1;
        }
    }
}

// The maps hold whole values, so a panic of another call does not spoil them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Metrics {
    pub fn decided(&self, rule: &RuleName, allowed: bool) {
        let key = rule.as_str().as_ptr().addr();
        let known = self.decisions.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(decisions) = known.get(&key) {
            return decisions.count(allowed);
        }
        drop(known);
        let mut known = self.decisions.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= RULES {
            let mut past = lock(&self.past);
            known.drain().for_each(|(_, decisions)| decisions.add_to(&mut past));
        }
        let rule = rule.clone();
        let new = || Decisions { rule, allowed: AtomicU64::new(0), denied: AtomicU64::new(0) };
        known.entry(key).or_insert_with(new).count(allowed);
    }

    /// Counts a refusal by a limit.
    pub fn limit_exceeded(&self, limit: &str) {
        let mut limits = lock(&self.limits);
        match limits.get_mut(limit) {
            Some(count) => *count += 1,
            None => drop(limits.insert(limit.to_owned(), 1)),
        }
    }

    /// Counts a connection as open.
    pub fn opened(self: &Arc<Self>, framing: &'static str) -> OpenConnection {
        self.connections.fetch_add(1, Ordering::Relaxed);
        *lock(&self.open).entry(framing).or_default() += 1;
        OpenConnection { metrics: self.clone(), framing }
    }

    /// Adds the counters to a page.
    pub fn describe(&self, page: &mut Page) {
        page.begin("decisions_total", "counter", "Decisions of the policy, by rule and verdict.");
        let known = self.decisions.read().unwrap_or_else(PoisonError::into_inner);
        let mut sums = lock(&self.past).clone();
        known.values().for_each(|decisions| decisions.add_to(&mut sums));
        drop(known);
        for (rule, [allowed, denied]) in &sums {
            for (verdict, count) in [("allowed", allowed), ("denied", denied)] {
                page.sample(&[("rule", rule), ("verdict", verdict)], *count);
            }
        }
        page.begin("limits_crossed_total", "counter", "Refusals by a limit, by its name.");
        for (limit, count) in &*lock(&self.limits) {
            page.sample(&[("limit", limit)], *count);
        }
        page.begin("connections_total", "counter", "Connections that were served.");
        page.sample(&[], self.connections.load(Ordering::Relaxed));
        page.begin("connections", "gauge", "Open connections, by framing.");
        for (framing, count) in &*lock(&self.open) {
            page.sample(&[("framing", framing)], *count);
        }
    }
}

impl Decisions {
    fn count(&self, allowed: bool) {
        let counter = if allowed { &self.allowed } else { &self.denied };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn add_to(&self, sums: &mut Sums) {
        let name = self.rule.as_str();
        let name = if sums.len() >= RULES && !sums.contains_key(name) { OTHER } else { name };
        let sum = sums.entry(name.to_owned()).or_default();
        sum[0] += self.allowed.load(Ordering::Relaxed);
        sum[1] += self.denied.load(Ordering::Relaxed);
    }
}

/// A page that is being written.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    name: &'static str,
}

impl Page {
    /// Begins a metric: its samples follow.
    pub fn begin(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        let lines = [("HELP", help), ("TYPE", kind)];
        for (word, text) in lines {
            self.line(format_args!("# {word} sockbroker_{name} {text}"));
        }
    }

    /// A sample with its labels.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: u64) {
        let labels: Vec<_> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let name = self.name;
        self.line(format_args!("sockbroker_{name}{labels} {value}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        writeln!(self.text, "{line}").ok();
    }

    pub fn text(self) -> String {
        self.text
    }
}

/// Escapes backslash, quote and line end in the value of a label.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str) -> RuleName {
        RuleName::Written(Arc::from(name))
    }

    #[test]
    fn decisions_are_counted_by_the_name_of_their_rule() {
        let metrics = Metrics::default();
        let rule = written("a");
        for _ in 0..3 {
            metrics.decided(&rule, true);
        }
        metrics.decided(&written("a"), false);
        metrics.decided(&RuleName::BuiltIn("b"), true);
        let mut page = Page::default();
        metrics.describe(&mut page);
        let text = page.text();
        for line in [
            "sockbroker_decisions_total{rule=\"a\",verdict=\"allowed\"} 3\n",
            "sockbroker_decisions_total{rule=\"a\",verdict=\"denied\"} 1\n",
            "sockbroker_decisions_total{rule=\"b\",verdict=\"allowed\"} 1\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn the_number_of_rules_on_the_page_is_bounded() {
        let metrics = Metrics::default();
        for number in 0..3 * RULES {
            metrics.decided(&written(&number.to_string()), true);
        }
        let mut page = Page::default();
        metrics.describe(&mut page);
        assert!(page.text().lines().count() < 3 * RULES);
    }

    #[test]
    fn a_label_cannot_end_its_line_or_its_quotes() {
        let mut page = Page::default();
        page.begin("x", "gauge", "X.");
        page.sample(&[("rule", "a\"} 1\nsockbroker_x 2\\")], 7);
        let text = page.text();
        assert_eq!(text.lines().count(), 3);
        assert!(
            text.ends_with("sockbroker_x{rule=\"a\\\"} 1\\nsockbroker_x 2\\\\\"} 7\n"),
            "{text}"
        );
    }
}
