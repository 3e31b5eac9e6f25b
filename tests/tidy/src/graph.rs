//! Crates, their modules, and which file refers to which.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::Reference;
use crate::tree::{File, Tree};

/// The crates of the tree.
#[derive(Debug)]
pub struct Graph<'a> {
    crates: Vec<Crate<'a>>,
    /// Each file's crate and module.
    places: BTreeMap<&'a str, (usize, Vec<String>)>,
}

/// A crate: library, program or test.
#[derive(Debug)]
pub struct Crate<'a> {
    /// Its first file.
    pub root: &'a str,
    /// The name that other crates use for it, if it is a library.
    name: Option<String>,
    /// Modules, such as `["address", "read"]`, and their files.
    modules: BTreeMap<Vec<String>, &'a str>,
}

/// What a path means.
#[derive(Debug)]
pub enum Meaning<'a> {
    /// Something in a crate of ours: its crate, the file it is looked up in, and its path from the root.
    Ours(&'a Crate<'a>, &'a str, Vec<String>),
    /// Something in another crate, or a local name: the path as it is written.
    Other(&'a [String]),
}

impl<'a> Graph<'a> {
    /// Finds crates: a source that no other source declares is the root of one.
    pub fn of(tree: &'a Tree) -> Self {
        let children = |file: &'a File| {
            let declared = file.source.modules.iter();
            declared.filter_map(|module| {
                Some((module.path.clone(), tree.module(&file.path, &module.path)?))
            })
        };
        let declared: BTreeSet<&str> =
            tree.rust().flat_map(children).map(|(_, path)| path).collect();
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

    /// The crate of a file, and its module there.
    pub fn place(&self, file: &str) -> Option<(&Crate<'a>, &[String])> {
        let (number, module) = self.places.get(file)?;
        Some((self.crates.get(*number)?, module))
    }

    /// What a path in a file means.
    pub fn meaning<'b>(&'b self, file: &str, reference: &'b Reference) -> Meaning<'b> {
        self.ours(file, reference).unwrap_or(Meaning::Other(&reference.words))
    }

    fn ours(&self, file: &str, Reference { words, inside, .. }: &Reference) -> Option<Meaning<'_>> {
        let (own, module) = self.place(file)?;
        let mut base = [module, inside].concat();
        let mut rest = words.as_slice();
        let mut home = own;
        match words.first()?.as_str() {
            "crate" => (base, rest) = (Vec::new(), rest.get(1..)?),
            "self" => rest = rest.get(1..)?,
            "super" => {
                while let Some(("super", behind)) =
                    rest.split_first().map(|(word, rest)| (word.as_str(), rest))
                {
                    base.pop();
                    rest = behind;
                }
            }
            word if own.modules.contains_key(&[base.as_slice(), &[word.to_owned()]].concat()) => {}
            word => {
                home = self.crates.iter().find(|other| other.name.as_deref() == Some(word))?;
                (base, rest) = (Vec::new(), rest.get(1..)?);
            }
        }
        base.extend_from_slice(rest);
        let place = (0..=base.len()).rev().find_map(|end| home.modules.get(base.get(..end)?))?;
        Some(Meaning::Ours(home, place, base))
    }

    /// References between files of one crate, with the name that is used. Cargo keeps crates free of cycles.
    pub fn edges(&self, tree: &Tree, with_tests: bool) -> Vec<(String, String, String)> {
        let mut found = Vec::new();
        for file in tree.rust() {
            let paths = file.source.paths.iter();
            for path in paths.filter(|path| with_tests || !path.test) {
                if let Meaning::Ours(home, to, words) = self.meaning(&file.path, path)
                    && to != file.path
                    && self.place(&file.path).is_some_and(|(own, _)| own.root == home.root)
                {
                    found.push((
                        file.path.clone(),
                        to.to_owned(),
                        words.last().cloned().unwrap_or_default(),
                    ));
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
