//! Crates, their modules, and what a path in a file means.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{File, Tree};

#[derive(Debug)]
pub(crate) struct Graph<'a> {
    crates: Vec<Crate<'a>>,
    /// Each file's crate and module.
    places: BTreeMap<&'a str, (usize, Vec<String>)>,
}

/// A crate: library, program or test.
#[derive(Debug)]
pub(crate) struct Crate<'a> {
    pub(crate) root: &'a str,
    /// The name that other crates use for it, if it is a library.
    name: Option<String>,
    /// Modules, such as `["address", "read"]`, and their files.
    modules: BTreeMap<Vec<String>, &'a str>,
}

impl<'a> Graph<'a> {
    /// Finds crates: a source that no other source declares is the root of one.
    pub(crate) fn of(tree: &'a Tree) -> Self {
        let children = |file: &'a File| {
            let modules = file.source.modules.iter();
            modules.filter_map(|(path, _)| Some((path.clone(), tree.module(&file.path, path)?)))
        };
        let declared: BTreeSet<&str> =
            tree.rust().flat_map(children).map(|(_, file)| file).collect();
        let mut graph = Self { crates: Vec::new(), places: BTreeMap::new() };
        for root in tree.rust().filter(|file| !declared.contains(file.path.as_str())) {
            let mut modules = BTreeMap::new();
            let mut open = vec![(Vec::new(), root.path.as_str())];
            while let Some((module, path)) = open.pop() {
                let below = tree.file(path).into_iter().flat_map(children);
                open.extend(below.map(|(name, path)| ([module.clone(), name].concat(), path)));
                graph.places.insert(path, (graph.crates.len(), module.clone()));
                modules.insert(module, path);
            }
            let name =
                root.path.strip_suffix("src/lib.rs").and_then(|folder| package(tree, folder));
            graph.crates.push(Crate { root: &root.path, name, modules });
        }
        graph
    }

    /// Files that no module declares and that are not the root of a target either: nothing compiles
    /// them, or this does not know how.
    pub(crate) fn strays(&self) -> impl Iterator<Item = &'a str> {
        let is_root = |root: &&str| {
            let mut parts = root.rsplit('/');
            ["lib.rs", "main.rs"].contains(&parts.next().unwrap_or_default())
                || ["tests", "examples", "fuzz_targets"].contains(&parts.next().unwrap_or_default())
        };
        self.crates.iter().map(|own| own.root).filter(move |root| !is_root(root))
    }

    /// The crate of a file, and its module there.
    pub(crate) fn place(&self, file: &str) -> Option<(&Crate<'a>, &[String])> {
        let (number, module) = self.places.get(file)?;
        Some((self.crates.get(*number)?, module))
    }

    /// The crate that a path leads into, if it is one of ours, the file in which its last words are
    /// looked up, and the path from the crate's root.
    pub(crate) fn meaning(
        &self,
        file: &File,
        words: &[String],
        line: usize,
    ) -> Option<(&Crate<'a>, &'a str, Vec<String>)> {
        let (mut home, module) = self.place(&file.path)?;
        let mut path = [module, file.source.inside(line)].concat();
        let (first, mut rest) = words.split_first()?;
        match first.as_str() {
            "crate" => path.clear(),
            "self" => {}
            "super" => {
                path.pop();
                while let Some((_, behind)) =
                    rest.split_first().filter(|(word, _)| *word == "super")
                {
                    path.pop();
                    rest = behind;
                }
            }
            _ if home
                .modules
                .contains_key(&[path.as_slice(), std::slice::from_ref(first)].concat()) =>
            {
                rest = words;
            }
            _ => {
                home = self.crates.iter().find(|other| other.name.as_ref() == Some(first))?;
                path.clear();
            }
        }
        path.extend_from_slice(rest);
        let looked_up =
            (0..=path.len()).rev().find_map(|end| home.modules.get(path.get(..end)?))?;
        Some((home, looked_up, path))
    }

    /// References between files of one crate that are not for tests: from, to, and the name. Cargo
    /// keeps crates free of cycles, and a unit test may use what is above the unit.
    pub(crate) fn edges(&self, tree: &Tree) -> Vec<(String, String, String)> {
        let mut found = Vec::new();
        for file in tree.rust() {
            let own = self.place(&file.path).map(|(own, _)| own.root);
            for (words, line) in
                file.source.paths.iter().filter(|(_, line)| !file.source.is_test(*line))
            {
                if let Some((home, to, path)) = self.meaning(file, words, *line)
                    && to != file.path
                    && own == Some(home.root)
                {
                    let name = path.last().cloned().unwrap_or_default();
                    found.push((file.path.clone(), to.to_owned(), name));
                }
            }
        }
        found
    }
}

/// The name of the package in a folder, as Rust code writes it.
fn package(tree: &Tree, folder: &str) -> Option<String> {
    let manifest: toml::Table = tree.file(&format!("{folder}Cargo.toml"))?.text.parse().ok()?;
    Some(manifest.get("package")?.get("name")?.as_str()?.replace('-', "_"))
}
