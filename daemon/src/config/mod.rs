//! The configuration file and the location of the policy. Unknown keys are refused with name and place.

pub mod policy;
pub mod limits;
pub mod remote;
mod paths;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use sockbroker_proto::api::broker::Seccomp as Reported;
use sockbroker_proto::channel::DATA_MAX;
use sockbroker_sys::process;

use crate::config::limits::{Limits, PARKED_MAX};
use crate::config::paths::{absolute, absolute_path};
use crate::config::remote::Remote;
use crate::observe::audit::Destination;

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The Unix socket to serve. The command line overrides this and the next two.
    pub socket: Option<PathBuf>,
    pub socket_group: Option<String>,
    pub socket_mode: Option<Mode>,
    /// The limits; those that are absent keep their defaults.
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub confine: Confine,
    #[serde(default)]
    pub audit: Audit,
    #[serde(default)]
    pub processes: Processes,
    #[serde(default)]
    pub namespaces: Namespaces,
    #[serde(default)]
    pub remote: Remote,
}

/// `[namespaces]`: where network namespaces have names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Namespaces {
    /// Absolute paths of folders. The first that has a name decides.
    #[serde(deserialize_with = "absolute")]
    pub folders: Vec<PathBuf>,
    /// The absolute path of the folder of `NAME/resolv.conf` and `NAME/hosts`.
    #[serde(deserialize_with = "absolute_path")]
    pub files: PathBuf,
}

impl Namespaces {
    /// Every folder.
    pub fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.folders.iter().chain([&self.files])
    }
}

impl Default for Namespaces {
    /// The folders of `ip-netns(8)`.
    fn default() -> Self {
        Self { folders: vec![PathBuf::from("/run/netns")], files: PathBuf::from("/etc/netns") }
    }
}

/// `[processes]`: how the broker is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Processes {
    /// Whether each principal has a worker process of its own.
    pub workers: bool,
    /// The user ids of the workers.
    pub worker_ids: WorkerIds,
}

/// Where the user ids of workers come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum WorkerIds {
    /// Fixed ids if the broker is root, else the subordinate ids of its user; its own id if it cannot use them.
    #[default]
    Auto,
    /// All have that of the broker.
    Shared,
    /// The subordinate ids of the broker's user (`subuid(5)`).
    Subordinate,
    /// From the first to the last.
    Range { first: u32, last: u32 },
}

impl TryFrom<String> for WorkerIds {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "auto" => return Ok(Self::Auto),
            "shared" => return Ok(Self::Shared),
            "subordinate" => return Ok(Self::Subordinate),
            _ => {}
        }
        let range = text.split_once('-').and_then(|(first, last)| {
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            // The last number means no id (`setresuid(2)`).
            (0 < first && first <= last && last < u32::MAX).then_some(Self::Range { first, last })
        });
        range.ok_or_else(|| {
            format!("worker_ids is \"auto\", \"shared\", \"subordinate\" or a range of user ids, as \"100000-165535\", not {text:?}")
        })
    }
}

impl Default for Processes {
    fn default() -> Self {
        Self { workers: true, worker_ids: WorkerIds::default() }
    }
}

/// The permissions of the socket's path, written in octal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Mode(pub u32);

impl Default for Mode {
    /// Access for owner and group.
    fn default() -> Self {
        Self(0o660)
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = !text.is_empty() && text.bytes().all(|byte| (b'0'..b'8').contains(&byte));
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= 0o777);
        mode.map(Self)
            .ok_or_else(|| format!("{text:?} is not a mode: three octal digits, such as 0660"))
    }
}

impl TryFrom<String> for Mode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// `[confine]`: what the broker drops before it reads the first byte of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Confine {
    /// Whether capabilities that the policy cannot use are dropped.
    pub capabilities: bool,
    /// Whether Landlock restricts file access to the system's files, where the kernel has it.
    pub landlock: bool,
    /// What happens to a system call that the broker never makes.
    pub seccomp: Seccomp,
    /// Whether processes of the same user can trace a worker and read its memory and descriptors.
    pub tracing: bool,
}

