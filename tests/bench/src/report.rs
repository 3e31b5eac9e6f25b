//! Prints the figures: one line for each immediately, or one JSON document at the end.

use serde::Serialize;

use crate::error::Result;
use crate::measure::Sample;

/// The target of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// At most this value.
    AtMost(f64),
    /// At least this value.
    AtLeast(f64),
}

impl Target {
    fn is_reached_by(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }
}

/// A figure of the report.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    suite: &'static str,
    name: String,
    /// The median of the rounds.
    value: f64,
    /// The first and third quartiles of the rounds.
    low: f64,
    high: f64,
    unit: &'static str,
    target: Option<Target>,
    reached: Option<bool>,
}

impl Row {
    /// Creates a figure without a target.
    pub(crate) fn new(name: impl Into<String>, sample: Sample, unit: &'static str) -> Self {
        let Sample { median, low, high } = sample;
        let name = name.into();
        Self { suite: "", name, value: median, low, high, unit, target: None, reached: None }
    }

    /// Sets the target.
    pub(crate) fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self.reached = Some(target.is_reached_by(self.value));
        self
    }
}

#[derive(Debug)]
pub(crate) struct Report {
    json: bool,
    suite: &'static str,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, suite: "", rows: Vec::new() }
    }

    /// Starts a suite.
    pub(crate) fn begin(&mut self, suite: &'static str) {
        self.suite = suite;
        if !self.json {
            let [value, range] = ["median", "half of the rounds"];
            print(&format!(
                "\n{suite:<56} {value:>11}  {range:^23}  {:<14} {:>12}",
                "unit", "target"
            ));
        }
    }

    pub(crate) fn add(&mut self, row: Row) {
        let row = Row { suite: self.suite, ..row };
        if !self.json {
            print(&line(&row));
        }
        self.rows.push(row);
    }

    /// Prints the figures that are not printed yet.
    pub(crate) fn end(&self) -> Result<()> {
        if self.json {
            print(&serde_json::to_string_pretty(&self.rows)?);
        }
        Ok(())
    }
}

fn line(row: &Row) -> String {
    let target = row.target.map_or_else(String::new, |target| match target {
        Target::AtMost(limit) => format!("<= {}", digits(limit)),
        Target::AtLeast(limit) => format!(">= {}", digits(limit)),
    });
    let reached = row.reached.map_or("", |reached| if reached { "yes" } else { "NO" });
    let range = format!("{} .. {}", digits(row.low), digits(row.high));
    let value = digits(row.value);
    format!("  {:<54} {value:>11}  {range:^23}  {:<14} {target:>12}  {reached}", row.name, row.unit)
}

/// Formats a value with about three digits.
fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[expect(clippy::print_stdout, reason = "the figures are what this program is for")]
fn print(text: &str) {
    println!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_shows_whether_its_target_is_reached() {
        let row = |target| Row::new("r", Sample::of(&[1.6]), "x").target(target).reached;
        assert_eq!(row(Target::AtMost(1.6)), Some(true));
        assert_eq!(row(Target::AtMost(1.5)), Some(false));
        assert_eq!(row(Target::AtLeast(1.7)), Some(false));
        let row = Row::new("r", Sample::of(&[1.6]), "x").target(Target::AtMost(1.5));
        assert!(line(&row).contains("<= 1.50  NO"), "{}", line(&row));
    }

    #[test]
    fn json_row_has_its_target() {
        let row = Row::new("r", Sample::of(&[2.0]), "x").target(Target::AtLeast(1.5));
        let json = serde_json::to_value(&row).unwrap();
        assert_eq!(json["target"], serde_json::json!({ "at_least": 1.5 }));
        assert_eq!(json["reached"], true);
    }
}
