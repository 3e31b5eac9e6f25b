//! Landlock (`landlock(7)`): which files the broker may open, whatever its user may.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus,
};

use super::Files;

/// What name service, time zone and processes' control groups are read from. `/nix` and `/gnu` are the
/// `/usr` of the systems that have them.
const SYSTEM: [&str; 14] = [
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

/// The protections asked for: those of Linux 6.10. An older kernel holds those it knows.
const VERSION: ABI = ABI::V5;

/// Lets this thread, and those it starts, open only the system's files and these. Says how much the
/// kernel holds of it.
///
/// Making sockets is left alone: `AF_UNIX` addresses of clients are judged by the policy, and bound
/// with the client's identity.
pub(super) fn restrict(files: &Files) -> Result<&'static str, RulesetError> {
    let handled = AccessFs::from_all(VERSION) & !BitFlags::from(AccessFs::MakeSock);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write =
        read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::RemoveFile;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(handled)?
        .create()?;
    for path in SYSTEM.iter().map(Path::new).chain(files.read.iter().map(AsRef::as_ref)) {
        rules = allow(rules, path, read)?;
    }
    for path in &files.write {
        rules = allow(rules, path, write)?;
    }
    rules = allow(rules, Path::new("/dev/null"), read | AccessFs::WriteFile)?;
    Ok(match rules.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => "full",
        RulesetStatus::PartiallyEnforced => "partial",
        RulesetStatus::NotEnforced => "none",
    })
}

/// Allows accesses below a path; one that does not exist has nothing to allow.
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
