//! Calls that are printed: the parameters, the result, and how long the call took.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::screen::{Screen, Style};

/// The most characters of the parameters and of the result on one line.
const SENT_WIDTH: usize = 44;
const RESULT_WIDTH: usize = 40;

/// A connection to a broker that prints its calls, like strace(1).
#[derive(Debug)]
pub(super) struct Trace {
    connection: Connection,
    screen: Screen,
    times: Vec<Duration>,
    start: Instant,
}

impl Trace {
    pub(super) fn new(connection: Connection, screen: Screen) -> Self {
        Self { connection, screen, times: Vec::new(), start: Instant::now() }
    }

    /// Prints the heading of a step.
    pub(super) fn heading(&mut self, text: &str) -> Result<(), Failure> {
        heading(&mut self.screen, text)
    }

    /// Calls a method and prints the call.
    pub(super) fn call(&mut self, method: &str, parameters: Value) -> Result<Value, Failure> {
        let sent = parameters.to_string();
        let start = Instant::now();
        let result = self.connection.call(method, parameters)?;
        let time = start.elapsed();
        self.times.push(time);
        let took = self.screen.look(Style::Dim, &format!("{:>6} \u{b5}s", time.as_micros()));
        let (sent, returned) =
            (shortened(&sent, SENT_WIDTH), shortened(&result.to_string(), RESULT_WIDTH));
        self.screen
            .line(format_args!("{took}  {method:<19} {sent:<SENT_WIDTH$} \u{2192} {returned}"))?;
        Ok(result)
    }

    /// Calls a method of lesser interest, without printing it.
    pub(super) fn call_untraced(
        &mut self,
        method: &str,
        parameters: Value,
    ) -> Result<Value, Failure> {
        self.connection.call(method, parameters)
    }

    /// Prints the result of a step.
    pub(super) fn outcome(&mut self, text: &str) -> Result<(), Failure> {
        let text = self.screen.look(Style::Good, text);
        self.screen.line(format_args!("  {text}\n"))
    }

    /// Prints a line within a step.
    pub(super) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.screen.line(format_args!("  {text}"))
    }

    /// Runs a step that needs IPv6. On a machine without IPv6 it prints that the step is skipped.
    pub(super) fn skip_without_ipv6(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match step(self) {
            Err(failure)
                if [Some(libc::EAFNOSUPPORT), Some(libc::EADDRNOTAVAIL)]
                    .contains(&failure.errno()) =>
            {
                let text =
                    self.screen.look(Style::Bad, "skipped: IPv6 is disabled on this machine");
                self.screen.line(format_args!("  {text}\n"))
            }
            result => result,
        }
    }

    /// Prints how many calls were made and how long they took.
    pub(super) fn summary(&mut self) -> Result<(), Failure> {
        self.times.sort_unstable();
        let count = self.times.len();
        let median = self.times.get(count / 2).map_or(0, Duration::as_micros);
        let whole = self.start.elapsed().as_millis();
        let text = format!("{count} calls in {whole} ms, median {median} \u{b5}s.");
        let text = self.screen.look(Style::Bold, &text);
        self.screen.line(text)?;
        self.screen.line("All steps succeeded. Next: cargo test --workspace")
    }
}

/// Prints the heading of a step.
pub(super) fn heading(screen: &mut Screen, text: &str) -> Result<(), Failure> {
    let text = screen.look(Style::Bold, text);
    screen.line(text)
}

/// Returns the handle number in the result of a call that made a socket.
pub(super) fn handle(made: &Value) -> Result<u64, Failure> {
    let handle = made.get("handle").and_then(Value::as_u64);
    handle.ok_or_else(|| {
        Failure::protocol("cannot read the broker's answer: a new socket has no handle")
    })
}

/// Returns the text, cut to at most `most` characters.
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
    fn only_long_texts_are_shortened() {
        assert_eq!(shortened("[1]", 3), "[1]");
        let shown = shortened(&"\u{e9}".repeat(200), 60);
        assert_eq!(shown.chars().count(), 60);
        assert!(shown.ends_with('\u{2026}'));
    }
}