impl Default for Confine {
    fn default() -> Self {
        Self { capabilities: true, landlock: true, seccomp: Seccomp::Errno, tracing: false }
    }
}

/// What happens to a system call that is not on the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seccomp {
    /// It fails with `EPERM`, and a line on standard error names it.
    Errno,
    /// It is made, and the kernel's log (`dmesg`, audit) names it: for finding what a filter would stop.
    Log,
    /// No filter is installed.
    Off,
}

impl Seccomp {
    /// The value in `broker.info`.
    pub fn reported(self) -> Reported {
        match self {
            Self::Errno => Reported::Errno,
            Self::Log => Reported::Log,
            Self::Off => Reported::Off,
        }
    }
}

/// `[audit]`: the destination of audit records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// `auto`, `journald`, `stderr`, `off`, or the absolute path of a file.
    #[serde(deserialize_with = "destination")]
    pub to: Destination,
}

fn destination<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Destination, D::Error> {
    let word = String::deserialize(deserializer)?;
    Ok(match word.as_str() {
        "auto" => Destination::Auto,
        "journald" => Destination::Journal,
        "stderr" => Destination::Stderr,
        "off" => Destination::Off,
        path if path.starts_with('/') => Destination::File(PathBuf::from(path)),
        _ => {
            let known = "auto, journald, stderr, off, or the absolute path of a file";
            return Err(D::Error::custom(format!(
                "unknown destination `{word}`; there are {known}"
            )));
        }
    })
}

/// A file or a variable that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct ConfigError {
    path: PathBuf,
    reason: String,
}

impl ConfigError {
    /// A value from the command line or the environment cannot be used.
    pub fn given(name: &str, reason: String) -> Self {
        Self { path: name.into(), reason }
    }
}

/// Reads the configuration; the defaults without a file.
pub fn load(path: Option<&Path>) -> Result<Config, ConfigError> {
    let Some(path) = path else {
        return Ok(Config::default());
    };
    let text = std::fs::read_to_string(path);
    let text =
        text.map_err(|error| ConfigError { path: path.to_owned(), reason: error.to_string() })?;
    parse(path, &text)
}

/// Reads the text of a configuration, which is from `path`.
pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
    let config: Config = toml::from_str(text)
        .map_err(|error| ConfigError { path: path.to_owned(), reason: error.to_string() })?;
    check(&config).map_err(|reason| ConfigError { path: path.to_owned(), reason })?;
    Ok(config)
}

/// Checks what the types do not.
fn check(config: &Config) -> Result<(), String> {
    let limits = &config.limits;
    if limits.descriptors > 253 {
        return Err("limits.descriptors: the kernel carries at most 253 (SCM_MAX_FD)".to_owned());
    }
    if limits.batch_messages > 1024 {
        return Err("limits.batch_messages: the kernel takes at most 1024 (UIO_MAXIOV)".to_owned());
    }
    if limits.persistent_handles_per_user > PARKED_MAX {
        return Err(format!(
            "limits.persistent_handles_per_user: the lots of a user have room for {PARKED_MAX}"
        ));
    }
    if limits.channel_bytes > DATA_MAX as u64 {
        return Err(format!("limits.channel_bytes: a frame carries at most {DATA_MAX}"));
    }
    // Base64 makes four bytes of three, and the rest of the answer needs some space.
    let encoded = limits.receive_bytes.saturating_mul(4) / 3 + 65_536;
    if encoded > limits.frame_bytes {
        let text = "limits.receive_bytes: as base64 it must fit into limits.frame_bytes";
        return Err(text.to_owned());
    }
    for (name, value) in [
        ("head_bytes", limits.head_bytes),
        ("message_values", limits.message_values),
        ("calls_in_flight", limits.calls_in_flight),
        ("connections", limits.connections),
        ("connections_per_user", limits.connections_per_user),
        ("workers", limits.workers),
        ("workers_per_user", limits.workers_per_user),
        ("worker_starts_per_second", limits.worker_starts_per_second),
        ("remote_connections", limits.remote_connections),
        ("remote_workers", limits.remote_workers),
        ("handshakes", limits.handshakes),
        ("handshakes_per_address", limits.handshakes_per_address),
        ("handshake_seconds", limits.handshake_seconds),
        ("resolver_jobs", limits.resolver_jobs),
        ("resolver_jobs_per_user", limits.resolver_jobs_per_user),
        ("identity_jobs", limits.identity_jobs),
        ("identity_jobs_per_user", limits.identity_jobs_per_user),
        ("channel_bytes", limits.channel_bytes),
        ("closing_jobs", limits.closing_jobs),
        ("closing_jobs_per_user", limits.closing_jobs_per_user),
    ] {
        if value == 0 {
            return Err(format!(
                "limits.{name}: 0 is not allowed, because the broker could serve nothing"
            ));
        }
    }
    if config.remote.is_on() && !config.processes.workers {
        let text = "remote.listen: clients on other machines are served only by workers: remove it, or processes.workers = false";
        return Err(text.to_owned());
    }
    Ok(())
}

