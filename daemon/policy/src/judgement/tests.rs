//! What rules mean.

use std::net::Ipv4Addr;

use sockbroker_proto::address::Address;
use sockbroker_proto::socket_spec::SocketSpec;

use crate::fixture::{Host, OWNER, TCP, file};
use crate::judgement::action::{
    Create, GetOption, Handover, Hostname, Inspect, OptionValue, Resolve, SetOption,
};
use crate::judgement::policy::Policy;
use crate::judgement::rights::Rights;
use crate::judgement::rule_name::NO_RULE;
use crate::judgement::subject::Subject;
use crate::judgement::target::{SocketName, Target};
use crate::judgement::traffic::{Bind, Connect, Send};
use crate::language::file::read;
use crate::language::verb::Verb;

fn rights(uid: u32, rules: &str) -> Rights {
    rights_of(&Subject::new(uid, uid).in_groups(vec![50]), rules)
}

fn rights_of(subject: &Subject, rules: &str) -> Rights {
    let content = file(rules).unwrap();
    let rules = content.rules.into_iter().map(|(rule, _)| rule).collect();
    Policy::new(OWNER, rules, content.revokes).select(subject, Vec::new())
}

fn inet(host: [u8; 4], port: u16) -> Address {
    Address::Inet { host: Ipv4Addr::from(host), port }
}

fn connect(address: Address) -> Connect {
    let target = Target::Address(address);
    Connect { socket: TCP, target, local: None, interfaces: Vec::new(), looked_up: None }
}

fn bind(address: Address) -> Bind {
    Bind { socket: TCP, target: Target::Address(address), interface: None, captures: false }
}

#[test]
fn without_rules_only_root_and_the_owner_are_allowed() {
    for uid in [0, 970] {
        assert!(
            rights(uid, "").authorize(Resolve).is_ok()
                && rights(uid, "").authorize(Hostname).is_ok()
        );
    }
    let denial = rights(1000, "").authorize(Resolve).unwrap_err();
    assert_eq!(
        (denial.verb, &*denial.caller, denial.rule.as_str()),
        (Verb::Resolve, "uid 1000", NO_RULE)
    );
    let expected =
        "uid 1000 may not resolve a name: no rule allows it; missing grant: allow = [\"resolve\"]";
    assert_eq!(denial.to_string(), expected);
}

#[test]
fn a_rule_grants_its_requests_and_no_others() {
    let rules = r#"
        [[rule]]
        name = "tcp"
        subject = { groups = ["net"] }
        allow = ["create"]
        family = ["AF_INET"]
        protocol = ["IPPROTO_TCP"]
    "#;
    let rights = rights(1000, rules);
    assert_eq!(rights.authorize(Create { socket: TCP }).unwrap().rule().as_str(), "tcp");
    let udp = SocketSpec { ty: libc::SOCK_DGRAM, ..TCP };
    let denial = rights.authorize(Create { socket: udp }).unwrap_err();
    assert_eq!(
        denial.grant,
        r#"allow = ["create"] family = ["AF_INET"] type = ["SOCK_DGRAM"] protocol = ["IPPROTO_UDP"]"#
    );
    assert!(rights.authorize(connect(inet([127, 0, 0, 1], 80))).is_err());
    // A subject with any grant is allowed to inspect its own sockets.
    assert!(rights.authorize(Inspect { socket: TCP }).is_ok());
}

#[test]
fn a_deny_overrides_every_allow_and_root() {
    let rules = r#"
        [[rule]]
        name = "all"
        subject = { everyone = true }
        allow = ["resolve", "hostname"]
        [[rule]]
        name = "none"
        subject = { everyone = true }
        deny = ["resolve"]
    "#;
    for uid in [0, 1000] {
        let denial = rights(uid, rules).authorize(Resolve).unwrap_err();
        assert_eq!(denial.rule.as_str(), "none");
        assert!(rights(uid, rules).authorize(Hostname).is_ok());
    }
}

#[test]
fn remote_judges_the_normalised_address_and_never_matches_without_one() {
    let rules = r#"
        [[rule]]
        name = "web"
        subject = { everyone = true }
        allow = ["connect", "send"]
        remote = ["10.0.0.0/8"]
        remote_ports = ["80", "8000-8010"]
    "#;
    let rights = rights(1000, rules);
    for (host, port, allowed) in [
        ([10, 1, 2, 3], 80, true),
        ([10, 1, 2, 3], 8005, true),
        ([10, 1, 2, 3], 81, false),
        ([11, 1, 2, 3], 80, false),
    ] {
        let address = inet(host, port);
        assert_eq!(rights.authorize(connect(address)).is_ok(), allowed, "{host:?}:{port}");
        let host = Ipv4Addr::from(host).to_ipv6_mapped();
        let mapped = Address::Inet6 { host, port, flowinfo: 0, scope_id: 0 };
        assert_eq!(rights.authorize(connect(mapped)).is_ok(), allowed, "{host}:{port}");
    }
    assert!(rights.authorize(Send::new(TCP, None)).is_err());
    let peer = vec![SocketName::Address(inet([10, 0, 0, 1], 80))];
    let peer = Send { remotes: peer, ..Send::new(TCP, None) };
    assert!(rights.authorize(peer).is_ok());
    assert!(rights.authorize(connect(Address::UnixPath(b"/x".to_vec()))).is_err());
}

