//! Warnings about rules that cannot do what they seem to do: rules that are never reached, and fields that
//! the verbs of a rule do not have.

use crate::language::contradiction::contradictions;
use crate::language::descriptor::escapes;
use crate::language::file::Warning;
use crate::language::name::{PathPrefix, Pattern};
use crate::language::netns::NetnsPattern;
use crate::language::operand::Operand;
use crate::language::qualifier::Handover;
use crate::language::rule::{Effect, Rule};
use crate::language::subjects::Subjects;
use crate::language::verb::Verb;

/// Warnings about rules. Each rule comes with its position.
pub fn check(rules: &[(Rule, String)]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for (index, (rule, origin)) in rules.iter().enumerate() {
        let mut warn = |message: String| {
            let message = format!("rule `{}`: {message}", rule.name);
            warnings.push(Warning { position: origin.clone(), message });
        };
        for (verb, field) in impossible(rule) {
            let (verb, field) = (verb.word(), field.word());
            warn(format!(
                "it never decides `{verb}`, which has no `{field}`: put `{verb}` into another rule"
            ));
        }
        for why in contradictions(rule) {
            warn(why);
        }
        if let Some((allow, where_from)) = rules.iter().find(|(other, _)| escapes(rule, other)) {
            warn(format!(
                "it cannot bind the holder of a descriptor, so `{}` at {where_from} passes no descriptor \
                 that it could be about: write `unchecked = false` there to keep it so, or \
                 `unchecked = true` to pass them anyway",
                allow.name
            ));
        }
        let denied = rules.iter().find(|(other, _)| {
            other.effect == Effect::Deny && rule.effect == Effect::Allow && covers(other, rule)
        });
        if let Some((deny, where_from)) = denied {
            warn(format!("it is never reached: `{}` at {where_from} denies all of it", deny.name));
        }
        let mut earlier = rules.iter().take(index);
        if let Some((same, where_from)) =
            earlier.find(|(other, _)| other.effect == rule.effect && covers(other, rule))
        {
            warn(format!("it adds nothing: `{}` at {where_from} covers all of it", same.name));
        }
    }
    warnings
}

/// Verbs of a rule and the field that keeps the rule from ever deciding them.
fn impossible(rule: &Rule) -> impl Iterator<Item = (Verb, Operand)> {
    rule.verbs().filter_map(|verb| {
        let mut fields = rule.fields.present().filter(|operand| !operand.is_qualifier());
        fields.find(|operand| !operand.applies_to(verb)).map(|operand| (verb, operand))
    })
}

/// Whether a rule matches every request that another matches. Can be false where it does, and is never
/// true where it does not.
fn covers(rule: &Rule, other: &Rule) -> bool {
    other.verbs().all(|verb| rule.verbs().any(|own| own == verb))
        && covers_subjects(&rule.subject, &other.subject, rule.effect)
        && Operand::ALL.iter().all(|operand| covers_field(*operand, rule, other))
}

