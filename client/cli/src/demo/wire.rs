//! Calls that are shown: what went over the wire, what came back, how long it took.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::heading;
use crate::failure::Failure;
use crate::link::Link;
use crate::screen::{Look, Screen};

/// Characters of parameters and of results that are shown.
const SENT: usize = 44;
const CAME: usize = 40;

/// The broker, and the screen that its calls are shown on.
#[derive(Debug)]
pub(super) struct Wire {
    link: Link,
    screen: Screen,
    times: Vec<Duration>,
    start: Instant,
}

impl Wire {
    /// Shows calls to this broker.
    pub(super) fn new(link: Link, screen: Screen) -> Self {
        Self { link, screen, times: Vec::new(), start: Instant::now() }
    }

    /// Begins a step.
    pub(super) fn heading(&mut self, text: &str) -> Result<(), Failure> {
        heading(&mut self.screen, text)
    }

    /// Calls a method and shows it.
    pub(super) fn call(&mut self, method: &str, parameters: Value) -> Result<Value, Failure> {
        let sent = parameters.to_string();
        let start = Instant::now();
        let result = self.link.call(method, parameters)?;
        let time = start.elapsed();
        self.times.push(time);
        let took = self.screen.look(Look::Dim, &format!("{:>6} \u{b5}s", time.as_micros()));
        let (sent, came) = (shortened(&sent, SENT), shortened(&result.to_string(), CAME));
        self.screen.line(format_args!("{took}  {method:<19} {sent:<SENT$} \u{2192} {came}"))?;
        Ok(result)
    }

    /// Calls a method that the story does not turn on: it is not shown.
    pub(super) fn quietly(&mut self, method: &str, parameters: Value) -> Result<Value, Failure> {
        self.link.call(method, parameters)
    }

    /// Tells what a step has shown.
    pub(super) fn outcome(&mut self, text: &str) -> Result<(), Failure> {
        let text = self.screen.look(Look::Good, text);
        self.screen.line(format_args!("  {text}\n"))
    }

    /// Tells something in between.
    pub(super) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.screen.line(format_args!("  {text}"))
    }

    /// Takes a step, unless the machine has no IPv6, which is said.
    pub(super) fn unless_without_ipv6(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match step(self) {
            Err(failure)
                if [Some(libc::EAFNOSUPPORT), Some(libc::EADDRNOTAVAIL)]
                    .contains(&failure.errno()) =>
            {
                let text =
                    self.screen.look(Look::Bad, "left out: this machine has IPv6 switched off");
                self.screen.line(format_args!("  {text}\n"))
            }
            result => result,
        }
    }

    /// Tells how it went.
    pub(super) fn summary(&mut self) -> Result<(), Failure> {
        self.times.sort_unstable();
        let count = self.times.len();
        let median = self.times.get(count / 2).map_or(0, Duration::as_micros);
        let whole = self.start.elapsed().as_millis();
        let text = format!("{count} calls in {whole} ms, half of them under {median} \u{b5}s.");
        let text = self.screen.look(Look::Bold, &text);
        self.screen.line(text)?;
        self.screen.line("Everything went as told. Next: cargo test --workspace")
    }
}

/// The beginning of a text that is too long for a line.
fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let beginning: String = text.chars().take(most.saturating_sub(1)).collect();
    beginning + "\u{2026}"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_shortened_and_others_are_not() {
        assert_eq!(shortened("[1]", 3), "[1]");
        let shown = shortened(&"\u{e9}".repeat(200), 60);
        assert_eq!(shown.chars().count(), 60);
        assert!(shown.ends_with('\u{2026}'));
    }
}
