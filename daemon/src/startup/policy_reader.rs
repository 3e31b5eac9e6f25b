//! The policy reader: reads the policy's files, resolves the names in them, and sends the result to the monitor.

use std::fs::{self, File};
use std::io::Read as _;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};

use sockbroker_monitor::account::{self, Subordinate};
use sockbroker_monitor::channel::Channel;
use sockbroker_monitor::message::{FromPolicyReader, Granted, Subject, ToPolicyReader, UserFacts};
use sockbroker_monitor::user_names::UserNames;
use sockbroker_policy::file::Directory;
use sockbroker_policy::name::Pattern;
use sockbroker_policy::need::makes_unix_calls;
use sockbroker_policy::rule::{Effect, Rule};
use sockbroker_policy::subjects::Subjects;
use sockbroker_policy::verb::Verb;
use sockbroker_sys::{capability, process, sealed};

use super::args::Args;
use super::error::StartError;
use super::{confine, credentials, sources, subordinate};
use crate::config::policy::{Accounts, ResolvedPolicy};

/// The warnings that are sent; more would fill the channel.
const WARNINGS: usize = 64;
/// The characters of a text that are sent.
const TEXT: usize = 8192;
/// The bytes of the file of users that are read.
const PASSWD: u64 = 1 << 20;

/// Reads the policy that the arguments name.
pub(super) fn run(args: &Args, channel: OwnedFd) -> Result<(), StartError> {
    let fail =
        |error: &dyn std::fmt::Display| StartError::System(format!("policy-reader: {error}"));
    let channel = Channel::<FromPolicyReader, ToPolicyReader>::over(channel);
    let (ToPolicyReader::Result, descriptors) = channel.receive().map_err(|error| fail(&error))?;
    let [memory, of_users, of_remote] = <[OwnedFd; 3]>::try_from(descriptors)
        .map_err(|_others| fail(&"another number of descriptors than three"))?;
    // The files are readable for the broker's user, as without this process.
    capability::keep_only(&[]).map_err(|error| fail(&error))?;
    process::refuse_new_privileges().map_err(|error| fail(&error))?;
    let owner = process::effective_uid();
    let read = sources::policy_files(args).and_then(|files| ResolvedPolicy::read(&files, owner));
    let (resolved, loaded) = match read {
        Ok(read) => read,
        Err(error) => {
            let message = FromPolicyReader::Unusable(shortened(&error.to_string()));
            return channel.send(&message, &[]).map_err(|error| fail(&error));
        }
    };
    let more = loaded.warnings.len().saturating_sub(WARNINGS);
    let mut warnings: Vec<_> = loaded
        .warnings
        .iter()
        .take(WARNINGS)
        .map(|warning| shortened(&warning.to_string()))
        .collect();
    if more > 0 {
        warnings.push(format!("{more} more warnings: see them with sockbrokerd --check"));
    }
    for warning in warnings {
        channel.send(&FromPolicyReader::Warning(warning), &[]).map_err(|error| fail(&error))?;
    }
    let remote =
        if args.remote_file.is_empty() { Ok(Vec::new()) } else { read_credentials(args, &channel) };
    let remote = match remote {
        Ok(remote) => remote,
        Err(reason) => {
            let message = FromPolicyReader::Unusable(shortened(&reason));
            return channel.send(&message, &[]).map_err(|error| fail(&error));
        }
    };
    let rules = || loaded.rules.iter().map(|(rule, _)| rule);
    // A machine without the file has no subordinate ids.
    let subordinate = fs::read_to_string("/etc/subuid").unwrap_or_default();
    let users = UserFacts {
        administrators: administrators(rules()),
        unix_callers: unix_callers(rules()),
        accounts: accounts(&subordinate, &Accounts),
        names: UserNames::of_passwd(&passwd()),
    };
    let users = postcard::to_stdvec(&users).map_err(|error| fail(&error))?;
    let encoded = resolved.encode().map_err(|error| fail(&error))?;
    for (memory, content) in [(memory, encoded), (of_users, users), (of_remote, remote)] {
        sealed::fill(memory.as_fd(), &content).map_err(|error| fail(&error))?;
    }
    let policy = loaded.into_policy(owner);
    let needs_opener = confine::needs_opener(&policy);
    let reaches_networks = policy.reaches_networks();
    let message = FromPolicyReader::Policy { needs_opener, reaches_networks };
    channel.send(&message, &[]).map_err(|error| fail(&error))
}