/// Whether a rule matches every request that another matches, as far as one field is concerned.
fn covers_field(operand: Operand, rule: &Rule, other: &Rule) -> bool {
    let (own, theirs) = (&rule.fields, &other.fields);
    let deny = rule.effect == Effect::Deny;
    match operand {
        Operand::Family => every(&own.family, &theirs.family, PartialEq::eq),
        Operand::Type => every(&own.ty, &theirs.ty, PartialEq::eq),
        Operand::Protocol => every(&own.protocol, &theirs.protocol, PartialEq::eq),
        Operand::Local => every(&own.local, &theirs.local, |own, other| own.covers(*other)),
        Operand::LocalPorts => {
            every(&own.local_ports, &theirs.local_ports, |own, other| own.covers(*other))
        }
        Operand::Remote => every(&own.remote, &theirs.remote, |own, other| own.covers(*other)),
        Operand::RemotePorts => {
            every(&own.remote_ports, &theirs.remote_ports, |own, other| own.covers(*other))
        }
        Operand::Interface => every(&own.interface, &theirs.interface, Pattern::covers),
        Operand::Netns => {
            let any = !theirs.netns.is_empty() && own.netns.contains(&NetnsPattern::Any);
            any || own.netns == theirs.netns || is_part(&theirs.netns, &own.netns)
        }
        Operand::Path => every(&own.path, &theirs.path, PathPrefix::covers),
        Operand::Option if deny => own.option.is_empty() || is_part(&theirs.option, &own.option),
        Operand::Option => own.option == theirs.option,
        Operand::Netlink if deny => {
            own.netlink.is_empty() || is_part(&theirs.netlink, &own.netlink)
        }
        Operand::Netlink => own.netlink == theirs.netlink,
        Operand::Handover if deny => covers_handover(rule, other),
        Operand::Handover => own.handover == theirs.handover,
        // A rule that denies does not have these: it refuses whatever they are.
        Operand::Snaplen => deny || own.snaplen == theirs.snaplen,
        Operand::Unchecked => deny || own.unchecked == theirs.unchecked,
        Operand::Paths => deny || own.paths == theirs.paths,
        Operand::Lookup | Operand::LookupSeconds => {
            deny || own.lookup_limit() == theirs.lookup_limit()
        }
    }
}

/// Whether a rule that denies matches every passed descriptor that another is about.
fn covers_handover(deny: &Rule, other: &Rule) -> bool {
    match (deny.fields.handover, other.effect) {
        (None, _) => true,
        (Some(_), Effect::Deny) => deny.fields.handover == other.fields.handover,
        (Some(Handover::Ordinary), Effect::Allow) => {
            other.fields.handover != Some(Handover::Unrevocable)
        }
        // A rule that passes these passes the others too.
        (Some(Handover::Unrevocable), Effect::Allow) => false,
    }
}

fn covers_subjects(own: &Subjects, other: &Subjects, effect: Effect) -> bool {
    if other.are_remote() {
        let all = effect == Effect::Deny && own.are_everyone();
        let is_part = |own: &[Pattern], other: &[Pattern]| {
            other.is_empty() || every(own, other, Pattern::covers) && !own.is_empty()
        };
        return all
            || is_part(&own.certificates, &other.certificates)
                && is_part(&own.tokens, &other.tokens);
    }
    if own.are_remote() {
        return false;
    }
    // The ids of names that this host does not have are unknown.
    let ids = |own: &Option<Vec<u32>>, known: &Option<Vec<u32>>| match (own, known) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(own), Some(known)) => !other.incomplete && known.iter().all(|id| own.contains(id)),
    };
    ids(&own.uids, &other.uids)
        && ids(&own.gids, &other.gids)
        && every(&own.units, &other.units, Pattern::covers)
        && every(&own.cgroups, &other.cgroups, PathPrefix::covers)
}

/// Whether a list of values admits every value that another admits.
fn every<T>(own: &[T], other: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
    own.is_empty()
        || !other.is_empty() && other.iter().all(|other| own.iter().any(|own| covers(own, other)))
}

