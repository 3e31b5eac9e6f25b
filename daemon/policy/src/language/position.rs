//! Positions in a policy file, for errors and warnings.

use std::ops::Range;

/// A remark on a file: the bytes that it is about, and its text.
pub(crate) type Remark = (Range<usize>, String);

/// A mistake in a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: line {line}, column {column}: {message}\n{excerpt}")]
pub struct FileError {
    /// The file.
    pub origin: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// The line itself, and a caret below the position.
    pub excerpt: String,
}

/// A position in a file: line and column, both from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    line: usize,
    column: usize,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// The lines of a text.
pub(crate) struct Lines<'a> {
    text: &'a str,
    /// The first byte of each.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        let after = text.match_indices('\n').map(|(end, _)| end + 1);
        Self { text, starts: std::iter::once(0).chain(after).collect() }
    }

    /// The position of a byte.
    pub(crate) fn position(&self, byte: usize) -> Position {
        let byte = byte.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= byte);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let column = self.text.get(start..byte).unwrap_or_default().chars().count() + 1;
        Position { line, column }
    }
}

/// A mistake at bytes of a text.
pub(crate) fn at(origin: &str, text: &str, span: Range<usize>, message: String) -> FileError {
    let Position { line, column } = Lines::of(text).position(span.start);
    let source = text.lines().nth(line - 1).unwrap_or_default();
    let marked = text.get(span).unwrap_or_default().lines().next().unwrap_or_default();
    let rest = source.chars().count().saturating_sub(column - 1);
    let width = marked.chars().count().clamp(1, rest.max(1));
    let margin = " ".repeat(line.to_string().len());
    let excerpt = format!(
        "{margin} |\n{line} | {source}\n{margin} | {}{}",
        " ".repeat(column - 1),
        "^".repeat(width)
    );
    FileError { origin: origin.to_owned(), line, column, message, excerpt }
}
