//! Random rules as text, and a simple evaluation of them.

use std::net::IpAddr;

use sockbroker_policy::subject::Subject;

use crate::dice::Dice;

/// A required grant: a verb and its operands, in the words of the rule language.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequiredGrant {
    pub(crate) verb: &'static str,
    pub(crate) family: Option<&'static str>,
    pub(crate) kind: Option<&'static str>,
    pub(crate) protocol: Option<&'static str>,
    pub(crate) local: Option<(IpAddr, u16)>,
    pub(crate) remote: Option<(IpAddr, u16)>,
    pub(crate) interface: Option<&'static str>,
    pub(crate) option: Option<&'static str>,
    pub(crate) netlink: Option<&'static str>,
    pub(crate) length: Option<u64>,
    /// The network namespace; `None` for that of the broker.
    pub(crate) netns: Option<&'static str>,
    /// Whether it is for a capture that is a stream.
    pub(crate) opens_capture: bool,
}

/// The verb and the rule that refuse a call.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) verb: String,
    pub(crate) rule: String,
}

/// A rule of random words. A field without words is omitted.
#[derive(Debug, Default)]
struct Rule {
    name: String,
    deny: bool,
    uids: Vec<u32>,
    gids: Vec<u32>,
    units: Vec<&'static str>,
    cgroups: Vec<&'static str>,
    verbs: Vec<&'static str>,
    fields: Vec<(&'static str, Vec<&'static str>)>,
    snaplen: Option<u64>,
    unrevocable: bool,
    unchecked: bool,
}

/// A random policy.
#[derive(Debug)]
pub(crate) struct Rules(Vec<Rule>);

const VERBS: [&str; 23] = [
    "create",
    "adopt",
    "bind",
    "listen",
    "accept",
    "connect",
    "send",
    "receive",
    "option",
    "ioctl",
    "capture",
    "inject",
    "spoof",
    "transparent",
    "inspect",
    "handover",
    "session",
    "persist",
    "resolve",
    "interfaces",
    "hostname",
    "sethostname",
    "admin",
];
const POOLS: [(&str, &[&str]); 11] = [
    ("family", &["AF_INET", "AF_INET6", "AF_UNIX", "AF_PACKET", "AF_NETLINK"]),
    ("type", &["SOCK_STREAM", "SOCK_DGRAM", "SOCK_RAW"]),
    ("protocol", &["IPPROTO_TCP", "IPPROTO_UDP", "IPPROTO_ICMP", "NETLINK_ROUTE"]),
    ("local", &["127.0.0.0/8", "::1", "10.0.0.0/8", "0.0.0.0", "any"]),
    ("local_ports", &["0", "1-1023", "1024-65535"]),
    ("remote", &["127.0.0.0/8", "127.0.0.1", "::1", "10.0.0.0/8", "any"]),
    ("remote_ports", &["9", "1-1023", "1024-65535"]),
    ("interface", &["lo", "eth*", "none"]),
    ("option", &["ordinary", "mark", "multicast", "filter", "unknown"]),
    ("netlink", &["get", "link", "route", "unknown"]),
    ("netns", &["caller", "owned", "lab1", "lab2", "any"]),
];

impl Rules {
    /// Generates up to eight rules; some of them apply to other subjects.
    pub(crate) fn random(dice: &mut Dice, subject: &Subject) -> Self {
        let count = dice.below(9);
        Self((0..count).map(|place| Rule::random(dice, subject, place)).collect())
    }

    /// Returns the text of the policy file.
    pub(crate) fn text(&self) -> String {
        let rules: Vec<_> = self.0.iter().map(Rule::text).collect();
        format!("version = 1\n{}", rules.concat())
    }

    /// Returns the first refusal of these requests, if any.
    pub(crate) fn verdict(&self, subject: &Subject, required: &[RequiredGrant]) -> Option<Refusal> {
        required.iter().find_map(|grant| self.refusal(subject, grant))
    }

    fn refusal(&self, subject: &Subject, grant: &RequiredGrant) -> Option<Refusal> {
        let own: Vec<_> = self.0.iter().filter(|rule| rule.is_about(subject)).collect();
        let refusal =
            |rule: &str| Some(Refusal { verb: grant.verb.to_owned(), rule: rule.to_owned() });
        for rule in &own {
            if rule.deny && rule.matches(grant) {
                return refusal(&rule.name);
            }
        }
        let escaped = if grant.verb == "handover" { escaped(&own, grant) } else { None };
        for rule in &own {
            if !rule.deny && rule.matches(grant) && (rule.unchecked || escaped.is_none()) {
                return None;
            }
        }
        let holder = own.iter().any(|rule| !rule.deny);
        if holder && (grant.verb == "inspect" || grant.verb == "session") {
            return None;
        }
        let bound = own.iter().any(|rule| !rule.deny && rule.matches(grant));
        refusal(escaped.as_deref().filter(|_| bound).unwrap_or("no rule"))
    }
}

