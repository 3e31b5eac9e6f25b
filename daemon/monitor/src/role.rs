//! The roles of the program, and how a process of a role is started.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::OnceLock;

use sockbroker_sys::child::{self, Start};
use sockbroker_sys::events;

/// What a process of the broker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Serves one principal.
    Worker,
    /// Makes the system calls that need a capability, for the workers.
    Opener,
    /// Makes calls on `AF_UNIX` sockets with the ids of a caller.
    Caller,
    /// Reads the captures of a worker.
    Reader,
    /// Serves clients on other machines: terminates TLS.
    Gateway,
    /// Reads the policy and ends.
    PolicyReader,
    /// Closes descriptors and ends.
    Reaper,
}

impl Role {
    /// The roles that are started by name.
    pub const ALL: [Self; 7] = [
        Self::Worker,
        Self::Opener,
        Self::Caller,
        Self::Reader,
        Self::Gateway,
        Self::PolicyReader,
        Self::Reaper,
    ];

    /// The value of the hidden option `--role`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Opener => "opener",
            Self::Caller => "caller",
            Self::Reader => "reader",
            Self::Gateway => "gateway",
            Self::PolicyReader => "policy-reader",
            Self::Reaper => "reaper",
        }
    }

    /// The role of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.word() == word)
    }
}

/// The variables that processes of the broker get from the environment.
const VARIABLES: [&str; 4] =
    ["SOCKBROKER_LOG", "JOURNAL_STREAM", "CREDENTIALS_DIRECTORY", "RUST_BACKTRACE"];

/// The arguments before those of the broker, if another program contains it: its subcommand.
static SUBCOMMAND: OnceLock<&'static [&'static str]> = OnceLock::new();

/// Names the subcommand by which this program is the broker. To be called before the broker starts.
pub fn set_subcommand(arguments: &'static [&'static str]) {
    // A second call would be for the same program.
    SUBCOMMAND.set(arguments).ok();
}

/// Starts a process of this role, with `channel` as its standard input. It knows its parent's number, so that
/// it ends with it.
pub fn start(
    role: Role,
    name: &str,
    arguments: &[&OsStr],
    channel: OwnedFd,
    output: Stdio,
) -> io::Result<Child> {
    let kept = VARIABLES.iter().filter_map(|name| Some(((*name).into(), std::env::var_os(name)?)));
    let environment: Vec<(OsString, OsString)> = kept.collect();
    let parent = std::process::id().to_string();
    let own = ["--role", role.word(), "--parent", &parent];
    let all = SUBCOMMAND.get().copied().unwrap_or_default().iter().copied().chain(own);
    let all: Vec<_> = all.map(OsStr::new).chain(arguments.iter().copied()).collect();
    child::start(Start { name, arguments: &all, environment: &environment, input: channel, output })
}

/// The first steps of a process that was started by [`start`], repeated after it changes its ids: it cannot be traced,
/// and ends with its parent.
pub fn begin(parent: u32) -> io::Result<()> {
    child::refuse_tracing()?;
    // A signal for the whole process group, or for the control group of the service, is the monitor's to handle.
    events::ignore_termination()?;
    if child::end_with_parent(parent)? {
        Ok(())
    } else {
        Err(io::Error::other("the process that started this one has ended"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_its_own_word() {
        for role in Role::ALL {
            assert_eq!(Role::from_word(role.word()), Some(role));
        }
        assert_eq!(Role::from_word("monitor"), None);
    }
}
