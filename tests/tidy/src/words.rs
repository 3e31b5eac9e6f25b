//! Documents, comments, messages and names are free of the words of [`crate::vocabulary`].

use std::collections::{BTreeMap, BTreeSet};

use heck::ToSnakeCase as _;

use crate::text::{Fragment, Kind};
use crate::tree::{Fault, File, Tree};
use crate::vocabulary::{EXCEPTIONS, GOOD, NOT_READ, NOT_YET, Place, WORDS};

/// A forbidden token in a file.
#[derive(Debug)]
struct Hit<'a> {
    file: &'a str,
    line: usize,
    token: &'static str,
    instead: &'static str,
}

impl Hit<'_> {
    /// The folder of the file, or the file itself if it is in the first folder.
    fn folder(&self) -> &str {
        self.file.rsplit_once('/').map_or(self.file, |(folder, _)| folder)
    }
}

/// Reports the tokens outside of `NOT_YET`, and stale entries of the tables.
///
/// With the variable `WORDS` set to the beginning of paths, every token below it, rewritten or not.
pub(crate) fn check(tree: &Tree) -> Vec<Fault> {
    let all: Vec<Hit<'_>> = tree.files.iter().flat_map(hits).collect();
    let mut faults = Vec::new();
    let excused = |hit: &Hit<'_>| {
        EXCEPTIONS.iter().any(|(token, file, _)| *token == hit.token && hit.file.starts_with(file))
    };
    for (token, file, _) in EXCEPTIONS {
        if !all.iter().any(|hit| hit.token == *token && hit.file.starts_with(file)) {
            faults.push(format!(
                "EXCEPTIONS in tests/tidy: stale exception: remove {token} in {file}"
            ));
        }
    }
    let hits: Vec<_> = all.iter().filter(|hit| !excused(hit)).collect();
    let not_yet: BTreeSet<&str> = NOT_YET.split_whitespace().collect();
    let wanted = std::env::var("WORDS").ok();
    let later = |hit: &Hit<'_>| match &wanted {
        Some(start) => !hit.file.starts_with(start),
        None => not_yet.contains(hit.folder()),
    };
    for place in not_yet.iter().filter(|place| !hits.iter().any(|hit| hit.folder() == **place)) {
        faults.push(format!("NOT_YET in tests/tidy: {place} has none of the words: remove it"));
    }
    for Hit { file, line, token, instead } in hits.iter().filter(|hit| !later(hit)) {
        faults.push(format!("{file}:{line}: {token}: write {instead}"));
    }
    if !faults.is_empty() {
        let mut counts = BTreeMap::new();
        for hit in &hits {
            *counts.entry(hit.folder()).or_insert(0) += 1;
        }
        let counts: Vec<_> =
            counts.iter().map(|(folder, count)| format!("{count:6} {folder}")).collect();
        faults.push(format!(
            "{} in all; WORDS=FOLDER lists those of one folder:\n{}",
            hits.len(),
            counts.join("\n")
        ));
    }
    faults
}

/// The tokens in a file, its name included.
fn hits(file: &File) -> Vec<Hit<'_>> {
    if NOT_READ.iter().any(|start| file.path.starts_with(start)) {
        return Vec::new();
    }
    // Names occur many times: each is read once.
    let mut names = BTreeMap::from([(file.path.clone(), vec![0])]);
    let mut prose = Vec::new();
    let mut last = 0;
    for fragment in &file.fragments {
        let found = if fragment.kind == Kind::Name {
            vec![fragment.text.clone()]
        } else {
            if !(last..=last + 1).contains(&fragment.line) {
                prose.push(Word { line: last, text: ".".to_owned() });
            }
            last = fragment.line;
            sentence(fragment, &mut prose)
        };
        for name in found {
            names.entry(name).or_insert_with(Vec::new).push(fragment.line);
        }
    }
    hide_good(&mut prose);
    let mut found = tokens(&prose, Place::Prose);
    for (name, lines) in names {
        let snake = name.to_snake_case();
        let parts = snake.split('_').map(|part| Word { line: 0, text: part.to_owned() });
        let whole = [Word { line: 0, text: name }];
        let within = [tokens(&parts.collect::<Vec<_>>(), Place::Name), tokens(&whole, Place::Type)];
        found.extend(
            lines.iter().flat_map(|line| within.iter().flatten().map(|hit| (*line, hit.1, hit.2))),
        );
    }
    found.sort_unstable();
    found
        .into_iter()
        .map(|(line, token, instead)| Hit { file: &file.path, line, token, instead })
        .collect()
}

/// The tokens among words, with their lines and what to write instead.
fn tokens(words: &[Word], place: Place) -> Vec<(usize, &'static str, &'static str)> {
    let rules = || {
        WORDS.iter().filter(|(_, _, other)| {
            place == *other || *other == Place::Both && place != Place::Type
        })
    };
    let at = |at: usize| {
        rules().filter(move |(token, ..)| starts(words.get(at..).unwrap_or_default(), token))
    };
    let hit = |(number, word): (usize, &Word)| {
        at(number).map(|(token, instead, _)| (word.line, *token, *instead)).collect::<Vec<_>>()
    };
    words.iter().enumerate().flat_map(hit).collect()
}

