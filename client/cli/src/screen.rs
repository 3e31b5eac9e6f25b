//! Standard output, with colours if it is a terminal, and status lines on standard error.

use std::fmt;
use std::io::{self, IsTerminal as _, StdoutLock, Write};

use serde_json::Value;

use crate::failure::{Exit, Failure};

/// The style of a text on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// A heading.
    Bold,
    /// A detail.
    Dim,
    /// A success.
    Good,
    /// A failure.
    Bad,
}

/// Standard output.
#[derive(Debug)]
pub(crate) struct Screen {
    output: StdoutLock<'static>,
    coloured: bool,
}

impl Screen {
    /// Opens standard output. It has colours if it is a terminal and `NO_COLOR` is not set to a text
    /// (no-color.org).
    pub(crate) fn new() -> Self {
        let objected = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let coloured = !objected && io::stdout().is_terminal();
        Self { output: io::stdout().lock(), coloured }
    }

    pub(crate) fn line(&mut self, line: impl fmt::Display) -> Result<(), Failure> {
        writeln!(self.output, "{line}").and_then(|()| self.output.flush()).or_else(lost)
    }

    /// Clears the terminal. If the output is not a terminal, does nothing.
    pub(crate) fn clear(&mut self) -> Result<(), Failure> {
        if !io::stdout().is_terminal() {
            return Ok(());
        }
        // Move to the first line and column, then erase to the end of the screen.
        self.bytes(b"\x1b[H\x1b[J")
    }

    /// Prints bytes unchanged.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.output.write_all(bytes).and_then(|()| self.output.flush()).or_else(lost)
    }

    /// Prints a value as indented JSON.
    pub(crate) fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.line(format_args!("{value:#}"))
    }

    /// Returns the text in this style, or unchanged if the output has no colours.
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

/// The failure of writing to standard output. A reader that has closed it, such as `head`, is not reported.
#[expect(clippy::needless_pass_by_value, reason = "the signature that or_else requires")]
fn lost(error: io::Error) -> Result<(), Failure> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Err(Failure::new(Exit::Stream, ""));
    }
    Err(Failure::stream("standard output", &error))
}
