//! The files of the project, as text.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::tokens::{self, Token};

/// Folders that hold nothing of ours: what builds and fuzzing leave, and bytes.
const SKIPPED: [&str; 6] = ["target", "artifacts", "corpus", "coverage", "dist", "__pycache__"];
/// The only folders with a leading dot that are read.
const READ: [&str; 2] = [".ci", ".config"];

/// A text file.
#[derive(Debug)]
pub struct File {
    /// Its path from the root, with `/`.
    pub path: String,
    /// What is in it.
    pub text: String,
    /// Whether it is compiled for tests only.
    pub test: bool,
}

/// The whole project.
#[derive(Debug)]
pub struct Tree {
    /// The folder of the workspace.
    pub root: PathBuf,
    /// Its text files, sorted by path.
    pub files: Vec<File>,
}

impl Tree {
    /// Reads the tree that this crate is part of.
    pub fn load() -> io::Result<Self> {
        // Cargo's word at run time: that of compile time is another clone's where clones share a target folder.
        let package =
            env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&package).join("../..").canonicalize()?;
        let mut paths = Vec::new();
        walk(&root, &mut paths)?;
        paths.sort();
        let mut files = Vec::new();
        for path in paths {
            // What is not UTF-8 is no text.
            let Ok(text) = String::from_utf8(fs::read(&path)?) else { continue };
            let path = path.strip_prefix(&root).unwrap_or(&path).to_string_lossy().into_owned();
            files.push(File { path, text, test: false });
        }
        Ok(Self { root, files: marked(files) })
    }

    /// A tree of files that are made up, for the tests of rules.
    pub fn of(files: &[(&str, &str)]) -> Self {
        let file = |&(path, text): &(&str, &str)| File {
            path: path.to_owned(),
            text: text.to_owned(),
            test: false,
        };
        Self { root: PathBuf::new(), files: marked(files.iter().map(file).collect()) }
    }

    /// The file at a path.
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Rust sources.
    pub fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is("rs"))
    }

    /// Whether a path leads to a file, or to a folder that holds one.
    pub fn has(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        self.root.join(path).exists()
            || self.files.iter().any(|file| file.path == path || file.path.starts_with(&folder))
    }
}

impl File {
    /// Whether its name ends so.
    pub fn is(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == extension)
    }

    /// The tokens of what is shipped: nothing of a test file, no test modules.
    pub fn shipped(&self) -> Vec<Token<'_>> {
        if self.test { Vec::new() } else { tokens::without_tests(&self.tokens()) }
    }

    /// All tokens.
    pub fn tokens(&self) -> Vec<Token<'_>> {
        tokens::tokens(&self.text)
    }
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let hidden = name.starts_with('.') && !READ.contains(&name.as_ref());
        if kind.is_dir() && !hidden && !SKIPPED.contains(&name.as_ref()) {
            walk(&path, paths)?;
        } else if kind.is_file() {
            paths.push(path);
        }
    }
    Ok(())
}

/// Marks what is compiled for tests only: the folder `tests`, `tests/` of a crate, and modules
/// declared under `#[cfg(test)]`.
fn marked(mut files: Vec<File>) -> Vec<File> {
    let mut modules = BTreeSet::new();
    for file in files.iter().filter(|file| file.is("rs")) {
        let folder = module_folder(&file.path);
        for name in tokens::test_modules(&file.tokens()) {
            modules.insert(format!("{folder}/{name}.rs"));
            modules.insert(format!("{folder}/{name}/mod.rs"));
        }
    }
    for file in &mut files {
        file.test = file.path.starts_with("tests/")
            || file.path.contains("/tests/")
            || modules.contains(&file.path);
    }
    files
}

/// Where the modules that a file declares are.
fn module_folder(path: &str) -> &str {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    match path.rsplit('/').next() {
        Some("mod.rs" | "lib.rs" | "main.rs") => folder,
        _ => path.strip_suffix(".rs").unwrap_or(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_declared_for_tests_are_test_files() {
        let tree = Tree::of(&[
            ("a/src/lib.rs", "#[cfg(test)]\nmod probe;\nmod b;\n"),
            ("a/src/probe.rs", ""),
            ("a/src/b.rs", "#[cfg(test)] mod tests;"),
            ("a/src/b/tests.rs", ""),
            ("a/tests/it.rs", ""),
        ]);
        let tests: Vec<_> =
            tree.files.iter().filter(|file| file.test).map(|file| file.path.as_str()).collect();
        assert_eq!(tests, ["a/src/probe.rs", "a/src/b/tests.rs", "a/tests/it.rs"]);
    }
}
