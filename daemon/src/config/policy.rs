//! The policy's files: the main file and those of its drop-in folder.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use sockbroker_sys::{accounts, interface, peer};

use sockbroker_policy::Policy;
use sockbroker_policy::check::check;
use sockbroker_policy::file::{Directory, FileError, Warning, read};
use sockbroker_policy::name::Pattern;
use sockbroker_policy::rule::{Effect, Rule};

/// The main file if the command line names none.
pub const DEFAULT: &str = "/etc/sockbroker/policy.toml";

/// Files that cannot be used; the broker keeps the policy it has.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The content of a file is not a policy.
    #[error("{0}")]
    Content(FileError),
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    /// Two files have a rule with the same name.
    #[error("{place}: the name `{name}` is taken by the rule at {first}")]
    Twice {
        name: String,
        /// The file, line and column of the first.
        first: String,
        /// The file, line and column of the second.
        place: String,
    },
}

/// The rules of all files together.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The rules, in the order of the files and within them, with file, line and column.
    pub rules: Vec<(Rule, String)>,
    pub files: Vec<PathBuf>,
    /// Whether loading them closes sockets that they do not grant.
    pub revokes: bool,
    /// Warnings about rules that are probably mistakes.
    pub warnings: Vec<Warning>,
    /// Files without a rule.
    empty: Vec<String>,
}

impl Loaded {
    /// The policy of a broker that runs as `owner`.
    pub fn into_policy(self, owner: u32) -> Policy {
        let rules = self.rules.into_iter().map(|(rule, _)| rule);
        let files = self.files.iter().map(|file| file.display().to_string());
        Policy::new(owner, rules.collect(), self.revokes).read_from(files.collect())
    }
}

/// The names of this host (`getpwnam(3)`, `getgrnam(3)`).
#[derive(Debug, Clone, Copy)]
pub struct Accounts;

impl Directory for Accounts {
    fn user(&self, name: &str) -> Option<u32> {
        accounts::user(name)
    }

    fn group(&self, name: &str) -> Option<u32> {
        accounts::group(name)
    }
}

/// The folder that contains a policy file and its drop-in folder.
pub fn folder(named: &Path) -> PathBuf {
    match named.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Reads a policy. A file that was named must exist, the default one need not.
pub fn load(named: Option<&Path>) -> Result<Loaded, PolicyError> {
    load_files(&files_of(named)?)
}

/// The files of a policy, in the order in which they are read.
pub fn files_of(named: Option<&Path>) -> Result<Vec<PathBuf>, PolicyError> {
    let main = named.unwrap_or(Path::new(DEFAULT));
    let mut files = Vec::new();
    // A file that cannot be examined exists; reading it fails with the reason.
    if named.is_some() || main.try_exists().unwrap_or(true) {
        files.push(main.to_owned());
    }
    files.extend(drop_ins(main)?);
    Ok(files)
}

/// What a process needs that puts a policy in force and reads no file and no database of users: the texts, and
/// the ids of the names in them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedPolicy {
    /// The broker's own user.
    owner: u32,
    /// The paths of the files, in any encoding, and their texts.
    texts: Vec<(OsString, String)>,
    users: BTreeMap<String, Option<u32>>,
    groups: BTreeMap<String, Option<u32>>,
}

impl ResolvedPolicy {
    /// Reads files in this order, for a broker that runs as `owner`. Returns also what was found in them.
    pub fn read(files: &[PathBuf], owner: u32) -> Result<(Self, Loaded), PolicyError> {
        let recorded = RefCell::new(Self { owner, ..Self::default() });
        let texts = read_texts(files)?;
        let loaded = load_texts(&texts, &Recorder(&recorded))?;
        let texts = texts.into_iter().map(|(path, text)| (path.into_os_string(), text)).collect();
        Ok((Self { texts, ..recorded.into_inner() }, loaded))
    }

    /// The bytes that [`ResolvedPolicy::decode`] reads.
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        postcard::to_stdvec(self).map_err(|error| error.to_string())
    }

    /// Reads what [`ResolvedPolicy::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        postcard::from_bytes(bytes).map_err(|error| error.to_string())
    }

    /// The policy.
    pub fn into_policy(self) -> Result<Policy, PolicyError> {
        let texts = self.texts.iter().map(|(path, text)| (path.into(), text.clone()));
        Ok(rules_of(&texts.collect::<Vec<_>>(), &self)?.into_policy(self.owner))
    }
}

