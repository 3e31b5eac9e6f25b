//! The paths that a source names: in `use` trees, and wherever else `a::b` stands.

use crate::tokens::{Token, closing};

/// A path as written, such as `super::error::OpResult`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path<'a> {
    /// Its words.
    pub words: Vec<&'a str>,
    /// The line of its last word.
    pub line: usize,
}

/// Every path of a source, `use` trees taken apart. Single words are none, but for `use word;`.
pub fn paths<'a>(tokens: &[Token<'a>]) -> Vec<Path<'a>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        // `use<'a>` is a bound, not an import.
        if token.text == "use" && tokens.get(at + 1).is_some_and(|next| next.text != "<") {
            at = tree(tokens, at + 1, &mut Vec::new(), &mut found);
        } else if token.is_word() {
            at = chain(tokens, at, &mut found);
        } else {
            at += 1;
        }
    }
    found
}

/// Reads one branch of a `use` tree that begins at `at`; returns the place behind it.
fn tree<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    stem: &mut Vec<&'a str>,
    found: &mut Vec<Path<'a>>,
) -> usize {
    let depth = stem.len();
    while let Some(token) = tokens.get(at) {
        match token.text {
            "::" => at += 1,
            "{" => {
                let end = closing(tokens, at);
                at += 1;
                while at < end {
                    at = tree(tokens, at, stem, found) + 1;
                }
                stem.truncate(depth);
                return end + 1;
            }
            "as" => at += 2,
            "," | ";" | "}" => break,
            "self" if stem.len() > depth || depth > 0 => at += 1,
            word => {
                stem.push(word);
                at += 1;
            }
        }
    }
    let line = at.checked_sub(1).and_then(|at| tokens.get(at)).map_or(0, |token| token.line);
    found.push(Path { words: stem.clone(), line });
    stem.truncate(depth);
    at
}

/// Reads `a::b::c`; returns the place behind it.
fn chain<'a>(tokens: &[Token<'a>], start: usize, found: &mut Vec<Path<'a>>) -> usize {
    let mut words = Vec::new();
    let mut at = start;
    while let Some(token) = tokens.get(at).filter(|token| token.is_word()) {
        words.push(token.text);
        at += 1;
        if tokens.get(at).is_none_or(|next| next.text != "::") {
            break;
        }
        at += 1;
    }
    // `.method::<T>()` and what follows `<T as Trait>::` are no paths of their own.
    let after = start.checked_sub(1).and_then(|before| tokens.get(before));
    let global = start.checked_sub(2).and_then(|before| tokens.get(before));
    let continued = match after.map(|token| token.text) {
        Some(".") => true,
        Some("::") => global.is_some_and(|token| token.is_word() || token.text == ">"),
        _ => false,
    };
    if words.len() > 1 && !continued {
        let line = tokens.get(start).map_or(0, |token| token.line);
        found.push(Path { words, line });
    }
    at.max(start + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::tokens;

    fn read(source: &str) -> Vec<String> {
        paths(&tokens(source)).iter().map(|path| path.words.join("::")).collect()
    }

    #[test]
    fn use_trees_are_taken_apart() {
        assert_eq!(
            read("use a; pub use a::b::{self, c, d::{e, f as g}, h::*,}; use ::i::j;"),
            ["a", "a::b", "a::b::c", "a::b::d::e", "a::b::d::f", "a::b::h::*", "i::j"]
        );
        assert_eq!(
            read("use self::a::b; use super::{c, super::d};"),
            ["self::a::b", "super::c", "super::super::d"]
        );
    }

    #[test]
    fn paths_within_code_are_found() {
        let source = "fn f(x: a::B<c::D>) -> ::e::F { g::<h::I>(); x.j::<k::L>(); <M as n::O>::p::q(); r!(s::t) }";
        assert_eq!(read(source), ["a::B", "c::D", "e::F", "h::I", "k::L", "n::O", "s::t"]);
    }

    #[test]
    fn a_bound_is_no_import() {
        assert_eq!(read("fn f() -> impl A + use<'_, T> { a::b() }"), ["a::b"]);
    }
}
