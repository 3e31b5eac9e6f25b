//! Landlock (`landlock(7)`): the files that the broker can open.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus,
};
use sockbroker_proto::api::broker::Landlock;

/// Files that the broker needs after its start in addition to those of the system.
#[derive(Debug, Default)]
pub struct Files {
    /// Files and folders that are read again: configuration and policy.
    pub read: Vec<PathBuf>,
    /// Folders in which the broker writes and removes files: those of its socket and of its audit file.
    pub write: Vec<PathBuf>,
}

impl Files {
    /// Folders that are read, also if they are made later: of one that does not exist, the nearest folder above it.
    #[must_use]
    pub fn with_folders<'a>(mut self, folders: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        let nearest =
            |path: &PathBuf| path.ancestors().find(|path| path.is_dir()).map(PathBuf::from);
        self.read.extend(folders.into_iter().filter_map(nearest));
        self
    }
}

/// The sources of name service, time zone and control groups. `/nix` and `/gnu` are the `/usr` of the systems
/// that have them.
pub(super) const SYSTEM: [&str; 14] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/run",
    "/proc",
    "/sys",
    "/var/lib/sss",
    "/var/lib/extrausers",
    "/var/db",
    "/dev",
    "/nix/store",
    "/gnu/store",
];

/// The requested protections: those of Linux 6.10. An older kernel applies those that it knows.
const VERSION: ABI = ABI::V5;

/// Restricts this thread, and threads that it starts, to these files. `system` is read only. Returns how much of
/// that the kernel applies, and its version of Landlock.
///
/// The creation of socket files is not restricted: the policy judges `AF_UNIX` addresses of clients, and
/// the broker binds them with the client's identity.
pub(super) fn restrict(
    system: &[&str],
    files: &Files,
) -> Result<(Landlock, Option<u32>), RulesetError> {
    let handled = AccessFs::from_all(VERSION) & !BitFlags::from(AccessFs::MakeSock);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write =
        read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::RemoveFile;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(handled)?
        .create()?;
    for path in system.iter().map(Path::new).chain(files.read.iter().map(AsRef::as_ref)) {
        rules = allow(rules, path, read)?;
    }
    for path in &files.write {
        rules = allow(rules, path, write)?;
    }
    rules = allow(rules, Path::new("/dev/null"), read | AccessFs::WriteFile)?;
    let status = rules.restrict_self()?;
    let version = match status.landlock {
        LandlockStatus::Available { effective_abi, kernel_abi } => {
            u32::try_from(kernel_abi.unwrap_or(effective_abi as i32)).ok()
        }
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => None,
    };
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => (Landlock::Full, version),
        RulesetStatus::PartiallyEnforced => (Landlock::Partial, version),
        RulesetStatus::NotEnforced => (Landlock::None, None),
    })
}

/// Allows accesses below a path. A path that does not exist is skipped.
fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    let Ok(opened) = PathFd::new(path) else {
        return Ok(rules);
    };
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(VERSION) };
    rules.add_rule(PathBeneath::new(opened, access))
}