/// Returns the rule that denies an action that the holder of a descriptor can do without the broker.
fn escaped(own: &[&Rule], grant: &RequiredGrant) -> Option<String> {
    const HOLDER: [&str; 9] =
        ["bind", "listen", "accept", "connect", "send", "receive", "option", "capture", "inject"];
    let internet = grant.family.is_some_and(|family| family.starts_with("AF_INET"));
    let binds = |rule: &Rule| {
        let about = rule.fields.iter().all(|(field, words)| match *field {
            "family" | "type" | "protocol" | "netns" => rule.field_matches(field, words, grant),
            _ => true,
        });
        let has = |names: &[&str]| rule.fields.iter().any(|(field, _)| names.contains(field));
        let addresses = has(&["local", "local_ports", "remote", "remote_ports"]);
        let interface = has(&["interface"]) && (internet || grant.family == Some("AF_PACKET"));
        rule.deny && about && (addresses && internet || interface)
    };
    let found = HOLDER
        .iter()
        .find_map(|verb| own.iter().find(|rule| rule.verbs.contains(verb) && binds(rule)));
    found.map(|rule| rule.name.clone())
}

impl Rule {
    fn random(dice: &mut Dice, subject: &Subject, place: usize) -> Self {
        let mut rule = Self {
            name: format!("rule {place}"),
            deny: dice.percent(20),
            verbs: dice.some(&VERBS, 8),
            ..Self::default()
        };
        if dice.percent(30) {
            rule.uids = vec![*dice.one(&[subject.uid, 4000])];
        }
        if dice.percent(30) {
            rule.gids = vec![*dice.one(&[subject.gid, subject.groups[0], 4000])];
        }
        if dice.percent(15) {
            rule.units = dice.some(&["a.service", "b.service", "b*"], 2);
        }
        if dice.percent(10) {
            rule.cgroups = dice.some(&["/system.slice", "/system.slice/b.service/x", "/other"], 2);
        }
        for (field, pool) in POOLS {
            let goes = match field {
                "option" => rule.verbs.contains(&"option"),
                "netlink" => rule.verbs.contains(&"send"),
                _ => true,
            };
            if goes && dice.percent(if field == "netlink" { 50 } else { 12 }) {
                rule.fields.push((field, dice.some(pool, 3)));
            }
        }
        if rule.verbs.contains(&"capture") && !rule.deny && dice.percent(30) {
            rule.snaplen = Some(*dice.one(&[64, 2000]));
        }
        rule.unchecked = rule.verbs.contains(&"handover") && !rule.deny && dice.percent(50);
        rule.unrevocable = rule.verbs.contains(&"handover") && dice.percent(50);
        rule
    }

    fn text(&self) -> String {
        let mut lines = vec![
            "[[rule]]".to_owned(),
            format!("name = {:?}", self.name),
            format!("subject = {{ {} }}", self.subject()),
            format!("{} = {:?}", if self.deny { "deny" } else { "allow" }, self.verbs),
        ];
        lines.extend(self.fields.iter().map(|(field, words)| format!("{field} = {words:?}")));
        lines.extend(self.snaplen.map(|snaplen| format!("snaplen = {snaplen}")));
        lines.extend(self.unchecked.then(|| "unchecked = true".to_owned()));
        lines.extend(self.unrevocable.then(|| "handover = \"unrevocable\"".to_owned()));
        lines.join("\n") + "\n"
    }

    /// Returns the fields of the subject.
    fn subject(&self) -> String {
        let fields = [
            (!self.uids.is_empty()).then(|| format!("uids = {:?}", self.uids)),
            (!self.gids.is_empty()).then(|| format!("gids = {:?}", self.gids)),
            (!self.units.is_empty()).then(|| format!("units = {:?}", self.units)),
            (!self.cgroups.is_empty()).then(|| format!("cgroups = {:?}", self.cgroups)),
        ];
        let fields: Vec<_> = fields.into_iter().flatten().collect();
        if fields.is_empty() { "everyone = true".to_owned() } else { fields.join(", ") }
    }

    fn is_about(&self, subject: &Subject) -> bool {
        let groups: Vec<u32> = subject.groups.iter().copied().chain([subject.gid]).collect();
        (self.uids.is_empty() || self.uids.contains(&subject.uid))
            && (self.gids.is_empty() || self.gids.iter().any(|gid| groups.contains(gid)))
            && self.is_about_place(subject)
    }

