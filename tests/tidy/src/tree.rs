//! The files of the project, parsed once for all rules.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use crate::source::Source;
use crate::text::{Fragment, Kind};

/// Folders that hold nothing of ours: what builds and fuzzing leave, and bytes.
const SKIPPED: [&str; 6] = ["target", "artifacts", "corpus", "coverage", "dist", "__pycache__"];
/// The only folders with a leading dot that are read.
const READ: [&str; 2] = [".ci", ".config"];

/// A broken rule: where, what is wrong, and what to do.
pub(crate) type Fault = String;

#[derive(Debug, Default)]
pub(crate) struct File {
    /// Its path from the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// Whether it is compiled for tests only.
    pub(crate) test: bool,
    pub(crate) source: Source,
    pub(crate) fragments: Vec<Fragment>,
}

#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
    /// Its text files, sorted by path.
    pub(crate) files: Vec<File>,
    /// Imports between Python files: from, to, name.
    pub(crate) python: Vec<(String, String, String)>,
}

impl Tree {
    pub(crate) fn load() -> Self {
        // The variable at run time: clones that share a target folder share what was compiled.
        let package =
            env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root =
            Path::new(&package).join("../..").canonicalize().expect("the workspace's folder");
        let mut paths = Vec::new();
        walk(&root, &mut paths).expect("folders that can be read");
        let mut files = Vec::new();
        for path in paths {
            let bytes = fs::read(&path).expect("files that can be read");
            // Other files are not text.
            let Ok(text) = String::from_utf8(bytes) else { continue };
            let path = path.strip_prefix(&root).unwrap_or(&path).to_string_lossy().into_owned();
            files.push((path, text));
        }
        Self::parsed(root, files)
    }

    /// A tree of the given files, for the tests of rules.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        Self::parsed(PathBuf::new(), files.collect())
    }

    fn parsed(root: PathBuf, mut files: Vec<(String, String)>) -> Self {
        files.sort();
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let Python { imports, mut fragments } = python(&files);
        let mut files: Vec<File> = thread::scope(|scope| {
            let parts: Vec<_> = files
                .chunks(files.len().div_ceil(threads * 4).max(1))
                .map(|part| scope.spawn(|| part.iter().map(parse).collect::<Vec<_>>()))
                .collect();
            parts
                .into_iter()
                .flat_map(|part| part.join().expect("sources that can be parsed"))
                .collect()
        });
        for file in &mut files {
            file.fragments.extend(fragments.remove(&file.path).unwrap_or_default());
        }
        let mut tree = Self { root, files, python: imports };
        tree.mark_tests();
        tree
    }

    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files
            .binary_search_by_key(&path, |file| &file.path)
            .ok()
            .and_then(|at| self.files.get(at))
    }

    pub(crate) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is("rs"))
    }

    /// Whether a path leads to a file, or to a folder that holds one.
    pub(crate) fn has(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        self.root.join(path).exists()
            || self.files.iter().any(|file| file.path == path || file.path.starts_with(&folder))
    }

    /// The file of a module that a file declares.
    pub(crate) fn module(&self, file: &str, path: &[String]) -> Option<&str> {
        let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
        let below = format!("{folder}/{}", name.trim_end_matches(".rs"));
        // The root of a crate, whatever its name, has its modules beside it.
        let places = if ["mod.rs", "lib.rs", "main.rs"].contains(&name) {
            [folder, folder]
        } else {
            [&below, folder]
        };
        let candidates = places.iter().flat_map(|place| {
            let stem = format!("{place}/{}", path.join("/"));
            [format!("{stem}.rs"), format!("{stem}/mod.rs")]
        });
        candidates.into_iter().find_map(|path| self.file(&path)).map(|file| file.path.as_str())
    }

    /// Marks what is compiled for tests only: folders named `tests`, and modules declared so.
    fn mark_tests(&mut self) {
        let mut tests = BTreeSet::new();
        for file in &self.files {
            let declared =
                file.source.modules.iter().filter(|(_, line)| file.source.is_test(*line));
            tests.extend(
                declared.filter_map(|(path, _)| self.module(&file.path, path).map(str::to_owned)),
            );
        }
        for file in &mut self.files {
            let folder = file.path.starts_with("tests/") || file.path.contains("/tests/");
            file.test = folder || tests.contains(&file.path);
        }
    }
}

impl File {
    /// Whether it is that place or within it.
    pub(crate) fn is_in(&self, place: &str) -> bool {
        self.path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    pub(crate) fn is(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == extension)
    }
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let hidden = name.starts_with('.') && !READ.contains(&name.as_ref());
        if kind.is_dir() && !hidden && !SKIPPED.contains(&name.as_ref()) {
            walk(&path, paths)?;
        } else if kind.is_file() && name != ".git" {
            paths.push(path);
        }
    }
    Ok(())
}

fn parse((path, text): &(String, String)) -> File {
    let mut file = File { path: path.clone(), text: text.clone(), ..File::default() };
    if file.is("rs") {
        file.source = Source::parse(text)
            .map_err(|error| format!("{path}: {error}"))
            .expect("a source that can be parsed");
        file.fragments = std::mem::take(&mut file.source.fragments);
    } else if !file.is("py") {
        let line = |(number, text): (usize, &str)| Fragment {
            line: number + 1,
            kind: Kind::Comment,
            text: text.to_owned(),
        };
        file.fragments = text.lines().enumerate().map(line).collect();
    }
    file
}

/// What Python's own parser reports of the Python sources.
#[derive(Default, serde::Deserialize)]
struct Python {
    imports: Vec<(String, String, String)>,
    fragments: BTreeMap<String, Vec<Fragment>>,
}

fn python(files: &[(String, String)]) -> Python {
    let is_python = |path: &str| Path::new(path).extension().is_some_and(|end| end == "py");
    let sources: BTreeMap<_, _> =
        files.iter().filter(|(path, _)| is_python(path)).cloned().collect();
    if sources.is_empty() {
        return Python::default();
    }
    let mut child = Command::new("python3")
        .args(["-c", include_str!("python.py")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3, which the tests of the clients need as well");
    let input = serde_json::to_vec(&sources).expect("text is JSON");
    child.stdin.take().expect("a pipe").write_all(&input).expect("a script that reads all");
    let output = child.wait_with_output().expect("a child of ours");
    serde_json::from_slice(&output.stdout).expect("the script's answer")
}

mod tests {
    use super::*;

    #[test]
    fn modules_declared_for_tests_are_test_files() {
        let tree = Tree::of(&[
            ("a/src/b.rs", "#[cfg(test)] mod tests;"),
            ("a/src/b/tests.rs", ""),
            ("a/src/lib.rs", "#[cfg(test)]\nmod probe;\nmod b;\n"),
            ("a/src/probe.rs", ""),
            ("a/tests/it.rs", ""),
        ]);
        let tests: Vec<_> =
            tree.files.iter().filter(|file| file.test).map(|file| file.path.as_str()).collect();
        assert_eq!(tests, ["a/src/b/tests.rs", "a/src/probe.rs", "a/tests/it.rs"]);
    }
}
