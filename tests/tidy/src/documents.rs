//! Documents: their links lead somewhere, and what they name is there.

use std::collections::BTreeSet;

use crate::tree::{Fault, File, Tree};

/// Paths of one machine and hosts of registries. The bar keeps this file free of them.
const MACHINE_WORDS: &str =
    "/wo|rk/ /tmp/|target /ro|ot/ index.|crates.io static.|crates.io pypi|.org
                             registry.|npmjs deb.|debian.org";

/// Relative links lead to files, and their fragments to headings.
pub(crate) fn links(tree: &Tree) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in tree.files.iter().filter(|file| file.is("md")) {
        for (line, target) in links_of(&file.text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() { file.path.clone() } else { joined(&file.path, path) };
            let document = tree.file(&path).filter(|file| !fragment.is_empty() && file.is("md"));
            let headed =
                document.is_none_or(|document| headings(&document.text).contains(fragment));
            if !tree.has(&path) || !headed {
                faults.push(format!("{}:{line}: {target} leads nowhere: correct it", file.path));
            }
        }
    }
    faults
}

/// ARCHITECTURE.md names what exists, and every folder of the first two levels.
pub(crate) fn architecture(tree: &Tree) -> Vec<Fault> {
    let Some(file) = tree.file("ARCHITECTURE.md") else {
        return vec!["no ARCHITECTURE.md".to_owned()];
    };
    let mut faults = Vec::new();
    for (line, span) in code_spans(&file.text).into_iter().filter(|(_, span)| is_path(span)) {
        if !is_somewhere(tree, span) {
            faults.push(format!("{}:{line}: `{span}` does not exist: correct the name", file.path));
        }
    }
    for folder in folders(tree) {
        let name = folder.rsplit('/').next().unwrap_or_default();
        if !file.text.contains(&format!("{name}/")) && !file.text.contains(&format!("`{name}`")) {
            faults.push(format!("{}: does not name {folder}/: say what is in it", file.path));
        }
    }
    faults
}

/// Whether a path, or the end of one, is in the tree.
fn is_somewhere(tree: &Tree, span: &str) -> bool {
    let (name, inside) = (format!("/{}", span.trim_end_matches('/')), format!("/{span}"));
    tree.has(span)
        || tree
            .files
            .iter()
            .map(|file| format!("/{}", file.path))
            .any(|path| path.ends_with(&name) || (span.ends_with('/') && path.contains(&inside)))
}

/// Nothing names one machine.
pub(crate) fn machine_words(tree: &Tree) -> Vec<Fault> {
    let words: Vec<String> =
        MACHINE_WORDS.split_whitespace().map(|word| word.replace('|', "")).collect();
    let mut faults = Vec::new();
    for file in tree.files.iter().filter(|file| !file.is("lock")) {
        for (number, line) in file.text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(*word)) {
                let place = format!("{}:{}", file.path, number + 1);
                faults.push(format!(
                    "{place}: {word} is of one machine: take it from the environment"
                ));
            }
        }
    }
    faults
}

/// Lines outside of fenced blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(number, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((number + 1, line))
    })
}

/// The targets of `[text](target)`.
fn links_of(text: &str) -> Vec<(usize, &str)> {
    let targets = |(number, line)| {
        let parts = str::split(line, "](").skip(1);
        parts.filter_map(move |part: &str| {
            let (target, _) = part.split_once(')')?;
            Some((number, target.split_whitespace().next()?))
        })
    };
    prose(text).flat_map(targets).collect()
}

/// What stands between backticks.
fn code_spans(text: &str) -> Vec<(usize, &str)> {
    let spans =
        |(number, line)| str::split(line, '`').skip(1).step_by(2).map(move |span| (number, span));
    prose(text).flat_map(spans).collect()
}

/// Whether a code span is the name of a file or folder of ours.
fn is_path(span: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    span.contains('/') && !span.starts_with('/') && span.chars().all(legal)
}

/// The anchors of headings, as links write them.
fn headings(text: &str) -> BTreeSet<String> {
    let titles = prose(text).filter_map(|(_, line)| line.starts_with('#').then_some(line));
    let anchor = |title: &str| {
        let title = title.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    titles.map(anchor).collect()
}

/// A relative target as a path from the root.
fn joined(from: &str, target: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.join("/")
}

/// The folders a newcomer sees first.
fn folders(tree: &Tree) -> BTreeSet<String> {
    let folder = |file: &File| {
        let parts: Vec<&str> = file.path.split('/').collect();
        match parts.as_slice() {
            [first, ..] if first.starts_with('.') => None,
            ["daemon", "src", third, _, ..] => Some(format!("daemon/src/{third}")),
            [first, second, _, ..] if *second != "src" => Some(format!("{first}/{second}")),
            [first, _, ..] => Some((*first).to_owned()),
            _ => None,
        }
    };
    tree.files.iter().filter_map(folder).collect()
}

mod tests {
    use super::*;

    #[test]
    fn links_without_a_target_are_reported() {
        let text =
            "[a](b.md) [c](../d/e.md#one-two) [x](https://x.y) [f](#f)\n# F!\n```\n[g](h)\n```\n";
        let tree = Tree::of(&[("docs/a.md", text), ("docs/b.md", ""), ("d/e.md", "## One: Two\n")]);
        assert_eq!(links(&tree), [""; 0]);
        let tree = Tree::of(&[("docs/a.md", "[a](b.md)\n[c](#nowhere)")]);
        assert_eq!(links(&tree).len(), 2);
    }

    #[test]
    fn the_architecture_names_what_exists() {
        let sources = ("daemon/src/ops/send.rs", "");
        let text = "`daemon/` has `ops/` and `ops/send.rs`, speaks `application/json; x` and `src`";
        assert_eq!(architecture(&Tree::of(&[sources, ("ARCHITECTURE.md", text)])), [""; 0]);
        let text = "`daemon/` has `ops/receive.rs`";
        assert_eq!(architecture(&Tree::of(&[sources, ("ARCHITECTURE.md", text)])).len(), 1);
        assert_eq!(architecture(&Tree::of(&[sources, ("ARCHITECTURE.md", "")])).len(), 1);
    }

    #[test]
    fn words_of_one_machine_are_reported() {
        let text = concat!("see /wo", "rk/main");
        assert_eq!(machine_words(&Tree::of(&[("a.md", text)])).len(), 1);
    }
}
