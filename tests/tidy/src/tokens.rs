//! Rust source as tokens: enough to find paths, blocks and functions, without a parser.

use std::ops::Range;

/// A word, a punctuation mark or a literal; comments are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    /// As it stands in the source; a string literal with its quotes.
    pub text: &'a str,
    /// Its line, counted from 1.
    pub line: usize,
}

impl Token<'_> {
    /// Whether this is an identifier, a keyword or a number.
    pub fn is_word(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphanumeric() || c == '_') && !self.is_text()
    }

    /// Whether this is a string.
    pub fn is_text(&self) -> bool {
        self.text.ends_with(['"', '#']) && self.text.contains('"')
    }
}

/// The tokens of a source. `::`, `->` and `=>` are one token each.
pub fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(rest) = source.get(at..).filter(|rest| !rest.is_empty()) {
        let length = length(rest);
        let text = rest.get(..length).unwrap_or(rest);
        let blank = text.starts_with(char::is_whitespace);
        if !blank && !text.starts_with("//") && !text.starts_with("/*") {
            found.push(Token { text, line });
        }
        line += text.matches('\n').count();
        at += text.len();
    }
    found
}

/// The length of what the source begins with.
fn length(rest: &str) -> usize {
    let mut letters = rest.chars();
    let (first, second) = (letters.next().unwrap_or(' '), letters.next().unwrap_or(' '));
    match (first, second) {
        ('/', '/') => rest.find('\n').unwrap_or(rest.len()),
        ('/', '*') => block_comment(rest),
        (':', ':') | ('-' | '=', '>') => 2,
        ('"', _) => quoted(rest, 1),
        ('b' | 'c', '"') => quoted(rest, 2),
        ('\'', '\\') => 3 + rest.get(3..).and_then(|tail| tail.find('\'')).map_or(0, |at| at + 1),
        ('\'', other) if rest.get(1 + other.len_utf8()..).is_some_and(|t| t.starts_with('\'')) => {
            2 + other.len_utf8()
        }
        _ if first.is_alphanumeric() || first == '_' => {
            let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let (head, tail) = rest.split_at(word);
            let marks = tail.len() - tail.trim_start_matches('#').len();
            let raw = matches!(head, "r" | "br" | "cr");
            if raw && tail.get(marks..).is_some_and(|tail| tail.starts_with('"')) {
                let end = format!("\"{}", "#".repeat(marks));
                let start = word + marks + 1;
                let close = rest.get(start..).and_then(|tail| tail.find(&end));
                close.map_or(rest.len(), |at| start + at + end.len())
            } else {
                word
            }
        }
        _ => first.len_utf8(),
    }
}

fn quoted(rest: &str, start: usize) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(start) {
        match c {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    rest.len()
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while let Some(tail) = rest.get(at..).filter(|tail| !tail.is_empty()) {
        let step = if tail.starts_with("/*") {
            depth += 1;
            2
        } else if tail.starts_with("*/") {
            depth -= 1;
            2
        } else {
            tail.chars().next().map_or(1, char::len_utf8)
        };
        at += step;
        if depth == 0 {
            break;
        }
    }
    at
}

/// Whether the tokens from `at` on are these.
pub fn follows(tokens: &[Token<'_>], at: usize, texts: &[&str]) -> bool {
    let found = tokens.get(at..).unwrap_or_default().iter().map(|token| token.text);
    found.take(texts.len()).eq(texts.iter().copied())
}

/// The place of the bracket that closes the one at `open`, or the end.
pub fn closing(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len().saturating_sub(1)
}

/// The items under `#[cfg(test)]`, attribute included, as places of tokens.
pub fn test_items(tokens: &[Token<'_>]) -> Vec<Range<usize>> {
    let mut items: Vec<Range<usize>> = Vec::new();
    for start in 0..tokens.len() {
        let inside = items.last().is_some_and(|item| item.contains(&start));
        if inside || !follows(tokens, start, &["#", "[", "cfg", "("]) {
            continue;
        }
        let close = closing(tokens, start + 1);
        let words = || tokens.get(start..close).unwrap_or_default().iter().map(|token| token.text);
        if words().any(|word| word == "test") && !words().any(|word| word == "not") {
            items.push(start..item_end(tokens, close + 1));
        }
    }
    items
}

/// Where an item ends: after its block, or its semicolon.
fn item_end(tokens: &[Token<'_>], start: usize) -> usize {
    let mut at = start;
    while let Some(token) = tokens.get(at) {
        match token.text {
            ";" => return at + 1,
            "{" => {
                let end = closing(tokens, at) + 1;
                return end + usize::from(follows(tokens, end, &[";"])); // use a::{b};
            }
            "(" | "[" => at = closing(tokens, at) + 1,
            _ => at += 1,
        }
    }
    tokens.len()
}

/// The tokens outside of [`test_items`].
pub fn without_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let items = test_items(tokens);
    let shipped = |at: &usize| !items.iter().any(|item| item.contains(at));
    let places = (0..tokens.len()).filter(shipped);
    places.filter_map(|at| tokens.get(at).copied()).collect()
}

/// The names of modules that are declared for tests only and have files of their own.
pub fn test_modules<'a>(tokens: &[Token<'a>]) -> Vec<&'a str> {
    let last = |item: Range<usize>| match tokens.get(item)? {
        [.., module, name, end] if module.text == "mod" && end.text == ";" => Some(name.text),
        _ => None,
    };
    test_items(tokens).into_iter().filter_map(last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<&str> {
        tokens(source).iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_literals_hide_nothing_behind_them() {
        assert_eq!(texts("a // b\nc /* d /* e */ f */ g"), ["a", "c", "g"]);
        assert_eq!(texts(r##"x("// \" y", 'a', '\'', r#"" z"#)"##).len(), 10);
        assert_eq!(
            texts("fn f<'a>(x: &'a str) -> b"),
            ["fn", "f", "<", "'", "a", ">", "(", "x", ":", "&", "'", "a", "str", ")", "->", "b"]
        );
        assert_eq!(texts("br\"\\\" b'x' r#type"), ["br\"\\\"", "b", "'x'", "r", "#", "type"]);
    }

    #[test]
    fn lines_are_counted_through_comments_and_strings() {
        let lines: Vec<_> = tokens("a\n/* \n */ b\n\"\n\" c").iter().map(|t| t.line).collect();
        assert_eq!(lines, [1, 3, 4, 5]);
    }

    #[test]
    fn what_is_for_tests_only_is_left_out() {
        let source =
            "a; #[cfg(test)] mod tests { b } #[cfg(test)]\nuse c::{d}; #[cfg(not(test))] fn e() {}";
        let found = tokens(source);
        let shipped: String = without_tests(&found).iter().map(|token| token.text).collect();
        assert_eq!(shipped, "a;#[cfg(not(test))]fne(){}");
        assert_eq!(
            test_modules(&tokens("#[cfg(test)] mod a; mod b; #[cfg(test)] mod c {}")),
            ["a"]
        );
    }
}
