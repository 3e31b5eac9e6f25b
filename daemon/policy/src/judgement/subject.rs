//! The subject: the process at the other end of a connection, as the kernel reports it, or the remote principal that a
//! certificate or a token names.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::language::name::Pattern;
use crate::language::rule::{Effect, admits};
use crate::language::subjects::Subjects;

/// The caller, fixed when its connection was accepted.
///
/// It describes the process that connected, at that moment. What is unknown is `None`: a rule
/// that grants and depends on it does not match, and a rule that denies and depends on it does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Arc<[u32]>,
    /// The process id; for logs only, since numbers are used again.
    pub pid: Option<i32>,
    /// The path of its control group, such as `/system.slice/prober.service`. Known only where the
    /// kernel names the process by a pidfd (Linux 6.5).
    pub cgroup: Option<Arc<str>>,
    /// The systemd unit, from the path of its control group.
    pub unit: Option<Arc<str>>,
    /// Who it is, if it is not a process of this machine. Then all fields above are without meaning: the ids are numbers
    /// that no user has.
    pub remote: Option<Arc<RemoteIdentity>>,
}

/// A principal on another machine, as the gateway has authenticated it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RemoteIdentity {
    /// The client of a certificate.
    Certificate {
        /// Its names, each with its kind: `uri:spiffe://lab/alice`, `dns:lab7`, `email:alice@lab`.
        names: Vec<String>,
    },
    /// The bearer of a token.
    Token {
        /// The name in the file of tokens.
        name: String,
        /// The rules that can still grant something to it; `None` for all.
        rules: Option<Vec<String>>,
    },
}

impl RemoteIdentity {
    /// Whether a rule of this name can grant something to it.
    pub fn keeps(&self, rule: &str) -> bool {
        match self {
            Self::Certificate { .. } | Self::Token { rules: None, .. } => true,
            Self::Token { rules: Some(rules), .. } => rules.iter().any(|kept| kept == rule),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.remote {
            Some(remote) => remote.fmt(f),
            None => write!(f, "uid {}", self.uid),
        }
    }
}

impl fmt::Display for RemoteIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate { names } => write!(f, "certificate {}", names.join(" ")),
            Self::Token { name, .. } => write!(f, "token {name}"),
        }
    }
}

impl Subject {
    /// A subject with known ids and nothing else.
    pub fn new(uid: u32, gid: u32) -> Self {
        let (groups, remote) = (Arc::default(), None);
        Self { uid, gid, groups, pid: None, cgroup: None, unit: None, remote }
    }

    /// A principal on another machine. Where the broker counts by user id, it counts this one by `number`, which MUST NOT
    /// be the id of a user.
    pub fn remote(number: u32, identity: RemoteIdentity) -> Self {
        Self { remote: Some(Arc::new(identity)), ..Self::new(number, number) }
    }

    /// The same in these supplementary groups.
    #[must_use]
    pub fn in_groups(mut self, groups: Vec<u32>) -> Self {
        self.groups = groups.into();
        self
    }

    /// The same in this control group, and the unit that it belongs to.
    #[must_use]
    pub fn in_cgroup(mut self, cgroup: Option<String>) -> Self {
        let cgroup = cgroup.filter(|path| is_whole(path));
        self.unit = cgroup.as_deref().and_then(unit_of).map(Arc::from);
        self.cgroup = cgroup.map(Arc::from);
        self
    }

    /// Whether the group id or a supplementary group is this one.
    pub fn is_in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}

/// The user id that the kernel shows for all users that have none in the user namespace of the broker
/// (`DEFAULT_OVERFLOWUID`; `/proc/sys/kernel/overflowuid`, `proc(5)`).
pub const OVERFLOW_UID: u32 = 65534;

impl Subjects {
    /// Whether a rule of this effect is about a subject. A rule that grants something to everyone is not about users that
    /// look the same to the kernel ([`OVERFLOW_UID`]), apart from the broker's own user. If the kernel does not report
    /// the control group, the subject can be in any: every rule that denies is about it, and none that grants.
    ///
    /// A rule that grants is about a remote principal only if it names certificates or tokens. A rule that refuses
    /// everyone refuses remote principals too.
    pub fn contains(&self, subject: &Subject, effect: Effect, is_owner: bool) -> bool {
        if let Some(remote) = &subject.remote {
            let everyone = effect == Effect::Deny && self.are_everyone();
            return everyone || self.contains_remote(remote);
        }
        if self.are_remote() {
            return false;
        }
        let placed = match subject.cgroup.as_deref() {
            Some(cgroup) => {
                admits(&self.units, subject.unit.as_deref(), Pattern::matches)
                    && admits(&self.cgroups, Some(cgroup), |prefix, path| {
                        prefix.contains_path(path.as_bytes())
                    })
            }
            None => effect == Effect::Deny || (self.units.is_empty() && self.cgroups.is_empty()),
        };
        let is_named = self.uids.is_some()
            || self.gids.is_some()
            || !self.units.is_empty()
            || !self.cgroups.is_empty();
        placed
            && (is_named || is_owner || effect == Effect::Deny || subject.uid != OVERFLOW_UID)
            && self.uids.as_ref().is_none_or(|uids| uids.contains(&subject.uid))
            && self.gids.as_ref().is_none_or(|g| g.iter().any(|gid| subject.is_in_group(*gid)))
    }

    /// Whether one of its names is one of a remote principal.
    pub fn contains_remote(&self, remote: &RemoteIdentity) -> bool {
        let matches = |patterns: &[Pattern], name: &String| {
            patterns.iter().any(|pattern| pattern.matches(name))
        };
        match remote {
            RemoteIdentity::Certificate { names } => {
                names.iter().any(|name| matches(&self.certificates, name))
            }
            RemoteIdentity::Token { name, .. } => matches(&self.tokens, name),
        }
    }
}