fn is_part<T: PartialEq>(part: &[T], whole: &[T]) -> bool {
    !part.is_empty() && part.iter().all(|item| whole.contains(item))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::file;

    fn warnings(rules: &str) -> Vec<String> {
        let content = file(rules).unwrap();
        let rules = content.rules.into_iter().map(|(rule, line)| (rule, format!("p:{line}")));
        check(&rules.collect::<Vec<_>>()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_allow_that_a_deny_covers_is_never_reached() {
        let found = warnings(
            r#"
            [[rule]]
            name = "web"
            subject = { uids = [7] }
            allow = ["connect"]
            remote = ["10.1.0.0/16"]
            remote_ports = ["80"]
            [[rule]]
            name = "no ten"
            subject = { everyone = true }
            deny = ["connect", "send"]
            remote = ["10.0.0.0/8"]
            "#,
        );
        assert_eq!(
            found,
            ["p:3:13: rule `web`: it is never reached: `no ten` at p:9:13 denies all of it"]
        );
    }

    #[test]
    fn a_deny_of_a_part_leaves_the_rest() {
        let found = warnings(
            r#"
            [[rule]]
            name = "web"
            subject = { everyone = true }
            allow = ["connect"]
            remote = ["10.0.0.0/8"]
            [[rule]]
            name = "not these"
            subject = { uids = [7] }
            deny = ["connect"]
            [[rule]]
            name = "nor these"
            subject = { everyone = true }
            deny = ["connect"]
            remote = ["10.1.0.0/16"]
            "#,
        );
        assert_eq!(found, [""; 0]);
    }

    /// Each block of rules in a document.
    fn rules_of(document: &str) -> Vec<String> {
        let blocks = document.split("\n```toml\n").skip(1);
        let blocks = blocks.map(|rest| rest.split_once("```").unwrap().0);
        let rules = blocks.filter(|block| block.contains("[[rule]]"));
        rules.map(|rules| rules.trim_start_matches("version = 1\n").to_owned()).collect()
    }

    #[test]
    fn rules_in_documents_have_no_warnings() {
        let documents = [
            include_str!("../../../../README.md"),
            include_str!("../../../../client/python/README.md"),
            include_str!("../../../../deploy/doc/from-tcpdump.md"),
        ];
        for (document, blocks) in documents.into_iter().zip([3, 1, 1]) {
            let blocks_of_it = rules_of(document);
            assert_eq!(blocks_of_it.len(), blocks, "{document}");
            for block in blocks_of_it {
                // Other users and groups do not exist here.
                let unknown = |warning: &String| warning.contains("unknown");
                let found: Vec<_> = warnings(&block).into_iter().filter(|w| !unknown(w)).collect();
                assert_eq!(found, [""; 0], "{block}");
            }
        }
    }

    #[test]
    fn operands_that_a_verb_never_has_are_warnings() {
        let found = warnings(
            "[[rule]]\nname = \"a\"\nsubject = { everyone = true }\nallow = [\"create\", \"connect\"]\nremote = [\"any\"]",
        );
        let why =
            "it never decides `create`, which has no `remote`: put `create` into another rule";
        assert_eq!(found, [format!("p:2:1: rule `a`: {why}")]);
    }

    /// Fields of rules and the warning that they get.
    const NEVER: &[(&str, &str)] = &[
        (
            "allow = [\"connect\"]\npath = [\"/a\"]\nremote = [\"any\"]",
            "it never matches: no address has both `path` and `remote`",
        ),
        (
            "allow = [\"bind\"]\npath = [\"/a\"]\nlocal_ports = [\"1\"]",
            "it never matches: no address has both `path` and `local_ports`",
        ),
        (
            "allow = [\"bind\"]\nfamily = [\"AF_UNIX\", \"AF_VSOCK\"]\nlocal = [\"any\"]",
            "it never matches: no family in `family` has `local`",
        ),
        (
            "allow = [\"connect\"]\nfamily = [\"AF_INET\"]\npath = [\"/a\"]",
            "it never matches: `path` needs the family AF_UNIX",
        ),
        (
            "allow = [\"connect\"]\ntype = [\"SOCK_RAW\"]\nremote_ports = [\"1\"]",
            "it never matches: raw and ICMP sockets have no ports, so `remote_ports` matches none",
        ),
        (
            "allow = [\"bind\"]\nprotocol = [\"IPPROTO_ICMP\"]\nlocal_ports = [\"1\"]",
            "it never matches: raw and ICMP sockets have no ports, so `local_ports` matches none",
        ),
        (
            "allow = [\"connect\"]\nfamily = [\"AF_INET\"]\nremote = [\"::1\"]",
            "it never matches: `remote` has only IPv6 addresses, and `family` only AF_INET",
        ),
        (
            "allow = [\"create\"]\nfamily = [\"AF_INET\"]\ntype = [\"SOCK_STREAM\"]\nprotocol = [\"IPPROTO_UDP\"]",
            "it never matches: no type in `type` has a protocol in `protocol`",
        ),
        (
            "allow = [\"create\"]\nfamily = [\"AF_INET6\"]\ntype = [\"SOCK_DGRAM\"]\nprotocol = [\"IPPROTO_IP\"]",
            "it never matches: no type in `type` has a protocol in `protocol`",
        ),
        (
            "allow = [\"create\"]\nfamily = [\"AF_INET\"]\ntype = [\"SOCK_DGRAM\"]\nprotocol = [\"IPPROTO_TCP\"]",
            "it never matches: no type in `type` has a protocol in `protocol`",
        ),
        (
            "allow = [\"create\", \"send\"]\nfamily = [\"AF_PACKET\"]",
            "it never decides `send`: on AF_PACKET that is `inject`",
        ),
        (
            "allow = [\"create\", \"receive\"]\nfamily = [\"AF_PACKET\"]",
            "it never decides `receive`: on AF_PACKET that is `capture`",
        ),
        (
            "deny = [\"inject\"]\nfamily = [\"AF_INET\"]",
            "it never decides `inject`: it needs the family AF_PACKET",
        ),
        (
            "allow = [\"send\"]\nfamily = [\"AF_INET\"]\nnetlink = [\"get\"]",
            "its `netlink` has no effect without the family AF_NETLINK",
        ),
    ];

    #[test]
    fn rules_that_no_request_matches_are_warnings_at_their_position() {
        for (fields, why) in NEVER {
            let rule = format!("\n [[rule]]\nname = \"a\"\nsubject = {{ uids = [7] }}\n{fields}");
            assert_eq!(warnings(&rule), [format!("p:3:2: rule `a`: {why}")], "{fields}");
        }
    }

    #[test]
    fn rules_that_some_request_matches_get_no_warning() {
        for fields in [
            "allow = [\"connect\"]\nfamily = [\"AF_UNIX\", \"AF_INET\"]\nremote = [\"any\"]",
            "allow = [\"connect\"]\nfamily = [\"AF_UNIX\", \"AF_INET\"]\npath = [\"/a\"]",
            "allow = [\"connect\"]\nfamily = [\"AF_INET6\"]\nremote = [\"10.0.0.0/8\"]",
            "allow = [\"connect\"]\nfamily = [\"AF_INET\"]\nremote = [\"::1\", \"any\"]",
            "allow = [\"connect\"]\ntype = [\"SOCK_RAW\", \"SOCK_DGRAM\"]\nremote_ports = [\"1\"]",
            "allow = [\"create\"]\nfamily = [\"AF_INET\"]\ntype = [\"SOCK_RAW\"]\nprotocol = [\"IPPROTO_IP\"]",
            "allow = [\"create\"]\nfamily = [\"AF_INET\"]\ntype = [\"SOCK_STREAM\"]\nprotocol = [\"IPPROTO_UDP\", \"IPPROTO_TCP\"]",
            "allow = [\"send\", \"inject\"]\nfamily = [\"AF_INET\", \"AF_PACKET\"]",
            "allow = [\"send\"]\nnetlink = [\"get\"]",
        ] {
            let rule = format!("[[rule]]\nname = \"a\"\nsubject = {{ uids = [7] }}\n{fields}");
            assert_eq!(warnings(&rule), [""; 0], "{fields}");
        }
    }

    /// Warnings about a rule with the first subject, then one that allows the same with the second.
    fn of_two(first: &str, effect: &str, second: &str) -> Vec<String> {
        let rule = |name: &str, subject: &str, effect: &str| {
            format!("[[rule]]\nname = \"{name}\"\nsubject = {subject}\n{effect} = [\"resolve\"]\n")
        };
        warnings(&(rule("a", first, effect) + &rule("b", second, "allow")))
    }

    #[test]
    fn names_that_the_host_does_not_know_are_not_the_same_subject() {
        for (first, second) in [
            ("{ groups = [\"a\"] }", "{ groups = [\"b\"] }"),
            ("{ users = [\"a\"] }", "{ users = [\"b\"] }"),
            ("{ users = [\"a\"], uids = [7] }", "{ users = [\"b\"], uids = [7] }"),
            ("{ gids = [7] }", "{ groups = [\"b\"], gids = [7] }"),
        ] {
            for effect in ["allow", "deny"] {
                assert_eq!(of_two(first, effect, second), [""; 0], "{first} {effect} {second}");
            }
        }
        let everyone = of_two("{ everyone = true }", "allow", "{ groups = [\"b\"] }");
        assert_eq!(everyone, ["p:6:1: rule `b`: it adds nothing: `a` at p:2:1 covers all of it"]);
        let nobody = of_two("{ everyone = true }", "deny", "{ groups = [\"b\"] }");
        assert_eq!(nobody, ["p:6:1: rule `b`: it is never reached: `a` at p:2:1 denies all of it"]);
    }

    #[test]
    fn a_deny_of_unrevocable_descriptors_leaves_the_others() {
        let rules = |deny: &str, allow: &str| {
            let start = "subject = { everyone = true }\n";
            format!(
                "[[rule]]\nname = \"a\"\n{start}deny = [\"handover\"]\n{deny}\n\
                 [[rule]]\nname = \"b\"\n{start}allow = [\"handover\"]\n{allow}\n"
            )
        };
        let (ordinary, strong) = ("handover = \"ordinary\"", "handover = \"unrevocable\"");
        for (deny, allow, reached) in [
            (strong, strong, true),
            (strong, "", true),
            (ordinary, strong, true),
            (ordinary, ordinary, false),
            (ordinary, "", false),
            ("", strong, false),
        ] {
            assert_eq!(warnings(&rules(deny, allow)).is_empty(), reached, "{deny} {allow}");
        }
    }

    #[test]
    fn a_rule_that_repeats_another_is_a_warning() {
        let rule = |name: &str| {
            format!(
                "[[rule]]\nname = \"{name}\"\nsubject = {{ everyone = true }}\nallow = [\"resolve\"]\n"
            )
        };
        let found = warnings(&(rule("a") + &rule("b")));
        assert_eq!(found, ["p:6:1: rule `b`: it adds nothing: `a` at p:2:1 covers all of it"]);
    }

    #[test]
    fn any_covers_all_network_namespaces_but_that_of_the_broker() {
        let rules = |deny: &str, allow: &str| {
            let rule = |name: &str, effect: &str, netns: &str| {
                let start = "subject = { everyone = true }";
                format!("[[rule]]\nname = \"{name}\"\n{start}\n{effect} = [\"create\"]\n{netns}\n")
            };
            warnings(&(rule("a", "deny", deny) + &rule("b", "allow", allow)))
        };
        let any = "netns = [\"any\"]";
        for (deny, allow, reached) in [
            (any, "netns = [\"caller\", \"lab1\"]", false),
            (any, any, false),
            (any, "", true),
            ("", any, true),
            ("netns = [\"caller\", \"owned\", \"lab1\"]", any, true),
        ] {
            assert_eq!(rules(deny, allow).is_empty(), reached, "{deny} {allow}");
        }
    }

    #[test]
    fn a_deny_that_descriptors_escape_is_a_warning_unless_the_grant_decides_it() {
        let rules = |grant: &str, deny: &str| {
            warnings(&format!(
                "[[rule]]\nname = \"a\"\nsubject = {{ uids = [7] }}\nallow = [\"handover\"]\n{grant}\n\
                 [[rule]]\nname = \"d\"\nsubject = {{ everyone = true }}\ndeny = [\"connect\"]\n{deny}\n"
            ))
        };
        let remote = "remote = [\"10.0.0.0/8\"]";
        let found = rules("", remote);
        assert!(found.len() == 1 && found[0].contains("`a` at p:"), "{found:?}");
        for (grant, deny) in [
            ("unchecked = true", remote),
            ("unchecked = false", remote),
            ("family = [\"AF_UNIX\"]", remote),
            ("type = [\"SOCK_DGRAM\"]", "remote = [\"any\"]\ntype = [\"SOCK_STREAM\"]"),
            ("", "family = [\"AF_INET\"]"),
        ] {
            assert_eq!(rules(grant, deny), [""; 0], "{grant} {deny}");
        }
    }
}