/// The start of the file of users. It is not searched by the name service, which can list many users slowly.
fn passwd() -> String {
    let mut text = Vec::new();
    // Without it, processes have no names of users.
    if let Ok(file) = File::open("/etc/passwd") {
        drop(file.take(PASSWD).read_to_end(&mut text));
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The credentials of the gateway, encoded.
fn read_credentials(
    args: &Args,
    channel: &Channel<FromPolicyReader, ToPolicyReader>,
) -> Result<Vec<u8>, String> {
    let (found, warnings) = credentials::read(credentials::pairs(&args.remote_file))?;
    for warning in warnings.iter().take(WARNINGS) {
        // Best effort: the result matters.
        drop(channel.send(&FromPolicyReader::Warning(shortened(warning)), &[]));
    }
    postcard::to_stdvec(&found).map_err(|error| error.to_string())
}

/// The start of a text, which fits into a message.
fn shortened(text: &str) -> String {
    text.chars().take(TEXT).collect()
}

/// The accounts by the text of `subuid(5)`. A range of root's, and one of a user without a number, counts for nobody else.
fn accounts(text: &str, directory: &impl Directory) -> account::Accounts {
    let range = |(name, range): (&str, RangeInclusive<u32>)| {
        let user = name.parse().ok().or_else(|| directory.user(name))?;
        Some(Subordinate { first: *range.start(), last: *range.end(), user })
    };
    let ranges = subordinate::ranges(text).filter_map(range).filter(|range| range.user != 0);
    account::Accounts::new(ranges.collect())
}

/// The principals that rules let administer the broker, judged by user and groups. The monitor knows neither unit nor
/// control group: a rule that names one allows nobody here, or denies everybody whom its other fields name.
fn administrators<'a>(rules: impl Iterator<Item = &'a Rule>) -> Granted {
    let mut found = Granted::default();
    for rule in rules.filter(|rule| rule.verbs().any(|verb| verb == Verb::Admin)) {
        let names_unit = !rule.subject.units.is_empty() || !rule.subject.cgroups.is_empty();
        match rule.effect {
            Effect::Deny => found.denied.push(subject(rule)),
            Effect::Allow if !names_unit => found.allowed.push(subject(rule)),
            Effect::Allow => {}
        }
    }
    found
}

/// The principals that rules let make calls on `AF_UNIX` sockets, judged by user and groups. A rule that names a unit or
/// a control group allows everybody here whom its other fields name: the process that the monitor starts has the ids of
/// its caller, and the worker judges each call. Rules that deny are left to the worker.
fn unix_callers<'a>(rules: impl Iterator<Item = &'a Rule>) -> Granted {
    let allowed = rules.filter(|rule| rule.effect == Effect::Allow && makes_unix_calls(rule));
    Granted { allowed: allowed.map(subject).collect(), denied: Vec::new() }
}

fn subject(rule: &Rule) -> Subject {
    let Subjects { uids, gids, certificates, tokens, units: _, cgroups: _, incomplete: _ } =
        &rule.subject;
    let texts = |patterns: &[Pattern]| patterns.iter().map(Pattern::to_string).collect();
    let (certificates, tokens) = (texts(certificates), texts(tokens));
    Subject { uids: uids.clone(), gids: gids.clone(), certificates, tokens }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::policy::Accounts;
    use sockbroker_policy::file::read;

    #[test]
    fn administrators_are_those_of_rules_with_the_grant() {
        let text = "version = 1\n\
            [[rule]]\nname = \"a\"\nallow = [\"admin\"]\nsubject = { uids = [7], gids = [8] }\n\
            [[rule]]\nname = \"b\"\nallow = [\"admin\"]\nsubject = { units = [\"x.service\"] }\n\
            [[rule]]\nname = \"c\"\nallow = [\"hostname\"]\nsubject = { uids = [9] }\n\
            [[rule]]\nname = \"d\"\ndeny = [\"admin\"]\nsubject = { uids = [0], units = [\"x.service\"] }\n";
        let content = read("p", text, &Accounts).unwrap();
        let found = administrators(content.rules.iter().map(|(rule, _)| rule));
        let subject = |uids: &[u32], gids: Option<Vec<u32>>| Subject {
            uids: Some(uids.to_vec()),
            gids,
            ..Subject::default()
        };
        assert_eq!(found.allowed, [subject(&[7], Some(vec![8]))]);
        assert_eq!(found.denied, [subject(&[0], None)]);
    }

    #[test]
    fn unix_callers_are_those_of_rules_that_grant_such_calls() {
        let text = "version = 1\n\
            [[rule]]\nname = \"a\"\nallow = [\"connect\"]\nfamily = [\"AF_UNIX\"]\nsubject = { uids = [7] }\n\
            [[rule]]\nname = \"b\"\nallow = [\"create\"]\nsubject = { gids = [8], units = [\"x.service\"] }\n\
            [[rule]]\nname = \"c\"\nallow = [\"connect\"]\nfamily = [\"AF_INET\"]\nsubject = { uids = [9] }\n\
            [[rule]]\nname = \"d\"\nallow = [\"bind\"]\nlocal_ports = [\"80\"]\nsubject = { uids = [9] }\n\
            [[rule]]\nname = \"e\"\nallow = [\"receive\"]\nfamily = [\"AF_UNIX\"]\nsubject = { uids = [9] }\n\
            [[rule]]\nname = \"f\"\ndeny = [\"connect\"]\nsubject = { uids = [7] }\n";
        let content = read("p", text, &Accounts).unwrap();
        let found = unix_callers(content.rules.iter().map(|(rule, _)| rule));
        let subject = |uids, gids| Subject { uids, gids, ..Subject::default() };
        assert_eq!(found.allowed, [subject(Some(vec![7]), None), subject(None, Some(vec![8]))]);
        assert_eq!(found.denied, []);
    }

    #[test]
    fn long_texts_are_shortened() {
        assert_eq!(shortened(&"ä".repeat(TEXT + 1)).chars().count(), TEXT);
    }
}
