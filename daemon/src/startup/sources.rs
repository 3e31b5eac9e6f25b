//! The sources of configuration and policy: the command line, else a credential of the service manager
//! (`LoadCredential=` of `systemd.exec(5)`), else `/etc/sockbroker`.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use sockbroker_policy::Policy;
use sockbroker_sys::sealed;

use super::args::Args;
use crate::config::policy::{self, Loaded, PolicyError, ResolvedPolicy};
use crate::config::remote::Remote;

/// The largest configuration, policy, or answer of another worker.
pub(super) const MEMORY: usize = 64 << 20;

/// The configuration file of the host.
const CONFIG: &str = "/etc/sockbroker/sockbrokerd.toml";
const CONFIG_CREDENTIAL: &str = "sockbrokerd.toml";
const POLICY_CREDENTIAL: &str = "policy.toml";

/// The configuration file; `None` means that the defaults apply.
pub(super) fn config(args: &Args) -> Option<PathBuf> {
    let of_host = || {
        if args.built_in_policy {
            return None;
        }
        credential(CONFIG_CREDENTIAL)
            .or_else(|| Some(PathBuf::from(CONFIG)).filter(|path| is_there(path)))
    };
    args.config.clone().or_else(of_host)
}

pub(super) fn load_policy(args: &Args) -> Result<Loaded, PolicyError> {
    if args.built_in_policy {
        return Ok(Loaded::default());
    }
    policy::load(named_policy(args).as_deref())
}

/// The policy's files, in the order in which they are read.
pub(super) fn policy_files(args: &Args) -> Result<Vec<PathBuf>, PolicyError> {
    if args.built_in_policy {
        return Ok(Vec::new());
    }
    policy::files_of(named_policy(args).as_deref())
}

/// The files of the gateway's credentials by their kinds: credentials of the service manager, else those of the
/// configuration.
pub(super) fn remote_files(remote: &Remote) -> Vec<(&'static str, PathBuf)> {
    let found = remote.files().into_iter().filter_map(|(kind, path)| {
        let path = credential(&format!("remote.{kind}")).or_else(|| path.cloned())?;
        Some((kind, path))
    });
    found.collect()
}

/// Reads the policy that the policy reader has written to sealed memory.
pub(super) fn read_sealed_policy(memory: &OwnedFd) -> Result<Policy, String> {
    let bytes = sealed::read(memory.as_fd(), MEMORY).map_err(|error| error.to_string())?;
    ResolvedPolicy::decode(&bytes)?.into_policy().map_err(|error| error.to_string())
}

/// Sealed memory with these bytes; `None` if this process cannot open more files.
pub(super) fn in_memory(name: &str, bytes: &[u8]) -> Option<OwnedFd> {
    let created = sealed::create(name, bytes);
    created.inspect_err(|error| tracing::debug!(%error, name, "cannot answer the monitor")).ok()
}

/// The files outside `/etc` that are read again while the broker serves.
pub(super) fn read_again(args: &Args) -> Vec<PathBuf> {
    // The folder, because an editor may replace the policy's file.
    let policies = named_policy(args).as_deref().map(policy::folder);
    config(args).into_iter().chain(policies).collect()
}

/// The policy file, unless it is the host's.
fn named_policy(args: &Args) -> Option<PathBuf> {
    args.policy.clone().or_else(|| credential(POLICY_CREDENTIAL))
}

/// The file of a credential, if the service manager passed it.
fn credential(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY")?;
    Some(Path::new(&folder).join(name)).filter(|path| is_there(path))
}

/// Whether a file exists. One that cannot be examined exists; reading it fails with the reason.
fn is_there(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}