impl Directory for ResolvedPolicy {
    fn user(&self, name: &str) -> Option<u32> {
        self.users.get(name).copied().flatten()
    }

    fn group(&self, name: &str) -> Option<u32> {
        self.groups.get(name).copied().flatten()
    }
}

/// Looks names up, and notes what it finds.
struct Recorder<'a>(&'a RefCell<ResolvedPolicy>);

impl Directory for Recorder<'_> {
    fn user(&self, name: &str) -> Option<u32> {
        let mut recorded = self.0.borrow_mut();
        *recorded.users.entry(name.to_owned()).or_insert_with(|| Accounts.user(name))
    }

    fn group(&self, name: &str) -> Option<u32> {
        let mut recorded = self.0.borrow_mut();
        *recorded.groups.entry(name.to_owned()).or_insert_with(|| Accounts.group(name))
    }
}

/// Reads files in this order.
pub fn load_files(files: &[PathBuf]) -> Result<Loaded, PolicyError> {
    load_texts(&read_texts(files)?, &Accounts)
}

fn read_texts(files: &[PathBuf]) -> Result<Vec<(PathBuf, String)>, PolicyError> {
    let read = |path: &PathBuf| {
        let fail = |error| PolicyError::Read { path: path.clone(), error };
        Ok((path.clone(), std::fs::read_to_string(path).map_err(fail)?))
    };
    files.iter().map(read).collect()
}

/// Makes a policy of the texts of its files, and checks whether its rules are probably mistakes.
fn load_texts(
    texts: &[(PathBuf, String)],
    directory: &dyn Directory,
) -> Result<Loaded, PolicyError> {
    let mut loaded = rules_of(texts, directory)?;
    loaded.warnings.extend(check(&loaded.rules));
    if !peer::has_peer_pidfd() {
        loaded.warnings.extend(unknown_units(&loaded.rules));
    }
    Ok(loaded)
}

/// The rules of the texts of files.
fn rules_of(texts: &[(PathBuf, String)], directory: &dyn Directory) -> Result<Loaded, PolicyError> {
    let files = texts.iter().map(|(path, _)| path.clone()).collect();
    let mut loaded = Loaded { files, ..Loaded::default() };
    let mut places = BTreeMap::new();
    for (path, text) in texts {
        let origin = path.display().to_string();
        let content = read(&origin, text, directory).map_err(PolicyError::Content)?;
        loaded.revokes |= content.revokes;
        loaded.warnings.extend(content.warnings);
        if content.rules.is_empty() {
            loaded.empty.push(origin.clone());
        }
        for (rule, line) in content.rules {
            let place = format!("{origin}:{line}");
            if let Some(first) = places.insert(rule.name.clone(), place.clone()) {
                return Err(PolicyError::Twice { name: rule.name.to_string(), first, place });
            }
            loaded.rules.push((rule, place));
        }
    }
    Ok(loaded)
}

/// Warns of rules about units and control groups, on a kernel that does not report which process connected.
fn unknown_units(rules: &[(Rule, String)]) -> Vec<Warning> {
    let about = |rule: &Rule| !(rule.subject.units.is_empty() && rule.subject.cgroups.is_empty());
    let warning = |(rule, place): &(Rule, String)| {
        let effect = match rule.effect {
            Effect::Allow => "the rule grants nothing",
            Effect::Deny => "the rule refuses clients in any unit",
        };
        let message = format!(
            "rule `{}` names units or control groups, which this kernel does not report for a client \
             (Linux 6.5 does): {effect}",
            rule.name
        );
        Warning { position: place.clone(), message }
    };
    rules.iter().filter(|(rule, _)| about(rule)).map(warning).collect()
}

/// Warns of files without a rule, or of no file at all. The broker can run: the built-in rules remain.
pub fn missing_rules(loaded: &Loaded) -> Vec<Warning> {
    if loaded.files.is_empty() {
        let folder = Path::new(DEFAULT).with_extension("d");
        let message = format!("there is no such file, and none in {}", folder.display());
        return vec![Warning { position: DEFAULT.to_owned(), message }];
    }
    let warning = |file: &String| Warning {
        position: format!("{file}:1:1"),
        message: "the file has no rules".to_owned(),
    };
    loaded.empty.iter().map(warning).collect()
}