#[test]
fn ports_of_bind_are_judged_and_a_wildcard_escapes_no_deny() {
    let rules = r#"
        [[rule]]
        name = "low"
        subject = { everyone = true }
        allow = ["bind"]
        local_ports = ["80"]
        [[rule]]
        name = "not here"
        subject = { uids = [1001] }
        deny = ["bind"]
        local = ["192.0.2.1"]
    "#;
    assert!(rights(1000, rules).authorize(bind(inet([0, 0, 0, 0], 80))).is_ok());
    let denial = rights(1000, rules).authorize(bind(inet([0, 0, 0, 0], 81))).unwrap_err();
    assert_eq!(denial.errno, libc::EACCES);
    assert!(denial.grant.contains("local_ports = [\"81\"]"), "{}", denial.grant);
    let denial = rights(1001, rules).authorize(bind(inet([0, 0, 0, 0], 80))).unwrap_err();
    assert_eq!(denial.rule.as_str(), "not here");
}

#[test]
fn fast_open_connects() {
    let rules = "[[rule]]\nname = \"send\"\nsubject = { everyone = true }\nallow = [\"send\"]";
    let to = || Send::new(TCP, Some(Target::Address(inet([10, 0, 0, 1], 80))));
    assert!(rights(1000, rules).authorize(to()).is_ok());
    let denial = rights(1000, rules).authorize(Send { connects: true, ..to() }).unwrap_err();
    assert_eq!(denial.verb, Verb::Connect);
}

#[test]
fn classes_of_options_are_granted_by_name() {
    let rules = r#"
        [[rule]]
        name = "options"
        subject = { everyone = true }
        allow = ["create", "option"]
        option = ["ordinary"]
        [[rule]]
        name = "any option"
        subject = { uids = [1001] }
        allow = ["option"]
    "#;
    let write = |uid, level, name| {
        let option = SetOption::new(TCP, level, name, OptionValue::Int(1));
        rights(uid, rules).authorize(option).map(drop).map_err(|denial| denial.verb)
    };
    let mark = GetOption { socket: TCP, level: libc::SOL_SOCKET, name: libc::SO_MARK, length: 0 };
    assert!(rights(1000, rules).authorize(mark).is_ok());
    assert_eq!(write(1000, libc::SOL_SOCKET, libc::SO_REUSEADDR), Ok(()));
    assert_eq!(write(1000, libc::SOL_SOCKET, libc::SO_MARK), Err(Verb::Option));
    assert_eq!(write(1001, libc::SOL_SOCKET, libc::SO_MARK), Ok(()));
    assert_eq!(write(1001, libc::SOL_SOCKET, 9999), Err(Verb::Option));
    assert_eq!(write(1001, libc::IPPROTO_IP, libc::IP_HDRINCL), Err(Verb::Spoof));
    assert_eq!(write(1001, libc::IPPROTO_IP, libc::IP_TRANSPARENT), Err(Verb::Transparent));
    // The class says how much of `option` is meant: it does not keep the rule from `create`.
    assert!(rights(1000, rules).authorize(Create { socket: TCP }).is_ok());
}

#[test]
fn unrevocable_descriptors_are_passed_only_by_name() {
    let rules = r#"
        [[rule]]
        name = "weak"
        subject = { everyone = true }
        allow = ["handover"]
        [[rule]]
        name = "strong"
        subject = { uids = [1001] }
        allow = ["handover"]
        handover = "unrevocable"
    "#;
    let raw = SocketSpec { domain: libc::AF_INET, ty: libc::SOCK_RAW, protocol: 1 };
    let packet = SocketSpec { domain: libc::AF_PACKET, ty: libc::SOCK_DGRAM, protocol: 0 };
    assert!(rights(1000, rules).authorize(Handover { socket: TCP, escapes: None }).is_ok());
    for socket in [raw, packet] {
        let denial = rights(1000, rules).authorize(Handover { socket, escapes: None }).unwrap_err();
        assert!(denial.grant.ends_with("handover = \"unrevocable\""), "{}", denial.grant);
        assert!(rights(1001, rules).authorize(Handover { socket, escapes: None }).is_ok());
    }
}

#[test]
fn a_denial_hints_at_a_grant_of_ping_sockets() {
    let rules = r#"
        [[rule]]
        name = "ping"
        subject = { everyone = true }
        allow = ["create"]
        type = ["SOCK_DGRAM"]
        protocol = ["IPPROTO_ICMP"]
    "#;
    let raw = SocketSpec { domain: libc::AF_INET, ty: libc::SOCK_RAW, protocol: 1 };
    let denial = rights(1000, rules).authorize(Create { socket: raw }).unwrap_err();
    assert!(denial.to_string().contains("use SOCK_DGRAM"), "{denial}");
    assert_eq!(denial.errno, libc::EPERM);
    assert!(rights(1000, rules).authorize(Create { socket: TCP }).unwrap_err().hint.is_none());
}