/// A path from the root of what the broker sees. One that leads out of it (`/../..`), or a group that
/// was removed, is nothing that a rule can rely on.
fn is_whole(path: &str) -> bool {
    path.starts_with('/')
        && !path.split('/').any(|part| part == "..")
        && !path.ends_with(" (deleted)")
}

/// The unit of a control group: the first part of its path that is not a slice, as `sd_pid_get_unit(3)`
/// finds it. The unit itself names the parts below, so that they prove nothing.
fn unit_of(cgroup: &str) -> Option<&str> {
    const KINDS: [&str; 5] = ["service", "scope", "socket", "mount", "swap"];
    let is_slice = |part: &str| part.rsplit_once('.').is_some_and(|(_, kind)| kind == "slice");
    let mut parts = cgroup.split('/').filter(|part| !part.is_empty());
    let part = parts.find(|part| !is_slice(part))?;
    // systemd escapes names that would clash with files of the kernel by an underscore.
    let name = part.strip_prefix('_').unwrap_or(part);
    let (title, kind) = name.rsplit_once('.')?;
    (!title.is_empty() && KINDS.contains(&kind)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects(text: &str) -> Subjects {
        let rule = format!("subject = {text}\nallow = [\"resolve\"]");
        crate::fixture::file_of_rule(&rule).unwrap().rules.remove(0).0.subject
    }

    #[test]
    fn only_rules_that_name_certificates_or_tokens_grant_to_remote_principals() {
        let names = ["uri:spiffe://lab/user/alice", "dns:lab7"].map(str::to_owned).to_vec();
        let certificate = Subject::remote(4_000_000_000, RemoteIdentity::Certificate { names });
        let token = RemoteIdentity::Token { name: "ci-7".to_owned(), rules: None };
        let token = Subject::remote(4_000_000_001, token);
        let local = Subject::new(4_000_000_000, 4_000_000_000);
        for (text, expected) in [
            ("{ everyone = true }", [false, false, true]),
            ("{ uids = [4000000000] }", [false, false, true]),
            ("{ gids = [4000000000, 4000000001] }", [false, false, true]),
            ("{ certificates = [\"uri:spiffe://lab/*\"] }", [true, false, false]),
            ("{ certificates = [\"dns:lab7\"] }", [true, false, false]),
            ("{ certificates = [\"lab7\"] }", [false, false, false]),
            ("{ tokens = [\"ci-*\"] }", [false, true, false]),
            ("{ tokens = [\"*\"], certificates = [\"*\"] }", [true, true, false]),
        ] {
            let subjects = subjects(text);
            let contains = |subject| subjects.contains(subject, Effect::Allow, false);
            assert_eq!([&certificate, &token, &local].map(contains), expected, "{text}");
        }
        let contains = |text, subject| subjects(text).contains(subject, Effect::Deny, false);
        assert!(contains("{ everyone = true }", &token) && contains("{ everyone = true }", &local));
        assert!(!contains("{ units = [\"a.service\"] }", &token));
        assert!(!contains("{ tokens = [\"*\"] }", &local));
    }

    #[test]
    fn a_token_keeps_the_rules_that_it_names() {
        let token = |rules: Option<&[&str]>| RemoteIdentity::Token {
            name: "a".to_owned(),
            rules: rules.map(|rules| rules.iter().map(|rule| (*rule).to_owned()).collect()),
        };
        assert!(token(None).keeps("x") && token(Some(&["x"])).keeps("x"));
        assert!(!token(Some(&["x"])).keeps("y") && !token(Some(&[])).keeps("x"));
    }

    fn unit(cgroup: &str) -> Option<Arc<str>> {
        Subject::new(1, 1).in_cgroup(Some(cgroup.to_owned())).unit
    }

    #[test]
    fn the_unit_is_the_first_part_that_is_not_a_slice() {
        for (cgroup, expected) in [
            ("/system.slice/prober.service", Some("prober.service")),
            ("/system.slice/system-prober.slice/prober@1.service/worker", Some("prober@1.service")),
            ("/user.slice/user-1000.slice/session-3.scope", Some("session-3.scope")),
            ("/system.slice/_cpu.service", Some("cpu.service")),
            ("/system.slice", None),
            ("/", None),
            ("/docker/0123", None),
            ("/.service", None),
        ] {
            assert_eq!(unit(cgroup).as_deref(), expected, "{cgroup}");
        }
    }

    #[test]
    fn a_user_cannot_name_itself_a_unit_of_the_system() {
        let own = "/user.slice/user-1000.slice/user@1000.service/app.slice/sshd.service";
        assert_eq!(unit(own).as_deref(), Some("user@1000.service"));
        assert_eq!(unit("/docker/system.slice/sshd.service"), None);
    }

    #[test]
    fn a_path_from_outside_and_a_removed_group_are_unknown() {
        for cgroup in ["/../system.slice/sshd.service", "/a.service (deleted)", "a.service", ""] {
            let subject = Subject::new(1, 1).in_cgroup(Some(cgroup.to_owned()));
            assert_eq!((subject.cgroup, subject.unit), (None, None), "{cgroup}");
        }
    }

    #[test]
    fn the_primary_group_counts_like_a_supplementary_one() {
        let subject = Subject::new(1, 7).in_groups(vec![8, 9]);
        assert!(subject.is_in_group(7) && subject.is_in_group(9) && !subject.is_in_group(1));
    }
}
