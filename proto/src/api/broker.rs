//! The broker itself: its process, its confinement and its policy.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The broker itself. Every client can request it: it names the files and the size of the policy, but no rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BrokerInfo {
    /// The version of the broker.
    pub version: String,
    /// The version of the protocol.
    pub protocol: u32,
    /// The process and its confinement.
    pub process: Process,
    /// The opener, which makes the system calls that need a capability for this process; `null` if there is none.
    pub opener: Option<Process>,
    /// The policy in force.
    pub policy: PolicyInfo,
}

/// The broker's process, as the kernel reported it after the broker had dropped its privileges.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    /// The process id.
    pub pid: u32,
    /// The effective user id.
    pub uid: u32,
    /// The effective group id.
    pub gid: u32,
    /// The systemd unit of the process, if its control group names one.
    pub unit: Option<String>,
    /// Whether the service manager created the socket and passed it.
    pub activated: bool,
    /// Whether the process is in a user namespace; its capabilities have no effect outside of it.
    pub user_namespace: bool,
    /// The capabilities in effect, by name.
    pub capabilities: Vec<String>,
    /// `no_new_privs`: programs that the process runs cannot gain privileges.
    pub no_new_privs: bool,
    /// What the kernel does with a system call that is not on the broker's list.
    pub seccomp: Seccomp,
    /// The number of filters of system calls in force, including those of a service manager or a container;
    /// `null` if the kernel does not report it (before Linux 5.9).
    pub seccomp_filters: Option<u32>,
    /// The files that the process can open.
    pub landlock: Landlock,
    /// The version of the kernel's Landlock; `null` if Landlock is not in force.
    pub landlock_abi: Option<u32>,
}

/// What the kernel does with a system call that is not on the broker's list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Seccomp {
    /// The call succeeds: the broker has no filter.
    #[default]
    Off,
    /// The call succeeds, and the kernel logs it.
    Log,
    /// The call fails with `EPERM`, and a line on the broker's standard error names it.
    Errno,
}

impl Seccomp {
    /// The JSON form.
    pub fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Log => "log",
            Self::Errno => "errno",
        }
    }
}

/// The files that the broker can open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Landlock {
    /// All files that its user can open: the configuration switches Landlock off.
    #[default]
    Off,
    /// All files that its user can open: the kernel has no Landlock.
    None,
    /// The files that it needs; the old kernel enforces only a part of the restrictions.
    Partial,
    /// The files that it needs, and no others.
    Full,
}

impl Landlock {
    /// The JSON form.
    pub fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::None => "none",
            Self::Partial => "partial",
            Self::Full => "full",
        }
    }
}

/// The policy in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyInfo {
    /// The generation of the policy, as `policy.wait` returns it.
    pub generation: u64,
    /// The files of the policy, in order. Empty for the built-in policy.
    pub files: Vec<String>,
    /// The number of rules.
    pub rules: u64,
}

/// The broker itself.
#[sockbroker_proto_macros::api(namespace = "broker")]
pub trait Broker {
    /// The identity of the broker, its process, its confinement and its policy.
    #[method(name = "info")]
    fn info(&self) -> RpcResult<BrokerInfo>;
}