    /// If the place of the subject is unknown, deny rules about any place apply.
    fn is_about_place(&self, subject: &Subject) -> bool {
        let Some(cgroup) = &subject.cgroup else {
            return self.deny || (self.units.is_empty() && self.cgroups.is_empty());
        };
        let in_unit = |unit: &&str| match unit.strip_suffix('*') {
            Some(start) => subject.unit.as_ref().is_some_and(|own| own.starts_with(start)),
            None => subject.unit.as_deref() == Some(*unit),
        };
        let below = |place: &&str| **cgroup == **place || cgroup.starts_with(&format!("{place}/"));
        (self.units.is_empty() || self.units.iter().any(in_unit))
            && (self.cgroups.is_empty() || self.cgroups.iter().any(below))
    }

    fn matches(&self, grant: &RequiredGrant) -> bool {
        // Such fields are about the packets of a capture: they allow or deny some of them.
        let about_packets = |field: &str| {
            let fields = ["protocol", "local", "local_ports", "remote", "remote_ports"];
            grant.opens_capture && fields.contains(&field)
        };
        if self.deny && self.fields.iter().any(|(field, _)| about_packets(field)) {
            return false;
        }
        let matches = |(field, words): &(&'static str, Vec<&'static str>)| {
            about_packets(field) || self.field_matches(field, words, grant)
        };
        self.verbs.contains(&grant.verb)
            && self.fields.iter().all(matches)
            && self.unlisted_matches(grant)
    }

    fn field_matches(&self, field: &str, words: &[&str], grant: &RequiredGrant) -> bool {
        let is = |word: Option<&str>| word.is_some_and(|word| words.contains(&word));
        match field {
            "family" => is(grant.family),
            "type" => is(grant.kind),
            "protocol" => is(grant.protocol),
            "local" => grant.local.is_some_and(|(ip, _)| {
                self.deny && ip.is_unspecified() || words.iter().any(|net| contains(net, ip))
            }),
            "remote" => {
                grant.remote.is_some_and(|(ip, _)| words.iter().any(|net| contains(net, ip)))
            }
            "local_ports" => grant.local.is_some_and(|(_, port)| is_within(words, port)),
            "remote_ports" => grant.remote.is_some_and(|(_, port)| is_within(words, port)),
            "interface" => match grant.interface {
                Some(name) => words.contains(&name),
                // Such a socket captures from all interfaces.
                None => self.deny && grant.verb == "capture",
            },
            "option" => grant.verb != "option" || is(grant.option),
            "netlink" => grant.netlink.is_none() || is(grant.netlink),
            "netns" => grant.netns.is_some() && words.contains(&"any") || is(grant.netns),
            _ => unreachable!("{field}"),
        }
    }

    /// Evaluates fields that have a meaning if they are absent.
    fn unlisted_matches(&self, grant: &RequiredGrant) -> bool {
        let has = |field: &str| self.fields.iter().any(|(name, _)| *name == field);
        let option = has("option") || self.deny || grant.option != Some("unknown");
        let netlink = has("netlink") || self.deny || grant.netlink.is_none();
        let snaplen =
            grant.length.is_none_or(|length| self.snaplen.is_none_or(|most| length <= most));
        let strong = grant.kind == Some("SOCK_RAW")
            || ["AF_PACKET", "AF_NETLINK"].contains(&grant.family.unwrap_or_default());
        let handover = grant.verb != "handover"
            || match (self.deny, self.unrevocable) {
                (false, unrevocable) => !strong || unrevocable,
                (true, unrevocable) => !unrevocable || strong,
            };
        let here = has("netns") || grant.netns.is_none();
        option && netlink && snaplen && handover && here
    }
}

/// Compares the address and the network bit by bit.
fn contains(net: &str, ip: IpAddr) -> bool {
    if net == "any" {
        return true;
    }
    let (address, length) = net.split_once('/').unwrap_or((net, "128"));
    let bits = |ip: IpAddr| -> Vec<u8> {
        let octets = match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        octets.iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1)).collect()
    };
    let (net, own) = (bits(address.parse().unwrap()), bits(ip));
    let length = length.parse::<usize>().unwrap().min(net.len());
    net.len() == own.len() && net[..length] == own[..length]
}

fn is_within(words: &[&str], port: u16) -> bool {
    words.iter().any(|word| {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        first.parse::<u16>().unwrap() <= port && port <= last.parse::<u16>().unwrap()
    })
}