/// Warns of units and interfaces that rules name and this host does not have. They may appear later, so the
/// broker starts without this check.
pub fn missing_on_host(loaded: &Loaded) -> Vec<Warning> {
    let interfaces = interface::list().unwrap_or_default();
    let mut warnings = Vec::new();
    for (rule, place) in &loaded.rules {
        let mut warn = |what: &str, name: &str| {
            let message = format!("rule `{}`: there is no {what} `{name}` now", rule.name);
            warnings.push(Warning { position: place.clone(), message });
        };
        // Interfaces of a rule with netns are those of other network namespaces.
        let here = rule.fields.netns.is_empty();
        for name in rule.fields.interface.iter().filter_map(Pattern::name).filter(|_| here) {
            if interfaces.iter().all(|(_, known)| known != name) {
                warn("interface", name);
            }
        }
        for name in rule.subject.units.iter().filter_map(Pattern::name) {
            if !is_unit(name) {
                warn("unit", name);
            }
        }
    }
    warnings
}

/// Whether a unit exists. Scopes are created at run time and have no file.
fn is_unit(name: &str) -> bool {
    let template = name
        .split_once('@')
        .and_then(|(stem, rest)| rest.rsplit_once('.').map(|(_, kind)| format!("{stem}@.{kind}")));
    let named = |folder: &str, name: &str| Path::new(folder).join(name).exists();
    let folders = ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system"];
    name.rsplit_once('.').is_some_and(|(_, kind)| kind == "scope")
        || folders.iter().any(|folder| {
            named(folder, name) || template.as_deref().is_some_and(|name| named(folder, name))
        })
}

/// The files of the drop-in folder of a policy file, `policy.d` for `policy.toml`, by name.
fn drop_ins(main: &Path) -> Result<Vec<PathBuf>, PolicyError> {
    let folder = main.with_extension("d");
    let fail = |error| PolicyError::Read { path: folder.clone(), error };
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error)
            if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(fail(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use sockbroker_test_support::folder::Folder;

    use super::*;

    #[test]
    fn a_file_without_rules_and_no_file_are_warnings() {
        let folder = Folder::new();
        let file = folder.write("policy.toml", "version = 1\n");
        let loaded = load(Some(&file)).unwrap();
        let warnings = |loaded| missing_rules(loaded).iter().map(ToString::to_string).collect();
        let found: Vec<String> = warnings(&loaded);
        assert_eq!(found, [format!("{}:1:1: the file has no rules", file.display())]);
        let found: Vec<String> = warnings(&Loaded::default());
        assert_eq!(
            found,
            [format!("{DEFAULT}: there is no such file, and none in /etc/sockbroker/policy.d")]
        );
    }

    #[test]
    fn a_resolved_policy_is_the_same_without_files_and_databases() {
        let folder = Folder::new();
        let text = "version = 1\n\
            [[rule]]\nname = \"a\"\nallow = [\"hostname\"]\nsubject = { users = [\"root\", \"nosuchuser\"] }\n\
            [[rule]]\nname = \"b\"\nallow = [\"hostname\"]\nsubject = { groups = [\"root\"] }\n";
        let file = folder.write("policy.toml", text);
        let (resolved, loaded) = ResolvedPolicy::read(&[file], 7).unwrap();
        let bytes = resolved.encode().unwrap();
        drop(folder);
        let found = ResolvedPolicy::decode(&bytes).unwrap().into_policy().unwrap();
        let expected = loaded.into_policy(7);
        assert_eq!(format!("{found:?}"), format!("{expected:?}"));
        assert!(found.is_owner(7) && found.rules()[0].subject.uids == Some(vec![0]));
    }

    #[test]
    fn rules_about_units_are_warned_of_where_the_kernel_reports_none() {
        let text = "version = 1\n\
            [[rule]]\nname = \"a\"\nallow = [\"hostname\"]\nsubject = { units = [\"x.service\"] }\n\
            [[rule]]\nname = \"b\"\ndeny = [\"hostname\"]\nsubject = { cgroups = [\"/x\"] }\n\
            [[rule]]\nname = \"c\"\nallow = [\"hostname\"]\nsubject = { uids = [7] }\n";
        let content = read("p", text, &Accounts).unwrap();
        let rules: Vec<_> =
            content.rules.into_iter().map(|(rule, line)| (rule, format!("p:{line}"))).collect();
        let found: Vec<_> = unknown_units(&rules).iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("p:2:1: rule `a` ") && found[0].ends_with("grants nothing"));
        assert!(
            found[1].contains("rule `b` ") && found[1].ends_with("refuses clients in any unit")
        );
    }
}
