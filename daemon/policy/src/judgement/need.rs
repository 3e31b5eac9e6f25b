//! The privileges that the rules of a policy need. The broker gives up all others.

use crate::judgement::policy::Policy;
pub use crate::judgement::privilege::Need;
use crate::judgement::privilege::{Addresses, Families, Row, TABLE};
use crate::judgement::socket_spec::JudgedSocket as _;
use crate::language::message_class::MessageClass;
use crate::language::option_class::OptionClass;
use crate::language::rule::{Effect, Rule};
use crate::language::verb::Verb;
use Need::Administration;
use sockbroker_proto::socket_spec::SocketSpec;

impl Policy {
    /// Whether a rule that grants would have no effect without this privilege. A policy without rules grants
    /// everything to root and the broker's own user, and so needs every privilege.
    pub fn needs(&self, need: Need) -> bool {
        let granting = self.rules().iter().filter(|rule| rule.effect == Effect::Allow);
        self.rules().is_empty() || granting.into_iter().any(|rule| rule.needs(need))
    }

    /// Whether a rule grants something in other network namespaces than the broker's own.
    pub fn reaches_networks(&self) -> bool {
        let mut rules = self.rules().iter();
        rules.any(|rule| rule.effect == Effect::Allow && !rule.fields.netns.is_empty())
    }
}

/// Whether the kernel requires a privilege to make such a socket.
pub fn creation_needs_privilege(socket: SocketSpec) -> bool {
    let SocketSpec { domain, ty, protocol } = socket.judged();
    let has = |list: &[i32], value| list.is_empty() || list.contains(&value);
    TABLE.iter().filter(|row| row.verb == Verb::Create).any(|row| {
        let family = match row.families {
            Families::All => true,
            Families::These(families) => families.contains(&domain),
            Families::Named(named) => named == domain,
        };
        family && has(row.types, ty) && has(row.protocols, protocol)
    })
}

/// Whether a rule that allows grants a call on `AF_UNIX` sockets that is made with the ids of the caller. A rule with a
/// field that these sockets do not have grants none.
pub fn makes_unix_calls(rule: &Rule) -> bool {
    let verbs = [Verb::Create, Verb::Bind, Verb::Connect, Verb::Send];
    let fields = &rule.fields;
    let family = fields.family.is_empty() || fields.family.iter().any(|one| one.0 == libc::AF_UNIX);
    let here = fields.netns.is_empty();
    verbs.into_iter().any(|verb| rule.has_verb(verb)) && family && here && rule.has_no_address()
}

impl Rule {
    fn needs(&self, need: Need) -> bool {
        let reaches_other_namespaces = !self.fields.netns.is_empty();
        // There are no AF_UNIX sockets in other namespaces.
        if reaches_other_namespaces && need == Need::Identity {
            return false;
        }
        // Netlink messages: netlink_ns_capable() in the handler of each; tried on Linux 6.18. Other namespaces: setns(2),
        // and sock_ioctl() for SIOCGSKNS.
        let messages = self.fields.netlink.iter().any(|class| *class != MessageClass::Get);
        (need == Administration && messages)
            || reaches_other_namespaces && [Need::System, Administration].contains(&need)
            || TABLE.iter().any(|row| row.need == need && row.is_granted_by(self))
    }
}

impl Row {
    /// Whether a rule that allows grants such a request.
    fn is_granted_by(&self, rule: &Rule) -> bool {
        let family = rule.fields.family.iter().map(|family| family.0);
        let families = match self.families {
            Families::All => true,
            Families::These(families) => {
                rule.fields.family.is_empty()
                    || family.into_iter().any(|own| families.contains(&own))
            }
            Families::Named(named) => family.into_iter().any(|own| own == named),
        };
        // The unknown class is granted only by name.
        let class = self.class.is_none_or(|class| {
            rule.fields.option.contains(&class)
                || rule.fields.option.is_empty() && class != OptionClass::Unknown
        });
        let types = rule.fields.ty.iter().map(|kind| kind.0);
        let protocols = rule.fields.protocol.iter().map(|protocol| protocol.0);
        rule.has_verb(self.verb)
            && families
            && class
            && meets(self.types, types)
            && meets(self.protocols, protocols)
            && self.addresses.are_granted_by(rule)
    }
}