/// The socket's path where neither command line nor configuration name one; `None` for a user without a
/// runtime directory.
pub fn default_socket() -> Option<PathBuf> {
    if process::effective_uid() == 0 {
        return Some(PathBuf::from("/run/sockbroker/socket"));
    }
    let directory =
        std::env::var_os("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty())?;
    Some(PathBuf::from(directory).join("sockbroker.socket"))
}

#[cfg(test)]
mod documents;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_access_needs_workers() {
        let parse = |text: &str| parse(Path::new("a"), text);
        let on = "[remote]\nlisten = [\"[::1]:0\"]\n";
        assert!(parse(on).is_ok() && !parse("").unwrap().remote.is_on());
        let error = parse(&format!("{on}[processes]\nworkers = false\n")).unwrap_err();
        assert!(error.to_string().contains("only by workers"), "{error}");
        let error = parse("[limits]\nhandshakes = 0\n").unwrap_err();
        assert!(error.to_string().contains("limits.handshakes: 0 is not allowed"), "{error}");
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_place() {
        let error = toml::from_str::<Config>("sockets = \"/x\"").unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains("unknown field"), "{error}");
    }

    #[test]
    fn modes_are_octal_and_of_three_digits() {
        for (text, mode) in [("0660", 0o660), ("600", 0o600), ("0", 0), ("777", 0o777)] {
            assert_eq!(text.parse(), Ok(Mode(mode)));
        }
        for wrong in ["", "0o660", "+660", "680", "1777", "rw", "-1"] {
            assert!(wrong.parse::<Mode>().is_err(), "{wrong}");
        }
        let config: Config = toml::from_str("socket_mode = \"0600\"").unwrap();
        assert_eq!(config.socket_mode, Some(Mode(0o600)));
        assert!(toml::from_str::<Config>("socket_mode = 660").is_err());
    }

    #[test]
    fn limits_that_cannot_work_are_refused_by_name() {
        for (text, name) in [
            ("limits.descriptors = 254", "limits.descriptors"),
            ("limits.receive_bytes = 9000000", "limits.receive_bytes"),
            ("limits.connections = 0", "limits.connections"),
            ("limits.message_values = 0", "limits.message_values"),
            ("limits.batch_messages = 1025", "limits.batch_messages"),
            ("limits.persistent_handles_per_user = 7681", "limits.persistent_handles_per_user"),
            ("limits.channel_bytes = 65537", "limits.channel_bytes"),
            ("limits.channel_bytes = 0", "limits.channel_bytes"),
        ] {
            let config: Config = toml::from_str(text).unwrap();
            assert!(check(&config).unwrap_err().starts_with(name), "{text}");
        }
        assert_eq!(check(&Config::default()), Ok(()));
    }

    #[test]
    fn destinations_are_words_and_absolute_paths() {
        let read = |text: &str| toml::from_str::<Audit>(text).map(|audit| audit.to);
        assert_eq!(read("").unwrap(), Destination::Auto);
        assert_eq!(read("to = 'off'").unwrap(), Destination::Off);
        assert_eq!(read("to = '/var/log/a'").unwrap(), Destination::File("/var/log/a".into()));
        let error = read("to = 'jornald'").unwrap_err().to_string();
        assert!(error.contains("jornald") && error.contains("journald"), "{error}");
    }
}
