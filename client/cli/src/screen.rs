//! What people see: standard output, with colours on a terminal alone.

use std::fmt;
use std::io::{self, IsTerminal as _, StdoutLock, Write};

use serde_json::Value;

use crate::failure::{Exit, Failure};

/// A look of some words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Headings.
    Bold,
    /// What is of less interest.
    Dim,
    /// What went well.
    Good,
    /// What did not.
    Bad,
}

/// Standard output.
#[derive(Debug)]
pub(crate) struct Screen {
    output: StdoutLock<'static>,
    coloured: bool,
}

impl Screen {
    /// Standard output, coloured if it is a terminal and the user did not object by `NO_COLOR`
    /// (no-color.org: set and not empty).
    pub(crate) fn new() -> Self {
        let objected = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let coloured = !objected && io::stdout().is_terminal();
        Self { output: io::stdout().lock(), coloured }
    }

    /// Prints a line.
    pub(crate) fn line(&mut self, line: impl fmt::Display) -> Result<(), Failure> {
        writeln!(self.output, "{line}").and_then(|()| self.output.flush()).or_else(lost)
    }

    /// Begins again at the top of a terminal; elsewhere what comes next follows.
    pub(crate) fn clear(&mut self) -> Result<(), Failure> {
        if !io::stdout().is_terminal() {
            return Ok(());
        }
        // The first line and column, and then erase to the end of the screen.
        self.bytes(b"\x1b[H\x1b[J")
    }

    /// Prints bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.output.write_all(bytes).and_then(|()| self.output.flush()).or_else(lost)
    }

    /// Prints a value as JSON: over several lines, as people read it.
    pub(crate) fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.line(format_args!("{value:#}"))
    }

    /// Words with a look, if there are colours.
    pub(crate) fn look(&self, look: Style, words: &str) -> String {
        if !self.coloured || words.is_empty() {
            return words.to_owned();
        }
        let code = match look {
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Good => "32",
            Style::Bad => "31",
        };
        format!("\x1b[{code}m{words}\x1b[0m")
    }
}

/// Prints a line on standard error, for people. Best effort: a failed status line must not stop the transfer of data.
pub(crate) fn report(line: &str) {
    drop(writeln!(io::stderr(), "{line}"));
}

/// Standard output is gone. A reader that has seen enough, such as `head`, is no failure to talk of.
#[expect(clippy::needless_pass_by_value, reason = "the form that or_else takes")]
fn lost(error: io::Error) -> Result<(), Failure> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Err(Failure::new(Exit::Stream, ""));
    }
    Err(Failure::stream("standard output", &error))
}
