//! What the kernel will ask the broker's own process for, so that it can give up everything else.

use super::Policy;
use super::netlink::MessageClass;
use super::option::OptionClass;
use super::rule::{Effect, Rule};
use super::value::SocketType;
use super::verb::Verb;

/// A privilege of the process that a rule can be of use with only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Need {
    /// Raw and packet sockets, foreign addresses.
    Raw,
    /// Options and netlink messages that change the host.
    Administration,
    /// Local ports below 1024.
    LowPorts,
    /// Another user's identity for `AF_UNIX` addresses.
    Identity,
    /// The name of the host, other network namespaces.
    System,
    /// The groups of the kernel's audit.
    Audit,
    /// Memory that the kernel shares with the socket (`AF_XDP`).
    Memory,
}

impl Need {
    /// Every one.
    pub const ALL: [Self; 7] = [
        Self::Raw,
        Self::Administration,
        Self::LowPorts,
        Self::Identity,
        Self::System,
        Self::Audit,
        Self::Memory,
    ];
}

impl Policy {
    /// Whether a rule that grants something would be of no use without this. A policy without rules
    /// grants everything to root and the broker's own user, and so needs everything.
    pub fn needs(&self, need: Need) -> bool {
        let granting = self.rules.iter().filter(|rule| rule.effect == Effect::Allow);
        self.rules.is_empty() || granting.into_iter().any(|rule| rule.needs(need))
    }
}

impl Rule {
    fn needs(&self, need: Need) -> bool {
        match need {
            Need::Raw => {
                self.has_any(&[Verb::Capture, Verb::Inject, Verb::Spoof, Verb::Transparent])
                    || self.has_any(&[Verb::Create])
                        && (self.is_about(&[libc::AF_PACKET]) || self.is_about_type(libc::SOCK_RAW))
            }
            Need::Administration => {
                self.has_any(&[Verb::Transparent])
                    || self.has_any(&[Verb::Option])
                        && (self.option.is_empty()
                            || self.option.iter().any(|class| changes(*class)))
                    || self.netlink.iter().any(|class| *class != MessageClass::Get)
            }
            Need::LowPorts => {
                self.has_any(&[Verb::Bind])
                    && self.is_about(&[libc::AF_INET, libc::AF_INET6])
                    && (self.local_ports.is_empty()
                        || self
                            .local_ports
                            .iter()
                            .any(|ports| ports.first < 1024 && ports.last > 0))
            }
            Need::Identity => {
                self.has_any(&[Verb::Bind, Verb::Connect, Verb::Send])
                    && self.is_about(&[libc::AF_UNIX])
            }
            Need::System => self.has_any(&[Verb::SetHostname, Verb::Netns]),
            Need::Audit => self.has_any(&[Verb::Create]) && self.is_about(&[libc::AF_NETLINK]),
            Need::Memory => self.has_any(&[Verb::Create]) && self.is_about(&[libc::AF_XDP]),
        }
    }

    fn has_any(&self, verbs: &[Verb]) -> bool {
        verbs.iter().any(|verb| self.verbs.has(*verb))
    }

    fn is_about(&self, families: &[i32]) -> bool {
        self.family.is_empty() || self.family.iter().any(|family| families.contains(&family.0))
    }

    fn is_about_type(&self, kind: i32) -> bool {
        self.kind.is_empty() || self.kind.contains(&SocketType(kind))
    }
}

/// Whether options of a class are refused to a process without `CAP_NET_ADMIN` (`socket(7)`, `ip(7)`).
fn changes(class: OptionClass) -> bool {
    match class {
        OptionClass::BuffersForce
        | OptionClass::Scheduling
        | OptionClass::Mark
        | OptionClass::BindToDevice
        | OptionClass::Routing
        | OptionClass::Ipsec
        | OptionClass::Modules
        | OptionClass::TcpRepair
        | OptionClass::Packet
        | OptionClass::Netlink
        | OptionClass::Transparent
        | OptionClass::Unknown => true,
        OptionClass::Ordinary
        | OptionClass::Multicast
        | OptionClass::Filter
        | OptionClass::Spoof => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::file::{Directory, read};

    struct Nobody;

    impl Directory for Nobody {
        fn user(&self, _name: &str) -> Option<u32> {
            None
        }

        fn group(&self, _name: &str) -> Option<u32> {
            None
        }
    }

    fn needs(rule: &str) -> Vec<Need> {
        let text = format!(
            "version = 1\n[[rule]]\nname = \"r\"\nsubject = {{ everyone = true }}\n{rule}\n"
        );
        let content = read("test", &text, &Nobody).unwrap();
        let rules = content.rules.into_iter().map(|(rule, _)| rule).collect();
        let policy = Policy::new(970, rules, false);
        Need::ALL.into_iter().filter(|need| policy.needs(*need)).collect()
    }

    #[test]
    fn without_rules_everything_is_needed() {
        let policy = Policy::built_in(970);
        assert!(Need::ALL.into_iter().all(|need| policy.needs(need)));
    }

    #[test]
    fn a_rule_needs_what_the_kernel_asks_for_and_no_more() {
        let inet =
            "family = [\"AF_INET\", \"AF_INET6\"]\ntype = [\"SOCK_STREAM\", \"SOCK_DGRAM\"]\n";
        for (rule, needed) in [
            ("allow = [\"create\", \"connect\", \"send\", \"receive\"]", vec![]),
            ("allow = [\"bind\"]\nlocal_ports = [\"1024-65535\"]", vec![]),
            ("allow = [\"bind\"]\nlocal_ports = [\"80\"]", vec![Need::LowPorts]),
            ("allow = [\"bind\"]", vec![Need::LowPorts]),
            ("allow = [\"option\"]\noption = [\"ordinary\"]", vec![]),
            ("allow = [\"option\"]\noption = [\"mark\"]", vec![Need::Administration]),
            ("allow = [\"option\"]", vec![Need::Administration]),
            ("allow = [\"spoof\"]", vec![Need::Raw]),
            ("allow = [\"sethostname\"]", vec![Need::System]),
            ("deny = [\"spoof\", \"sethostname\"]", vec![]),
        ] {
            assert_eq!(needs(&format!("{inet}{rule}")), needed, "{rule}");
        }
        let sniffing = "family = [\"AF_PACKET\"]\nallow = [\"create\", \"capture\"]";
        assert_eq!(needs(sniffing), [Need::Raw]);
        assert_eq!(needs("family = [\"AF_UNIX\"]\nallow = [\"connect\"]\n"), [Need::Identity]);
    }
}
