//! Queries about the policy, and dropping of rights.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The verdict on an action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// Whether the policy would allow the action.
    pub allowed: bool,
    /// The name of the rule that decides, `no rule`, or `session.restrict`.
    pub rule: String,
    /// For a refusal: the grant that is missing, as fields of a rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// For a refusal: the error number of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
    /// For a refusal: the error message of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The rules for the caller that name the verb, and why each decides or does not decide.
    pub considered: Vec<Considered>,
}

/// A rule that the policy considered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Considered {
    /// The name of the rule.
    pub rule: String,
    /// Whether it allows or denies.
    pub effect: String,
    /// The field that does not match; absent if the rule matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mismatch: Option<String>,
}

/// The subject that the caller is to the policy, and its rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Effective {
    /// The user id; the number of a remote principal, which no user has.
    pub uid: u32,
    /// The name of a remote principal: its certificate or its token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// The group id.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
    /// The process id when it connected, if the kernel reported it.
    pub pid: Option<i32>,
    /// The control group, if known.
    pub cgroup: Option<String>,
    /// The systemd unit, if known.
    pub unit: Option<String>,
    /// The generation of the policy in force, from 1; it grows with each policy that is loaded.
    pub generation: u64,
    /// Whether the last rule applies to the caller: root and the broker's own user may do everything.
    pub owner: bool,
    /// How often this session has dropped rights.
    pub restrictions: u64,
    /// The rules that apply to the caller, denials first.
    pub rules: Vec<RuleInfo>,
}

/// A rule of the policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RuleInfo {
    /// The name of the rule.
    pub name: String,
    /// The fields of the rule except name and subject, as a line of the rule language.
    pub says: String,
}

/// The generation of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Generation {
    /// From 1; it grows with each policy that is loaded.
    pub generation: u64,
}

/// The rights that a session keeps: the fields of a rule that allows, without name and subject. An absent field
/// means any, and an empty list is refused; sockbroker-policy(5) describes each field.
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
    pub netns: Option<Vec<String>>,
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

/// Queries about the policy.
#[sockbroker_proto_macros::api(namespace = "policy")]
pub trait Policy {
    /// The verdict on an action for the caller, without doing it.
    #[method(name = "check")]
    fn check(
        &self,
        /// The verb, then constants and operands: `create AF_PACKET SOCK_RAW`,
        /// `connect remote=192.0.2.1:80`, `bind local=[::]:80`, `option option=mark`,
        /// `capture interface=eth0`.
        action: String,
    ) -> RpcResult<Verdict>;

    /// The subject that the caller is to the policy, and the rules that apply to it.
    #[method(name = "whoami")]
    fn whoami(&self) -> RpcResult<Effective>;

    /// Waits until the policy in force has another generation than this one, and returns it.
    #[method(name = "wait")]
    async fn wait(
        &self,
        /// The known generation, from `policy.whoami` or this call.
        generation: u64,
    ) -> RpcResult<Generation>;
}

/// Dropping of rights.
#[sockbroker_proto_macros::api(namespace = "session")]
pub trait Restrict {
    /// Drops rights for the rest of this session, on all of its connections.
    ///
    /// After that a request needs, as before, a rule that grants it, and in addition this rule must be in `rules`
    /// or the request must match a filter. Without both the session can only inspect its own sockets.
    /// A connection cannot leave a session that has dropped rights.
    #[method(name = "restrict")]
    async fn restrict(
        &self,
        /// The names of rules that continue to grant.
        rules: Option<Vec<String>>,
        /// The rights to keep, regardless of the rule that grants them.
        filters: Option<Vec<Filter>>,
    ) -> RpcResult<()>;
}
