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

/// The position of a byte of a text.
pub(crate) fn position(text: &str, byte: usize) -> Position {
    let before = text.get(..byte).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let column = before.get(start..).unwrap_or_default().chars().count() + 1;
    Position { line: before.matches('\n').count() + 1, column }
}

/// A mistake at bytes of a text.
pub(crate) fn at(origin: &str, text: &str, span: Range<usize>, message: String) -> FileError {
    let Position { line, column } = position(text, span.start);
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