impl Addresses {
    fn are_granted_by(self, rule: &Rule) -> bool {
        match self {
            Self::All => true,
            Self::LowPorts => {
                let mut ports = rule.fields.local_ports.iter();
                rule.fields.path.is_empty()
                    && (rule.fields.local_ports.is_empty()
                        || ports.any(|ports| ports.first < 1024 && ports.last > 0))
            }
            Self::Others => {
                rule.fields.local.is_empty()
                    && rule.fields.local_ports.is_empty()
                    && rule.fields.path.is_empty()
            }
        }
    }
}

/// Whether a row and a rule have a value in common; an empty list has all.
fn meets(row: &[i32], rule: impl ExactSizeIterator<Item = i32>) -> bool {
    let mut rule = rule;
    row.is_empty() || rule.len() == 0 || rule.any(|own| row.contains(&own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{OWNER, rules};
    use crate::judgement::privilege::Need::{
        Audit, Broadcast, Identity, LowPorts, Raw, RawOrAdministration, System,
    };

    fn needs(rule: &str) -> Vec<Need> {
        let rules =
            rules(&format!("[[rule]]\nname = \"r\"\nsubject = {{ everyone = true }}\n{rule}\n"));
        let policy = Policy::new(OWNER, rules, false);
        Need::ALL.into_iter().filter(|need| policy.needs(*need)).collect()
    }

    #[test]
    fn without_rules_everything_is_needed() {
        let policy = Policy::built_in(OWNER);
        assert!(Need::ALL.into_iter().all(|need| policy.needs(need)));
    }

    /// A rule as `verb family type protocol`, with `*` for a field that is absent, and what it needs.
    /// In the order of the table.
    const SOCKETS: &[(&str, &[Need])] = &[
        ("create AF_INET SOCK_RAW *", &[Raw]),
        ("create AF_INET6 SOCK_RAW IPPROTO_ICMPV6", &[Raw]),
        ("create AF_INET SOCK_STREAM *", &[]),
        ("create AF_PACKET * *", &[Raw]),
        ("create AF_PACKET SOCK_DGRAM *", &[Raw]),
        ("create 44 SOCK_RAW *", &[Raw]),
        ("create AF_BLUETOOTH SOCK_RAW BTPROTO_L2CAP", &[Raw]),
        ("create AF_BLUETOOTH SOCK_SEQPACKET BTPROTO_L2CAP", &[]),
        ("create AF_BLUETOOTH SOCK_RAW BTPROTO_HCI", &[]),
        ("create AF_LLC SOCK_DGRAM *", &[Raw]),
        ("create 36 SOCK_RAW *", &[Raw]),
        ("create 36 SOCK_DGRAM *", &[]),
        ("create 39 SOCK_RAW *", &[Raw]),
        ("create 39 SOCK_STREAM *", &[]),
        ("create AF_APPLETALK SOCK_RAW *", &[Raw]),
        ("create AF_APPLETALK SOCK_DGRAM *", &[]),
        ("create AF_KEY SOCK_RAW *", &[Administration]),
        ("create 35 SOCK_DGRAM *", &[System]),
        ("create AF_NETLINK SOCK_RAW *", &[]),
        ("create AF_CAN SOCK_RAW *", &[]),
        ("create * * *", &[Raw]),
        ("create * SOCK_STREAM *", &[Raw]),
        ("capture AF_INET SOCK_RAW *", &[Raw]),
        ("inject AF_PACKET * *", &[]),
        ("spoof AF_INET SOCK_RAW *", &[]),
        ("bind AF_INET SOCK_STREAM *", &[LowPorts]),
        ("bind AF_INET6 SOCK_DGRAM IPPROTO_UDP", &[LowPorts]),
        ("bind AF_INET SOCK_RAW *", &[]),
        ("bind AF_INET SOCK_DGRAM IPPROTO_ICMP", &[]),
        ("bind AF_VSOCK * *", &[LowPorts]),
        ("bind AF_BLUETOOTH * BTPROTO_L2CAP", &[LowPorts]),
        ("bind AF_BLUETOOTH * BTPROTO_RFCOMM", &[]),
        ("bind 45 SOCK_DGRAM *", &[LowPorts]),
        ("bind AF_QIPCRTR * *", &[Administration]),
        ("bind AF_BLUETOOTH SOCK_RAW BTPROTO_HCI", &[Raw, Administration]),
        ("bind AF_CAN * *", &[]),
        ("bind AF_PACKET * *", &[]),
        ("connect AF_NETLINK * NETLINK_ROUTE", &[Administration]),
        ("connect AF_NETLINK * NETLINK_USERSOCK", &[]),
        ("send AF_BLUETOOTH SOCK_RAW BTPROTO_HCI", &[Raw]),
        ("send AF_NETLINK * *", &[]),
        ("bind AF_UNIX * *", &[Identity]),
        ("connect AF_UNIX * *", &[Identity]),
        ("send AF_UNIX * *", &[Identity]),
        ("transparent AF_INET * *", &[RawOrAdministration]),
        ("sethostname * * *", &[System]),
        ("ioctl * * *", &[]),
    ];

    #[test]
    fn a_verb_on_a_socket_needs_what_the_kernel_requires_and_no_more() {
        for (rule, needed) in SOCKETS {
            let mut words = rule.split(' ');
            let mut lines = vec![format!("allow = [\"{}\"]", words.next().unwrap())];
            for (field, word) in ["family", "type", "protocol"].into_iter().zip(words) {
                match (word, word.parse::<i32>()) {
                    ("*", _) => {}
                    (_, Ok(number)) => lines.push(format!("{field} = [{number}]")),
                    (_, Err(_)) => lines.push(format!("{field} = [\"{word}\"]")),
                }
            }
            assert_eq!(needs(&lines.join("\n")), *needed, "{rule}");
        }
    }

    #[test]
    fn a_class_of_options_needs_what_the_kernel_requires_and_no_more() {
        let tcp = "family = [\"AF_INET\"]\n";
        let netlink =
            |protocol: &str| format!("family = [\"AF_NETLINK\"]\nprotocol = [\"{protocol}\"]\n");
        let j1939 = "family = [\"AF_CAN\"]\nprotocol = [7]\n";
        for (socket, class, needed) in [
            (tcp, "ordinary", &[][..]),
            (tcp, "buffers-force", &[Administration]),
            (tcp, "scheduling", &[RawOrAdministration, Administration]),
            (tcp, "mark", &[RawOrAdministration]),
            (tcp, "bind-to-device", &[Raw]),
            (tcp, "multicast", &[]),
            (tcp, "filter", &[]),
            (tcp, "routing", &[Raw]),
            (tcp, "ipsec", &[Administration]),
            (tcp, "modules", &[Administration]),
            (tcp, "tcp-repair", &[Administration]),
            ("family = [\"AF_PACKET\"]\n", "packet", &[]),
            (tcp, "netlink", &[]),
            (tcp, "unknown", &[Administration]),
            (j1939, "ordinary", &[Administration]),
            ("family = [\"AF_CAN\"]\nprotocol = [1]\n", "ordinary", &[]),
            (&netlink("NETLINK_ROUTE"), "netlink", &[]),
            (&netlink("NETLINK_ROUTE"), "unknown", &[Administration, Broadcast]),
            (&netlink("NETLINK_NETFILTER"), "netlink", &[Administration]),
            (&netlink("NETLINK_XFRM"), "netlink", &[Administration]),
            (&netlink("NETLINK_USERSOCK"), "netlink", &[Administration]),
            (&netlink("NETLINK_FIB_LOOKUP"), "netlink", &[Administration]),
            (&netlink("NETLINK_AUDIT"), "netlink", &[Audit]),
        ] {
            // bind() to a group of netlink needs the class as well.
            let rule = format!(
                "{socket}allow = [\"option\", \"bind\"]\noption = [\"{class}\"]\nlocal_ports = [\"1024-65535\"]"
            );
            assert_eq!(needs(&rule), needed, "{socket}{class}");
        }
        let all = "family = [\"AF_INET\"]\nallow = [\"option\"]";
        assert_eq!(needs(all), [Raw, RawOrAdministration, Administration]);
    }

    #[test]
    fn addresses_and_messages_decide_whether_a_privilege_is_needed() {
        let tcp = "family = [\"AF_INET\"]\ntype = [\"SOCK_STREAM\"]\n";
        let netlink = "family = [\"AF_NETLINK\"]\nallow = [\"send\"]\n";
        for (rule, needed) in [
            (format!("{tcp}allow = [\"bind\"]\nlocal_ports = [\"0\", \"1024-65535\"]"), &[][..]),
            (format!("{tcp}allow = [\"bind\"]\nlocal_ports = [\"0-1\"]"), &[LowPorts]),
            (format!("{tcp}allow = [\"bind\"]\nlocal_ports = [\"1023-2000\"]"), &[LowPorts]),
            ("family = [\"AF_VSOCK\", \"AF_INET\"]\nallow = [\"bind\"]\nlocal_ports = [\"1024-2000\"]".to_owned(), &[]),
            (format!("{netlink}netlink = [\"get\"]"), &[]),
            (format!("{netlink}netlink = [\"get\", \"route\"]"), &[Administration]),
            (format!("{netlink}netlink = [\"peer\"]"), &[Administration]),
            ("deny = [\"create\", \"sethostname\"]".to_owned(), &[]),
            (format!("{tcp}allow = [\"connect\"]\nnetns = [\"caller\"]"), &[Administration, System]),
            ("allow = [\"connect\"]\nnetns = [\"lab1\"]".to_owned(), &[Administration, System]),
            ("deny = [\"connect\"]\nnetns = [\"lab1\"]".to_owned(), &[]),
        ] {
            assert_eq!(needs(&rule), needed, "{rule}");
        }
    }

    #[test]
    fn rules_that_grant_with_netns_reach_other_networks() {
        for (rule, reaches) in [
            ("allow = [\"connect\"]\nnetns = [\"any\"]", true),
            ("deny = [\"connect\"]\nnetns = [\"lab1\"]", false),
            ("allow = [\"connect\"]", false),
        ] {
            let text = format!("[[rule]]\nname = \"r\"\nsubject = {{ everyone = true }}\n{rule}\n");
            assert_eq!(
                Policy::new(OWNER, rules(&text), false).reaches_networks(),
                reaches,
                "{rule}"
            );
        }
        assert!(!Policy::built_in(OWNER).reaches_networks());
    }

    #[test]
    fn privileged_creation_is_known_by_the_socket() {
        let spec = |domain, ty, protocol| SocketSpec { domain, ty, protocol };
        for (socket, needed) in [
            (spec(libc::AF_INET, libc::SOCK_RAW, 1), true),
            (spec(libc::AF_INET6, libc::SOCK_RAW, 58), true),
            (spec(libc::AF_PACKET, libc::SOCK_DGRAM, 0), true),
            (spec(libc::AF_XDP, libc::SOCK_RAW, 0), true),
            (spec(libc::AF_KEY, libc::SOCK_RAW, 2), true),
            (spec(libc::AF_BLUETOOTH, libc::SOCK_RAW, 0), true),
            (spec(libc::AF_BLUETOOTH, libc::SOCK_RAW, 1), false),
            (spec(libc::AF_INET, libc::SOCK_DGRAM, 1), false),
            (spec(libc::AF_INET, libc::SOCK_STREAM, 0), false),
            (spec(libc::AF_UNIX, libc::SOCK_RAW, 0), false),
            (spec(libc::AF_NETLINK, libc::SOCK_RAW, 0), false),
        ] {
            assert_eq!(creation_needs_privilege(socket), needed, "{socket:?}");
        }
    }

    #[test]
    fn no_row_of_the_table_is_repeated() {
        for (index, row) in TABLE.iter().enumerate() {
            let text = format!("{row:?}");
            assert!(TABLE[..index].iter().all(|other| format!("{other:?}") != text), "{text}");
        }
    }
}
