//! The words of a file: comments, messages and names, with their lines.

use proc_macro2::{TokenStream, TokenTree};

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub(crate) enum Kind {
    /// A line of a comment or of a document.
    Comment,
    /// A string literal.
    Text,
    /// An identifier.
    Name,
}

/// A piece of text that a person reads.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub(crate) struct Fragment {
    pub(crate) line: usize,
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

/// The fragments of a Rust source. What no token covers is a comment.
pub(crate) fn of_rust(text: &str, tokens: TokenStream) -> Vec<Fragment> {
    let mut reader = Reader { text, at: 0, line: 1, found: Vec::new() };
    reader.stream(tokens);
    reader.gap(text.len());
    reader.found
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    found: Vec<Fragment>,
}

impl Reader<'_> {
    fn stream(&mut self, tokens: TokenStream) {
        for token in tokens {
            let kind = match &token {
                TokenTree::Group(group) => {
                    self.gap(group.span_open().byte_range().start);
                    self.stream(group.stream());
                    continue;
                }
                TokenTree::Ident(_) => Kind::Name,
                TokenTree::Literal(_) => Kind::Text,
                // A documentation comment is an attribute with the comment's place.
                TokenTree::Punct(_) => Kind::Comment,
            };
            let range = token.span().byte_range();
            if range.start >= self.at {
                self.gap(range.start);
                self.add(range.end, kind);
            }
        }
    }

    /// Reads the comments between the last token and the next.
    fn gap(&mut self, end: usize) {
        if end > self.at {
            self.add(end, Kind::Comment);
        }
    }

    fn add(&mut self, end: usize, kind: Kind) {
        let text = self.text.get(self.at..end).unwrap_or_default();
        for (number, line) in text.split('\n').enumerate() {
            if line.contains(char::is_alphabetic) {
                self.found.push(Fragment {
                    line: self.line + number,
                    kind,
                    text: line.trim().to_owned(),
                });
            }
        }
        self.line += text.matches('\n').count();
        self.at = end;
    }
}