#[test]
fn a_packet_socket_under_another_family_is_known_as_one() {
    let rules = "[[rule]]\nname = \"inet\"\nsubject = { everyone = true }\nallow = [\"create\"]\nfamily = [\"AF_INET\"]";
    let disguised = SocketSpec { domain: libc::AF_INET, ty: 10, protocol: 0x0300 };
    assert!(rights(1000, rules).authorize(Create { socket: disguised }).is_err());
}

#[test]
fn mistakes_are_reported_with_line_and_column() {
    for (text, line, column, part) in [
        ("[[rule]]", 1, 1, "the file begins with `version = 1`"),
        ("version = 2", 1, 11, "version 2 is not supported"),
        ("version = 1\nrules = []", 2, 1, "expected one of"),
        ("version = 1\n[[rule]]\nname = \"a\"\nallow = [\"creat\"]", 4, 9, "the verbs are: create"),
        ("version = 1\n[[rule]]\nname = \"a\"\nallow = [\"bind\"]\nfamly = []", 5, 1, "`family`"),
        (
            "version = 1\n[[rule]]\nname = \"a\"\nallow = [\"bind\"]\nnetns = [\"/n\"]",
            5,
            9,
            "a name is not a path",
        ),
        (
            "version = 1\n[[rule]]\nname = \"a\"\nallow = [\"bind\"]\nnetns = [\"*\"]",
            5,
            9,
            "a name is not a pattern; write \"caller\", \"owned\", a name of `ip netns list`, or \"any\"",
        ),
        ("version = 1\n[[rule]]\nname = \"a\"\nallow = [\"netns\"]", 4, 9, "unknown verb `netns`"),
        (
            "version = 1\n[[rule]]\nname = \"a\"\nallow = [\"bind\"]\nlocal = [\"10.0.0.1/8\"]",
            5,
            9,
            "10.0.0.0/8",
        ),
        ("version = 1\n[[rule]]\nname = \"a\"", 2, 1, "either `allow` or `deny`"),
        ("version = 1\n[[rule]]\nallow = [\"bind\"]", 2, 1, "a rule needs a `name`"),
        (
            "version = 1\n[[rule]]\nname = \"a\"\nallow = [\"bind\"]\noption = [\"mark\"]",
            2,
            1,
            "the verb `option`",
        ),
    ] {
        let error = read("policy.toml", text, &Host).unwrap_err();
        let shown = error.to_string();
        assert!(shown.starts_with(&format!("policy.toml: line {line}, column ")), "{shown}");
        assert!(shown.contains(part) && shown.contains('^'), "{shown}");
        assert_eq!((error.line, error.column), (line, column), "{shown}");
    }
}

#[test]
fn unknown_users_and_groups_are_warnings_and_match_nobody() {
    let text = "version = 1\n[[rule]]\nname = \"a\"\nsubject = { users = [\"bob\"] }\nallow = [\"resolve\"]";
    let content = read("policy.toml", text, &Host).unwrap();
    assert!(
        content.warnings[0]
            .to_string()
            .contains("policy.toml:4:22: rule `a`: there is no user `bob`")
    );
    let text = text.strip_prefix("version = 1\n").unwrap();
    assert!(rights(1000, text).authorize(Resolve).is_err());
    assert!(rights(1000, &text.replace("bob", "alice")).authorize(Resolve).is_ok());
}

#[test]
fn a_subject_in_an_unknown_unit_is_refused_and_granted_nothing_by_rules_about_units() {
    const ALLOW: &str = "[[rule]]\nname = \"a\"\nallow = [\"hostname\"]\n";
    let named = |field: &str| format!("{ALLOW}subject = {{ {field} }}\n");
    let refused = |field: &str| {
        let deny = "[[rule]]\nname = \"d\"\ndeny = [\"hostname\"]\n";
        format!("{ALLOW}subject = {{ everyone = true }}\n{deny}subject = {{ {field} }}\n")
    };
    let within = |cgroup: &str| Subject::new(1, 1).in_cgroup(Some(cgroup.to_owned()));
    let own = within("/system.slice/crawler.service");
    // In no unit, and known to be in none.
    let (other, container) = (within("/system.slice/x.service"), within("/docker/0"));
    let (removed, unknown) = (within("/system.slice/x.service (deleted)"), Subject::new(1, 1));
    for field in ["units = [\"crawler.service\"]", "cgroups = [\"/system.slice/crawler.service\"]"]
    {
        let granted =
            |subject: &Subject, rules: &str| rights_of(subject, rules).authorize(Hostname).is_ok();
        for (subject, by_grant, despite_denial) in [
            (&own, true, false),
            (&other, false, true),
            (&container, false, true),
            (&removed, false, false),
            (&unknown, false, false),
        ] {
            assert_eq!(granted(subject, &named(field)), by_grant, "{subject:?}");
            assert_eq!(granted(subject, &refused(field)), despite_denial, "{subject:?}");
        }
    }
    // Other fields of the rule still have to hold.
    let of_another = refused("units = [\"crawler.service\"], uids = [7]");
    assert!(rights_of(&unknown, &of_another).authorize(Hostname).is_ok());
}