/// A word, or a mark that ends a clause.
#[derive(Debug)]
struct Word {
    line: usize,
    text: String,
}

/// Splits prose into words; returns the names of code in it.
fn sentence(fragment: &Fragment, words: &mut Vec<Word>) -> Vec<String> {
    // Escapes of strings and fonts of manual pages are blanks; marks before the first word are
    // those of comments.
    let escapes = ["\\n", "\\t", "\\fB", "\\fI", "\\fR", "\\fP"];
    let text = escapes.iter().fold(fragment.text.clone(), |text, escape| text.replace(escape, " "));
    let text = text.trim_start_matches(|c: char| !c.is_alphanumeric() && c != '`');
    let mut names = Vec::new();
    for (number, part) in text.split('`').enumerate() {
        for piece in part.split_inclusive(|c: char| !c.is_alphanumeric() && c != '_' && c != '\'') {
            let word = piece.trim_matches(|c: char| !c.is_alphanumeric());
            if word.contains('_')
                || word.chars().skip(1).any(char::is_uppercase)
                    && word.chars().any(char::is_lowercase)
            {
                names.push(word.to_owned());
            } else if !word.is_empty() {
                words.push(Word { line: fragment.line, text: word.to_lowercase() });
                names.extend((number % 2 == 1).then(|| word.to_owned()));
            }
            if piece.ends_with(['.', ',', ';', ':', '(', ')', '!', '?', '"', '|']) {
                words.push(Word { line: fragment.line, text: ".".to_owned() });
            }
        }
    }
    names
}

/// Hides the phrases that are good although they hold a token.
fn hide_good(words: &mut [Word]) {
    for at in 0..words.len() {
        let rest = words.get_mut(at..).unwrap_or_default();
        if let Some(phrase) = GOOD.iter().find(|phrase| starts(rest, phrase)) {
            for word in rest.iter_mut().take(phrase.split(' ').count()) {
                word.text.clear();
            }
        }
    }
}

/// Whether words begin with those of a token.
fn starts(words: &[Word], token: &str) -> bool {
    // The first test decides almost always.
    words.first().is_some_and(|word| token.starts_with(&word.text))
        && token
            .split(' ')
            .eq(words.iter().map(|word| word.text.as_str()).take(token.split(' ').count()))
}

mod tests {
    use super::*;

    /// The tokens that one file holds, and their lines.
    fn found(path: &str, text: &str) -> Vec<(usize, &'static str)> {
        let tree = Tree::of(&[(path, text)]);
        tree.files.iter().flat_map(hits).map(|hit| (hit.line, hit.token)).collect()
    }

    #[test]
    fn each_form_of_text_is_read() {
        assert_eq!(found("a.md", "# A\nThis is Told."), [(2, "told")]);
        assert_eq!(found("a.5", "retold\n.B told\n\\fBtold\\fR"), [(2, "told"), (3, "told")]);
        assert_eq!(found("a.service", "# told\n"), [(1, "told")]);
        assert_eq!(found("told.toml", ""), [(0, "told")]);
        for rust in [
            "// told",
            "/// Told.\nfn f() {}",
            "fn f() { \"\\ntold\" }",
            "fn is_told() {}",
            "struct ToldBytes;",
        ] {
            assert_eq!(found("a.rs", rust), [(1, "told")], "{rust}");
        }
        assert_eq!(found("a.rs", "fn f() { m!(x, told) } /* a\n told */").len(), 2);
        for python in ["# told", "\"\"\"Told.\"\"\"", "def is_told(): pass"] {
            assert_eq!(found("a.py", python), [(1, "told")], "{python}");
        }
    }

    #[test]
    fn tokens_are_whole_words_of_one_clause() {
        assert_eq!(found("a.md", "as many; so\nmany of them"), [(1, "so many")]);
        assert_eq!(found("a.rs", "/// Takes so\n/// many bytes.\nfn f() {}"), [(1, "so many")]);
        assert_eq!(found("a.md", "so. Many"), []);
        assert_eq!(found("a.md", "it is no longer, there is no X, akin"), []);
        assert_eq!(found("a.md", "that is no X"), [(1, "is no")]);
    }

    #[test]
    fn names_and_prose_have_tokens_of_their_own() {
        assert_eq!(found("a.md", "a plane beside a car, and Taken together"), []);
        assert_eq!(found("a.rs", "fn f(beside: Taken) {}"), [(1, "Taken"), (1, "beside")]);
        assert_eq!(
            found("a.md", "see `beside` and SocketFacts"),
            [(1, "SocketFacts"), (1, "beside")]
        );
    }

    #[test]
    fn tables_have_no_stale_entries() {
        let faults = check(&Tree::of(&[("a/b.md", "told")]));
        assert_eq!(faults.iter().filter(|fault| fault.starts_with("a/b.md:1: told")).count(), 1);
        let stale = faults.iter().filter(|fault| fault.contains("in tests/tidy"));
        assert_eq!(stale.count(), EXCEPTIONS.len() + NOT_YET.split_whitespace().count());
    }
}
