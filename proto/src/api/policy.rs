//! What the policy lets the caller do, asked without doing it; and giving rights up.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The verdict on an action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// Whether it would be allowed.
    pub allowed: bool,
    /// The name of the rule that decides, `no rule`, or `session.restrict`.
    pub rule: String,
    /// For a refusal: the grant that is missing, as fields of a rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// For a refusal: the error number that the call would fail with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
    /// For a refusal: what it would say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The rules about the caller that name the verb, and why each does or does not decide.
    pub considered: Vec<Considered>,
}

/// A rule that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Considered {
    /// Its name.
    pub rule: String,
    /// Whether it allows or denies.
    pub effect: String,
    /// The field that keeps it from matching; absent if it matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mismatch: Option<String>,
}

/// Who the caller is to the policy, and what it may do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Effective {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
    /// The process id when it connected, where the kernel told it.
    pub pid: Option<i32>,
    /// The control group, where it is known.
    pub cgroup: Option<String>,
    /// The systemd unit, where it is known.
    pub unit: Option<String>,
    /// The number of the policy in force, from 1; it grows with each that is loaded.
    pub generation: u64,
    /// Whether the last rule is about the caller: root and the broker's own user may do everything.
    pub owner: bool,
    /// How often this session has given rights up.
    pub restrictions: u64,
    /// The rules about the caller, those that deny first.
    pub rules: Vec<RuleInfo>,
}

/// A rule of the policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RuleInfo {
    /// Its name.
    pub name: String,
    /// What it says, but for name and subject, as a line of the rule language.
    pub says: String,
}

/// The number of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Generation {
    /// From 1; it grows with each policy that is loaded.
    pub generation: u64,
}

/// What a session keeps: the fields of a rule that allows, without name and subject. An absent field
/// means any, and an empty list is refused; sockbroker-policy(5) tells what each means.
#[expect(missing_docs, reason = "the fields are those of the rule language: sockbroker-policy(5)")]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    #[schemars(length(min = 1))]
    pub allow: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub family: Option<Vec<String>>,
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub kind: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub protocol: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub local: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub local_ports: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub remote: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub remote_ports: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub interface: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub path: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub option: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub netlink: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snaplen: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handover: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unchecked: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lookup: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lookup_seconds: Option<u64>,
}

/// What the policy says.
#[sockbroker_proto_macros::api(namespace = "policy")]
pub trait Policy {
    /// The verdict on an action that is described, for the caller, without doing it.
    #[method(name = "check")]
    fn check(
        &self,
        /// The verb, then constants and operands: `create AF_PACKET SOCK_RAW`,
        /// `connect remote=192.0.2.1:80`, `bind local=[::]:80`, `option option=mark`,
        /// `capture interface=eth0`.
        action: String,
    ) -> RpcResult<Verdict>;

    /// Who the caller is to the policy, and the rules about it.
    #[method(name = "whoami")]
    fn whoami(&self) -> RpcResult<Effective>;

    /// Waits until the policy in force is another than this one, and tells which.
    #[method(name = "wait")]
    async fn wait(
        &self,
        /// The number that is known, from `policy.whoami` or this call.
        generation: u64,
    ) -> RpcResult<Generation>;
}

/// Rights that only shrink.
#[sockbroker_proto_macros::api(namespace = "session")]
pub trait Restrict {
    /// Gives rights up for the rest of this session, on all of its connections.
    ///
    /// From now on a request needs a rule that grants it, as before, and that rule must be kept by name
    /// or the request match a filter. Without both nothing is kept but looking at one's own sockets.
    /// A connection cannot leave a session that gave rights up.
    #[method(name = "restrict")]
    fn restrict(
        &self,
        /// Names of rules that go on granting.
        rules: Option<Vec<String>>,
        /// What is kept whatever rule grants it.
        filters: Option<Vec<Filter>>,
    ) -> RpcResult<()>;
}
