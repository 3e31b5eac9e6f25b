//! The broker itself: as whom it runs, what confines it, which policy it holds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The broker itself. Whoever may use the socket may ask: of the policy it tells places and size, no rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BrokerInfo {
    /// The version of the broker.
    pub version: String,
    /// The version of the protocol.
    pub protocol: u32,
    /// The process, and what confines it.
    pub process: Process,
    /// The policy in force.
    pub policy: PolicyInfo,
}

/// The broker's process, as the kernel told it once the broker had given up what it gives up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    /// The process id.
    pub pid: u32,
    /// The effective user id.
    pub uid: u32,
    /// The effective group id.
    pub gid: u32,
    /// The systemd unit that it belongs to, where its control group names one.
    pub unit: Option<String>,
    /// Whether the service manager made the socket and passed it.
    pub activated: bool,
    /// Whether it is in a user namespace, outside of which its capabilities count for nothing.
    pub user_namespace: bool,
    /// The capabilities in effect, by name.
    pub capabilities: Vec<String>,
    /// `no_new_privs`: no program that it could run gains any privilege.
    pub no_new_privs: bool,
    /// What happens to a system call that is not on the broker's list.
    pub seccomp: Seccomp,
    /// How many filters of system calls are in force, those of a service manager or a container included;
    /// `null` where the kernel does not tell (before Linux 5.9).
    pub seccomp_filters: Option<u32>,
    /// Which files it can open.
    pub landlock: Landlock,
    /// The version of the kernel's Landlock; `null` where it is not in force.
    pub landlock_abi: Option<u32>,
}

/// What happens to a system call that is not on the broker's list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Seccomp {
    /// It is made: the broker has no filter.
    #[default]
    Off,
    /// It is made, and the kernel's log names it.
    Log,
    /// It fails with `EPERM`, and a line on the broker's standard error names it.
    Errno,
}

impl Seccomp {
    /// The word of the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Log => "log",
            Self::Errno => "errno",
        }
    }
}

/// Which files the broker can open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Landlock {
    /// All that its user can: the configuration says so.
    #[default]
    Off,
    /// All that its user can: the kernel has no Landlock.
    None,
    /// Those that it needs; the kernel is too old to hold every part of it.
    Partial,
    /// Those that it needs, and no others.
    Full,
}

impl Landlock {
    /// The word of the wire.
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
    /// Its number, as `policy.wait` tells it.
    pub generation: u64,
    /// The files that it was read from, in order. None: the policy is the built-in one.
    pub files: Vec<String>,
    /// How many rules they have.
    pub rules: u64,
}

/// The broker itself.
#[sockbroker_proto_macros::api(namespace = "broker")]
pub trait Broker {
    /// Which broker this is, as whom it runs, what confines it, and which policy it holds.
    #[method(name = "info")]
    fn info(&self) -> RpcResult<BrokerInfo>;
}
